"""Published benchmarks by name."""

import sys
from pathlib import Path

import pytest

import tinybench
from fti4cir import benchmarks
from fti4cir.benchmarks import registry as published
from fti4cir.errors import InputError


def test_fashioniq_is_three(tmp_path: Path) -> None:
    tinybench.fashioniq(tmp_path)
    parts = published.load("fashioniq", tmp_path)
    assert [part.name for part in parts] == ["fashioniq-dress", "fashioniq-shirt", "fashioniq-toptee"]
    assert [len(part.queries) for part in parts] == [1, 2, 3]
    (one,) = published.load("fashioniq", tmp_path, gallery="union", category="dress")
    assert (one.name, len(one.gallery)) == ("fashioniq-dress", 2)


def test_the_others_are_one(tmp_path: Path) -> None:
    tinybench.cirr(tmp_path / "cirr")
    tinybench.circo(tmp_path / "circo")
    assert [part.name for part in published.load("cirr", tmp_path / "cirr")] == ["cirr"]
    assert [part.split for part in published.load("circo", tmp_path / "circo", "test")] == ["test"]


def test_what_there_is_not(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="There is no benchmark 'coco'; available are: circo, cirr, fashioniq"):
        published.load("coco", tmp_path)
    with pytest.raises(InputError, match="The benchmark cirr has no option 'gallery'"):
        published.load("cirr", tmp_path, gallery="union")
    with pytest.raises(InputError, match="gallery is one of split, union, not 'all'"):
        published.load("fashioniq", tmp_path, gallery="all")


def test_each_module_registers_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(published.benchmarks()) == ["circo", "cirr", "fashioniq"]
    (tmp_path / "twins.py").write_text(
        "from fti4cir.benchmarks.published import Published\n"
        "BENCHMARK = Published('twins', 'Twins.', ('one',), lambda root, split, allow_missing: (split,))\n"
    )
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(tmp_path)])
    try:
        assert list(published.benchmarks()) == ["circo", "cirr", "fashioniq", "twins"]
        assert published.load("twins", tmp_path) == ("one",)
    finally:
        sys.modules.pop("fti4cir.benchmarks.twins")
