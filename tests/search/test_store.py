"""The Lance table behind a search: correct answers, and clear errors."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lancedb
import numpy as np
import pytest

from fti4cir.errors import StoreError
from fti4cir.search.schema import FileState, StoreInfo
from fti4cir.search.store import Store
from tinyindex import INFO, WIDTH, make, rows, vectors


def test_search_is_exact(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(500)
    store.upsert(rows(values))
    for query in vectors(20, seed=1):
        cosines = values @ query
        best = np.argsort(-cosines)[:10]
        hits = store.search(query, 10)
        assert [hit.path for hit in hits] == [f"d/{i}.jpg" for i in best]
        assert [hit.score for hit in hits] == pytest.approx(cosines[best], abs=1e-5)


def test_the_query_need_not_have_unit_length(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(50)
    store.upsert(rows(values))
    assert store.search(values[3] * 7, 1)[0] == ("d/3.jpg", pytest.approx(1.0, abs=1e-5))


def test_upsert_replaces_and_remove_takes_out(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(5)
    store.upsert(rows(values))
    store.upsert([rows(values)[2]._replace(mtime_ns=99, vector=values[4]), *rows(vectors(1, seed=5), start=7)])
    assert len(store) == 6
    assert store.files()["d/2.jpg"] == FileState(99, 20)
    assert {hit.path for hit in store.search(values[4], 2)} == {"d/2.jpg", "d/4.jpg"}
    store.remove(["d/2.jpg", "d/7.jpg", "never there"])
    store.remove([])
    store.upsert([])
    assert sorted(store.files()) == ["d/0.jpg", "d/1.jpg", "d/3.jpg", "d/4.jpg"]


def test_removing_very_many(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.upsert(rows(vectors(2500)))
    store.remove(f"d/{i}.jpg" for i in range(2499))
    assert list(store.files()) == ["d/2499.jpg"]


@pytest.mark.parametrize(
    "name", ["it's.jpg", 'say "x".jpg', "дом/日本 🙂.png", "a%_b.jpg", "');drop.jpg", "back\\slash.jpg"]
)
def test_any_name(tmp_path: Path, name: str) -> None:
    store, value = make(tmp_path), vectors(1)[0]
    store.upsert([rows(vectors(1))[0]._replace(path=name)])
    assert list(store.files()) == [name]
    assert store.search(value, 1)[0].path == name
    assert store.search(value, 1, without_paths=[name]) == []
    store.remove([name])
    assert len(store) == 0


def test_of_two_rows_of_a_path_the_last_is_written(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(2)
    one = rows(values)[0]
    store.upsert([one, one._replace(mtime_ns=7)])
    assert store.files() == {"d/0.jpg": FileState(7, 0)}


def test_an_empty_store_finds_nothing(tmp_path: Path) -> None:
    assert make(tmp_path).search(vectors(1)[0], 5) == []


def test_opening_again_keeps_everything(tmp_path: Path) -> None:
    make(tmp_path / "s").upsert(rows(vectors(3)))
    store = Store.open(tmp_path / "s")
    assert store.info == StoreInfo(Path("/photos"), "mini", "print-1", WIDTH)
    assert len(store) == 3


def test_an_open_store_sees_what_others_write(tmp_path: Path) -> None:
    reader = make(tmp_path)
    Store.open(tmp_path).upsert(rows(vectors(3)))
    assert len(reader) == 3
    assert len(reader.search(vectors(1)[0], 5)) == 3


def test_another_model(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.check_model("mini", "print-1")
    with pytest.raises(
        StoreError, match=r"made with the model 'mini', not 'vit-l-14'; use that model, or index the folder again"
    ):
        store.check_model("vit-l-14", "print-9")
    with pytest.raises(StoreError, match=r"another version of the model 'mini'; delete it and index again"):
        store.check_model("mini", "print-2")


def test_no_store_and_no_place_for_one(tmp_path: Path) -> None:
    assert not Store.exists(tmp_path / "none")
    with pytest.raises(StoreError, match="There is no index at"):
        Store.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="--store"):
        make(tmp_path / "file")
    make(tmp_path / "s")
    with pytest.raises(StoreError, match="already exists"):
        make(tmp_path / "s")


def test_a_damaged_store(tmp_path: Path) -> None:
    make(tmp_path).upsert(rows(vectors(100)))
    for path in (tmp_path / "pictures.lance" / "data").iterdir():
        path.write_bytes(b"garbage")
    with pytest.raises(StoreError, match="delete it and index again"):
        Store.open(tmp_path).search(vectors(1)[0], 5)
    for path in (tmp_path / "pictures.lance" / "_versions").iterdir():
        path.write_bytes(b"garbage")
    with pytest.raises(StoreError, match="delete it and index again"):
        Store.open(tmp_path)


def test_a_table_of_another_program(tmp_path: Path) -> None:
    lancedb.connect(tmp_path).create_table("pictures", [{"a": 1}])
    with pytest.raises(StoreError, match="another program"):
        Store.open(tmp_path)


def test_optimize_merges_files_and_changes_no_answer(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(60)
    for i in range(60):
        store.upsert(rows(values[i : i + 1], start=i))
    before = store.search(values[0], 20)
    store.optimize()
    assert store.search(values[0], 20) == before
    assert store._table.stats()["fragment_stats"]["num_fragments"] == 1


def test_the_approximate_index_comes_with_many_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fti4cir.search.store.ANN_ROWS", 2000)
    store, values = make(tmp_path), vectors(2500)
    store.upsert(rows(values[:1999]))
    store.optimize()
    assert not store._table.list_indices()
    store.upsert(rows(values[1999:2400], start=1999))
    store.optimize()
    assert len(store._table.list_indices()) == 1
    store.upsert(rows(values[2400:], start=2400))  # not in the index yet
    found = 0
    for query in vectors(30, seed=1):
        best = {f"d/{i}.jpg" for i in np.argsort(-(values @ query))[:10]}
        found += len(best & {hit.path for hit in store.search(query, 10)})
    assert found / 300 >= 0.95
    assert store.search(values[2450], 1)[0].path == "d/2450.jpg"
    assert len(store.search(values[0], 10, where="width >= 2585")) == 10  # 15 rows suit
    store.optimize()
    assert store.search(values[2450], 1)[0].path == "d/2450.jpg"


def test_the_store_does_not_import_torch() -> None:
    code = "import sys, fti4cir.search.store; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestPlanned:
    """A store that its first row makes."""

    def test_nothing_is_there_before_the_first_row(self, tmp_path: Path) -> None:
        store = Store.planned(tmp_path / "s", INFO)
        assert len(store) == 0
        assert store.files() == {}
        assert store.digests() == {}
        assert store.with_digests(["digest1"]) == {}
        assert store.snapshot().files() == {}
        assert store.search(vectors(1)[0], 3) == []
        store.upsert([])
        store.remove(["a"])
        store.optimize()
        assert store.repair() == 0
        assert not (tmp_path / "s").exists()
        store.upsert(rows(vectors(2)))
        assert len(Store.open(tmp_path / "s")) == len(store) == 2

    def test_it_finds_what_another_process_made(self, tmp_path: Path) -> None:
        store = Store.planned(tmp_path, INFO)
        make(tmp_path).upsert(rows(vectors(2)))
        assert len(store) == 2
        store.upsert(rows(vectors(1), start=2))
        assert len(Store.open(tmp_path)) == 3

    def test_it_does_not_mix_models_or_folders(self, tmp_path: Path) -> None:
        make(tmp_path)
        with pytest.raises(StoreError, match="made with the model 'mini', not 'other'"):
            Store.planned(tmp_path, StoreInfo(Path("/photos"), "other", "print-2", WIDTH)).upsert(rows(vectors(1)))
        with pytest.raises(StoreError, match="not of '/other'"):
            Store.planned(tmp_path, StoreInfo(Path("/other"), "mini", "print-1", WIDTH)).upsert(rows(vectors(1)))
        assert len(Store.open(tmp_path)) == 0

    @pytest.mark.parametrize("scheme", ["", "file://"])
    def test_a_process_killed_while_it_made_the_store(self, tmp_path: Path, scheme: str) -> None:
        for name in ("_versions", "data", "_transactions"):
            (tmp_path / "pictures.lance" / name).mkdir(parents=True)
        location = f"{scheme}{tmp_path}"
        assert not Store.exists(location)
        store = Store.planned(location, INFO)
        assert len(store) == 0
        store.upsert(rows(vectors(2)))
        assert len(Store.open(location)) == 2


def test_rows_of_known_digests(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(2100)
    store.upsert(rows(values))
    found = store.with_digests([f"digest{i}" for i in range(5, 2100)] + ["never there"])
    assert set(found) == {f"digest{i}" for i in range(5, 2100)}
    assert found["digest7"].path == "d/7.jpg"
    assert (found["digest7"].width, found["digest7"].height) == (107, 50)
    assert np.array_equal(found["digest7"].vector, values[7])
    assert store.digests()["d/9.jpg"] == "digest9"


def test_a_snapshot_stays_as_it_was(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(3)
    store.upsert(rows(values))
    before = store.snapshot()
    store.upsert([row._replace(digest="new") for row in rows(values)])
    store.optimize()
    assert np.array_equal(before.with_digests(["digest1"])["digest1"].vector, values[1])
    assert store.with_digests(["digest1"]) == {}
