"""A lock between processes, so that two of them do not index the same images at the same time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from ..errors import StoreError

_NAME = "index.lock"
_POLL = 0.5
"""Seconds between two attempts to get a lock that another process holds."""


class WriterLock:
    """A lock file in the folder of an index. A missing folder is created."""

    def __init__(self, place: Path) -> None:
        self._place = place
        # Not a soft lock (held while a file exists), because that stays behind when a process is killed.
        self._file = FileLock(place / _NAME, fallback_to_soft=False)
        self._made: list[Path] = []

    def acquire(self, wait: Callable[[], bool]) -> bool:
        """Get the lock. False if `wait`, called after each failed attempt, says to stop trying.

        True also where no lock is possible, such as in a folder that cannot be written to.

        Raises:
            StoreError: if the folder cannot be created.
        """
        seconds = 0.0
        while True:
            self._make_folders()
            try:
                self._file.acquire(timeout=seconds)
                return True
            except Timeout:
                if not wait():
                    return False
                seconds = _POLL
            except FileNotFoundError:
                continue  # the previous holder removed the folder, see `release`
            except (OSError, NotImplementedError):
                return True  # if nothing can be written here, the first write reports it

    def release(self, *, unused: bool) -> None:
        """Release the lock. If the index is `unused` (never written to), folders that `acquire` made are removed."""
        # Before the lock is released, so that no other process is using the folder.
        if unused and self._made and self._file.is_locked:
            shutil.rmtree(self._place, ignore_errors=True)
        self._file.release()
        if unused:
            with suppress(OSError):  # the folder is not empty
                for folder in self._made:
                    if folder.exists():
                        folder.rmdir()

    def _make_folders(self) -> None:
        folders = (self._place, *self._place.parents)
        self._made = [folder for folder in folders if not os.path.exists(folder)]
        try:
            self._place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{cannot_make(self._place)}: {error.strerror}.") from error


def cannot_make(location: str | Path) -> str:
    """The start of a message that an index cannot be made."""
    return f"Cannot make an index at '{location}' (`fti4cir index --store` names another place)"
