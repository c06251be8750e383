"""The Lance table behind a search: right, whatever is asked, and clear about what it cannot do."""

from __future__ import annotations

import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from fti4cir.errors import StoreError
from fti4cir.files import is_uri
from fti4cir.search.locations import default_location
from fti4cir.search.schema import FileState, Row, StoreInfo
from fti4cir.search.store import Store

WIDTH = 16


def make(location: str | Path, root: Path = Path("/photos"), width: int = WIDTH) -> Store:
    return Store.create(location, StoreInfo(root, "mini", "print-1", width))


def vectors(count: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def rows(values: np.ndarray, start: int = 0) -> list[Row]:
    return [
        Row(f"d/{i}.jpg", i, 10 * i, f"digest{i}", 100 + i, 50, value) for i, value in enumerate(values, start=start)
    ]


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


def test_excluding_and_conditions_lose_no_results(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(300)
    store.upsert(rows(values))
    query = values[0]
    order = [f"d/{i}.jpg" for i in np.argsort(-(values @ query))]
    assert [hit.path for hit in store.search(query, 10, without_paths=order[:7])] == order[7:17]
    assert [hit.path for hit in store.search(query, 10, without_digests=["digest0"])] == order[1:11]
    wide = [path for path in order if int(path[2:-4]) >= 290]
    assert [hit.path for hit in store.search(query, 10, where="width >= 390")] == wide
    assert [
        hit.path for hit in store.search(query, 10, where="width >= 390 OR width < 0", without_paths=wide[:2])
    ] == wide[2:]


def test_equal_scores_come_in_the_order_of_paths(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.upsert(rows(np.repeat(vectors(1), 9, axis=0))[::-1])
    paths = [hit.path for hit in store.search(vectors(1)[0], 9)]
    assert paths == sorted(paths)


def test_copies_tie_exactly_and_the_cut_respects_the_order_of_paths(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(40)
    # As two runs of a model may leave them: the same file, features that differ in their last digits.
    near = [values[0] + np.float32(1e-7 * i) for i in range(6)]
    copies = [row._replace(digest="same") for row in rows(np.stack(near), start=100)]
    store.upsert([*copies[::-1], *rows(values[1:], start=1)])
    hits = store.search(values[0], 45)
    assert [hit.path for hit in hits[:6]] == [f"d/{i}.jpg" for i in range(100, 106)]
    assert len({hit.score for hit in hits[:6]}) == 1
    for k in range(1, 7):
        assert store.search(values[0], k) == hits[:k]


@pytest.mark.parametrize("k", [4, 2**31, 5_000_000_000])
def test_more_results_than_there_are_rows(tmp_path: Path, k: int) -> None:
    store = make(tmp_path)
    assert store.search(vectors(1)[0], k) == []
    store.upsert(rows(vectors(3)))
    assert len(store.search(vectors(1)[0], k)) == 3
    assert len(store.search(vectors(1)[0], k, where="width >= 101")) == 2


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


@pytest.mark.parametrize("where", ["", "nope = 1", "width <", "width = 'a'", "width", "1=1; drop table x"])
def test_a_condition_that_cannot_be_used(tmp_path: Path, where: str) -> None:
    store = make(tmp_path)
    store.upsert(rows(vectors(3)))
    with pytest.raises(StoreError) as caught:
        store.search(vectors(1)[0], 5, where=where, without_paths=["d/0.jpg"])
    message = str(caught.value)
    assert repr(where) in message
    assert "\n" not in message
    assert ".rs:" not in message


@pytest.mark.parametrize(
    ("where", "reason"), [("1/0 = 1", "Divide by zero error."), ("cast(path as int) > 1", "Cast error: Cannot cast ")]
)
def test_a_condition_that_fails_on_the_rows_says_why_and_no_more(tmp_path: Path, where: str, reason: str) -> None:
    store = make(tmp_path)
    store.upsert(rows(vectors(3)))
    with pytest.raises(StoreError) as caught:
        store.search(vectors(1)[0], 5, where=where)
    assert str(caught.value).startswith(f"Cannot use the condition {where!r}: {reason}")


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


def test_a_store_within_its_folder_moves_with_it(tmp_path: Path) -> None:
    make(default_location(tmp_path / "old"), root=tmp_path / "old")
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert Store.open(default_location(tmp_path / "new")).info.root == tmp_path / "new"


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


def test_a_uri(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/s"
    assert not Store.exists(uri)
    Store.create(uri, StoreInfo(Path("/photos"), "mini", "print-1", WIDTH)).upsert(rows(vectors(2)))
    assert len(Store.open(uri)) == 2


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


class TestLocations:
    @pytest.mark.parametrize("name", ["Trip: Rome", "memory:", "C:x", "s3:", "a%20b", "a?b#c", "~x", "[a]*"])
    def test_a_folder_whose_name_looks_like_something_else(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for location in (name, Path(name)):
            assert not is_uri(location)
            assert not Store.exists(location)
            make(location).upsert(rows(vectors(2)))
            assert (tmp_path / name / "pictures.lance").is_dir()
            assert len(Store.open(location)) == 2
            shutil.rmtree(tmp_path / name)

    def test_only_a_scheme_makes_a_uri(self) -> None:
        assert is_uri("s3://bucket/x")
        assert is_uri("s3+ddb://bucket/x")
        assert not is_uri("C://x")
        assert not is_uri("photos/s3://bucket")

    def test_a_relative_place_stays_where_it_was(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path)
        store = make(Path("s"))
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.upsert(rows(vectors(2)))
        assert len(store) == 2
        assert not list((tmp_path / "elsewhere").iterdir())


class TestPlanned:
    """A store that its first row makes."""

    INFO = StoreInfo(Path("/photos"), "mini", "print-1", WIDTH)

    def test_nothing_is_there_before_the_first_row(self, tmp_path: Path) -> None:
        store = Store.planned(tmp_path / "s", self.INFO)
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
        store = Store.planned(tmp_path, self.INFO)
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
        store = Store.planned(location, self.INFO)
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


def at_once(work: list[Callable[[], object]]) -> None:
    """Do all of it at the same time; raise what any of it raises."""
    start, errors = threading.Barrier(len(work)), list[BaseException]()

    def do(one: Callable[[], object]) -> None:
        start.wait()
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=do, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


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
        stores = [Store.planned(tmp_path / "s", TestPlanned.INFO) for _ in range(4)]
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


# Holds the lock of the store at argv[1] until it is killed.
HOLDER = """
import sys, time
from fti4cir.search.store import Store
with Store.open(sys.argv[1]).only_writer(lambda: True):
    print("held", flush=True)
    time.sleep(600)
"""


class TestLock:
    def test_the_second_waits_for_the_first(self, tmp_path: Path) -> None:
        first, second = make(tmp_path), Store.open(tmp_path)
        asked: list[int] = []

        def give_up() -> bool:
            asked.append(1)
            return len(asked) < 3

        with first.only_writer(lambda: True) as mine:
            assert mine
            with second.only_writer(give_up) as also_mine:
                assert not also_mine
        assert len(asked) == 3
        with second.only_writer(give_up) as mine:
            assert mine
        assert len(asked) == 3

    def test_a_killed_process_gives_it_back(self, tmp_path: Path) -> None:
        store = make(tmp_path)
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"

        def kill() -> bool:
            holder.kill()
            return True

        with store.only_writer(kill) as mine:
            assert mine
        assert holder.wait() == -9

    def test_no_lock_where_none_can_be_had(self, tmp_path: Path) -> None:
        location = f"file://{tmp_path}/s"
        make(location)
        with (
            Store.open(location).only_writer(lambda: False) as one,
            Store.open(location).only_writer(lambda: False) as other,
        ):
            assert one
            assert other

    def test_a_file_system_without_locks(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def acquire(self: object, timeout: float) -> None:
            raise OSError(37, "No locks available")

        store = make(tmp_path)
        monkeypatch.setattr("fti4cir.search.lock.FileLock.acquire", acquire)
        with store.only_writer(lambda: False) as mine:
            assert mine

    def test_nothing_is_left_of_a_store_that_was_not_made(self, tmp_path: Path) -> None:
        (tmp_path / "mine").mkdir()
        for place in (tmp_path / "new" / "er" / "s", tmp_path / "mine"):
            with Store.planned(place, TestPlanned.INFO).only_writer(lambda: True) as mine:
                assert mine
        assert list(tmp_path.iterdir()) == [tmp_path / "mine"]

    def test_who_waited_for_a_folder_that_is_gone_makes_it_again(self, tmp_path: Path) -> None:
        stores = [Store.planned(tmp_path / "s", TestPlanned.INFO) for _ in range(2)]
        first = stores[0].only_writer(lambda: True)
        first.__enter__()

        def finish_the_first() -> bool:
            first.__exit__(None, None, None)
            assert not (tmp_path / "s").exists()
            return True

        with stores[1].only_writer(finish_the_first) as mine:
            assert mine
            stores[1].upsert(rows(vectors(2)))
        assert len(Store.open(tmp_path / "s")) == 2

    def test_a_place_where_no_store_can_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        store = Store.planned(tmp_path / "file", TestPlanned.INFO)
        says = r"Cannot make an index at .*\(`fti4cir index --store` names another place\): File exists"
        with pytest.raises(StoreError, match=says), store.only_writer(lambda: True):
            pass
