"""Where an index may lie."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from fti4cir.files import is_uri
from fti4cir.search.locations import default_location
from fti4cir.search.schema import StoreInfo
from fti4cir.search.store import Store
from tinyindex import WIDTH, make, rows, vectors


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


def test_a_store_within_its_folder_moves_with_it(tmp_path: Path) -> None:
    make(default_location(tmp_path / "old"), root=tmp_path / "old")
    shutil.move(tmp_path / "old", tmp_path / "new")
    assert Store.open(default_location(tmp_path / "new")).info.root == tmp_path / "new"


def test_a_uri(tmp_path: Path) -> None:
    uri = f"file://{tmp_path}/s"
    assert not Store.exists(uri)
    Store.create(uri, StoreInfo(Path("/photos"), "mini", "print-1", WIDTH)).upsert(rows(vectors(2)))
    assert len(Store.open(uri)) == 2
