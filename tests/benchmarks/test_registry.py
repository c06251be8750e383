"""Published benchmarks by name."""

from pathlib import Path

import pytest

import tinybench
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
    with pytest.raises(InputError, match="cirr has one gallery; --gallery and --category are for fashioniq"):
        published.load("cirr", tmp_path / "cirr", gallery="union")
