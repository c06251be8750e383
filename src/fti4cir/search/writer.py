"""Write rows to the index in the background, a few seconds' worth at a time."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

from .schema import Row
from .store import Store

WRITE_EVERY = 5.0
"""Seconds between writes to the index: the most work that a killed process loses."""


class RowWriter:
    """Collects rows and writes them every WRITE_EVERY seconds, and when its `with` block ends for any reason.

    It writes from a thread of its own. The model need not wait, and Ctrl-C, which interrupts the main thread, cannot
    cut a write short.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: list[Row] = []
        self._written: list[Row] = []  # or being written
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def write(self, rows: list[Row]) -> None:
        """Add rows, and write all collected ones if it is time; raises the error of an earlier write."""
        self._rows += rows
        if self._under_way is not None and self._under_way.done():
            self._finish()
        if time.monotonic() - self._last >= WRITE_EVERY:
            self._flush()

    def pending(self) -> list[Row]:
        """The rows that may not be in the index yet."""
        return self._written + self._rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._flush()
        finally:
            self._thread.shutdown()
        self._finish()

    def _flush(self) -> None:
        self._finish()
        self._written, self._rows = self._rows, []
        self._under_way = self._thread.submit(self._store.upsert, self._written)
        self._last = time.monotonic()

    def _finish(self) -> None:
        if self._under_way is not None:
            self._under_way.result()
