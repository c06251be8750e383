"""Rows are written while indexing goes on, and after an interruption."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fti4cir.errors import StoreError
from fti4cir.search.indexing import index_folder, store_for
from fti4cir.search.schema import Row
from fti4cir.search.store import Store
from standin import ColourModel, save_colour
from tinyindex import counts, index


class _Stop(BaseException):
    """Like KeyboardInterrupt, but pytest goes on."""


def test_an_interrupted_run_keeps_what_it_encoded(tmp_path: Path) -> None:
    for i in range(150):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))

    def interrupt(done: int, total: int) -> None:
        if done == 96:
            raise _Stop

    model = ColourModel()
    store = store_for(tmp_path, model)
    with pytest.raises(_Stop):
        index_folder(tmp_path, store, model=model, progress=interrupt)
    assert len(store) == 96
    assert threading.active_count() < 10
    again = ColourModel()
    assert counts(index_folder(tmp_path, store, model=again)) == (54, 0, 96, 0, 0, 150)
    assert again.encoder.encoded == 54


def test_rows_are_written_while_indexing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fti4cir.search.writer.WRITE_EVERY", 0.0)
    for i in range(100):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))
    model = ColourModel(seconds_a_batch=0.2)
    store = store_for(tmp_path, model)
    sizes: list[int] = []
    index_folder(tmp_path, store, model=model, progress=lambda done, total: sizes.append(len(store)))
    assert sizes[-1] >= 64  # a killed process would have left these


def test_a_store_that_cannot_be_written_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Store, rows: list[Row]) -> None:
        raise StoreError("Cannot write to the index: No space left on device.")

    monkeypatch.setattr(Store, "upsert", full)
    with pytest.raises(StoreError, match="No space left"):
        index(folder)
