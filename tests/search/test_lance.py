"""Changes that conflict with other writers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fti4cir.errors import StoreError
from tinyindex import make, rows, vectors


class _Overtaken:
    """A table whose first changes fail because another writer was faster."""

    def __init__(self, table: Any, times: int, says: str) -> None:
        self._table, self._times, self._says = table, times, says

    def __getattr__(self, name: str) -> Any:
        return getattr(self._table, name)

    def delete(self, condition: str) -> None:
        self._times -= 1
        if self._times >= 0:
            raise RuntimeError(self._says)
        self._table.delete(condition)


class TestConflicts:
    @pytest.fixture(autouse=True)
    def hurry(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fti4cir.search.lance.time.sleep", lambda seconds: None)

    @pytest.mark.parametrize(
        "says", ["lance error: Retryable commit conflict for version 3: ...", "Too many concurrent writers. ..."]
    )
    def test_a_change_is_tried_again(self, tmp_path: Path, says: str) -> None:
        store = make(tmp_path)
        store.upsert(rows(vectors(3)))
        store._table = _Overtaken(store._table, 3, says)
        store.remove(["d/0.jpg"])
        assert len(store) == 2

    def test_but_not_for_ever(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("fti4cir.search.lance.CONFLICT_SECONDS", 0.05)
        store = make(tmp_path)
        store._table = _Overtaken(store._table, 10**9, "Retryable commit conflict for version 3")
        with pytest.raises(StoreError, match=r"Cannot write to the index .*: Retryable commit conflict"):
            store.remove(["d/0.jpg"])

    def test_other_errors_are_not(self, tmp_path: Path) -> None:
        store = make(tmp_path)
        store._table = _Overtaken(store._table, 1, "No space left on device")
        with pytest.raises(StoreError, match="No space left on device"):
            store.remove(["d/0.jpg"])
