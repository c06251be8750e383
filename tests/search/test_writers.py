"""Several writers at once: each path keeps one row, also in tables of earlier versions."""

from __future__ import annotations

from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from fti4cir.search import store as store_module
from fti4cir.search.schema import FileState, Row, has_key
from fti4cir.search.store import Store
from tinyindex import INFO, at_once, make, rows, vectors


def old_store(location: Path) -> Store:
    """A store as earlier versions made them, which declared no key."""
    schema = make(location)._table.schema
    schema = pa.schema([field.remove_metadata() for field in schema], metadata=schema.metadata)
    lancedb.connect(location).create_table("pictures", schema=schema, mode="overwrite")
    return Store.open(location)


def add_as_they_are(store: Store, new: list[Row]) -> None:
    """What two writers at the same time left behind: rows whose paths may be there already."""
    schema = store._table.schema
    store._table.add(pa.Table.from_pylist([{**row._asdict(), "vector": list(row.vector)} for row in new], schema))


@pytest.fixture
def doubled(tmp_path: Path) -> Store:
    """Every image twice, `d/3.jpg` three times; the second of each is the newer one."""
    store, values = old_store(tmp_path), vectors(30)
    add_as_they_are(store, rows(values))
    add_as_they_are(store, [row._replace(mtime_ns=row.mtime_ns + 1000) for row in rows(values)])
    add_as_they_are(store, rows(values)[3:4])
    assert len(store) == 61
    return store


class TestDoubles:
    def test_a_search_shows_each_once(self, doubled: Store) -> None:
        values = vectors(30)
        order = [f"d/{i}.jpg" for i in np.argsort(-(values @ values[3]))]
        for k in (1, 2, 10, 30, 40):
            assert [hit.path for hit in doubled.search(values[3], k)] == order[:k]

    def test_repair_leaves_the_latest_row(self, doubled: Store) -> None:
        assert doubled.repair() == 31
        assert len(doubled) == 30
        assert doubled.files() == {f"d/{i}.jpg": FileState(i + 1000, 10 * i) for i in range(30)}
        assert doubled.repair() == 0

    def test_repair_with_many_others(self, doubled: Store) -> None:
        stores = [Store.open(doubled.location) for _ in range(4)]
        at_once([store.repair for store in stores])
        assert len(doubled.files()) == len(doubled) == 30

    def test_what_is_written_afterwards_is_there_once(self, doubled: Store) -> None:
        doubled.repair()
        write_the_same_rows_at_once(doubled.location)
        assert len(doubled.files()) == len(doubled) == 30


def test_a_key_that_another_writer_declares_at_the_same_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    late = old_store(tmp_path)
    Store.open(tmp_path).upsert(rows(vectors(30)))  # declares the key
    answers = iter([False])  # what the late one saw before that
    monkeypatch.setattr(store_module, "has_key", lambda schema: next(answers, None) is None and has_key(schema))

    def refuse(table: object, column: str) -> None:
        raise ValueError("the unenforced primary key is a reserved key and cannot be changed once set")

    monkeypatch.setattr(type(late._table), "set_unenforced_primary_key", refuse)
    late.upsert(rows(vectors(30)))
    assert len(late) == 30


def write_the_same_rows_at_once(location: str, writers: int = 4) -> None:
    stores = [Store.open(location) for _ in range(writers)]
    new = [row._replace(mtime_ns=99) for row in rows(vectors(30))]
    at_once([lambda store=store: store.upsert(new) for store in stores])


class TestSeveralWriters:
    """A path has one row. `file://` stands for an object store: no lock can be had for a URI."""

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_the_same_new_paths(self, tmp_path: Path, scheme: str) -> None:
        location = f"{scheme}{tmp_path}/s"
        make(location)
        write_the_same_rows_at_once(location)
        assert len(Store.open(location)) == 30
        write_the_same_rows_at_once(location)
        assert len(Store.open(location)) == 30

    def test_one_store_in_several_threads(self, tmp_path: Path) -> None:
        store = make(tmp_path)
        at_once([lambda: store.upsert(rows(vectors(30)))] * 4)
        assert len(store) == 30

    def test_a_store_of_an_earlier_version(self, tmp_path: Path) -> None:
        store = old_store(tmp_path)
        write_the_same_rows_at_once(store.location)
        assert len(store) == 30

    def test_all_make_the_store(self, tmp_path: Path) -> None:
        stores = [Store.planned(tmp_path / "s", INFO) for _ in range(4)]
        at_once([lambda store=store, i=i: store.upsert(rows(vectors(5), 5 * i)) for i, store in enumerate(stores)])
        assert len(Store.open(tmp_path / "s")) == 20

    def test_writing_removing_and_optimizing_at_once(self, tmp_path: Path) -> None:
        make(tmp_path).upsert(rows(vectors(40)))
        stores = [Store.open(tmp_path) for _ in range(4)]
        at_once(
            [
                lambda: stores[0].remove(f"d/{i}.jpg" for i in range(20)),
                lambda: stores[1].upsert(rows(vectors(40, seed=1))[20:]),
                stores[2].optimize,
                stores[3].optimize,
            ]
        )
        assert sorted(Store.open(tmp_path).files()) == sorted(f"d/{i}.jpg" for i in range(20, 40))
