"""The lock between processes that index: whoever waits, and whoever is killed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fti4cir.errors import StoreError
from fti4cir.search.store import Store
from tinyindex import INFO, make, rows, vectors

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

    @pytest.mark.slow
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
            with Store.planned(place, INFO).only_writer(lambda: True) as mine:
                assert mine
        assert list(tmp_path.iterdir()) == [tmp_path / "mine"]

    def test_who_waited_for_a_folder_that_is_gone_makes_it_again(self, tmp_path: Path) -> None:
        stores = [Store.planned(tmp_path / "s", INFO) for _ in range(2)]
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
        store = Store.planned(tmp_path / "file", INFO)
        says = r"Cannot make an index at .*\(`fti4cir index --store` names another place\): File exists"
        with pytest.raises(StoreError, match=says), store.only_writer(lambda: True):
            pass
