"""CIRR: groups of six, folders, hidden targets, and the real annotation."""

from pathlib import Path
from typing import Any

import pytest

import tinybench
from fti4cir.benchmarks import cirr
from fti4cir.errors import InputError


def test_queries(tmp_path: Path) -> None:
    benchmark = cirr.load(tinybench.cirr(tmp_path))
    assert (benchmark.name, benchmark.split, len(benchmark.gallery)) == ("cirr", "val", 12)
    assert benchmark.gallery.ids[:2] == ("dev-0-0-img0", "dev-0-1-img0")
    query = benchmark.queries[5]
    assert query.texts == ("is number 1",)
    assert (query.reference, query.exclude, query.targets) == (7, (7,), (8,))
    assert query.within == (6, 8, 9, 10, 11)
    assert benchmark.query_ids == (100, 103, 106, 109, 112, 115, 118, 121)
    cuts = benchmark.precision_cuts, benchmark.recall_cuts, benchmark.subset_cuts
    assert cuts == ((), (1, 5, 10, 50), (1, 2, 3))
    assert "12 images), the reference left out" in benchmark.protocol


def test_hidden_targets(tmp_path: Path) -> None:
    benchmark = cirr.load(tinybench.cirr(tmp_path, split="test1"), "test1")
    assert not benchmark.answers_known
    assert all(query.targets == () and len(query.within or ()) == 5 for query in benchmark.queries)
    assert benchmark.gallery.ids[0] == "test1-0-0-img0"


@pytest.mark.parametrize("annotation", ["cirr", "."])
@pytest.mark.parametrize("folder", ["{}", ".", "images/{}", "images", "img_raw/{}"])
def test_where_files_may_be(tmp_path: Path, annotation: str, folder: str) -> None:
    tinybench.cirr(tmp_path, annotation, folder)
    assert len(cirr.load(tmp_path).gallery) == 12


def test_missing_images(tmp_path: Path) -> None:
    tinybench.cirr(tmp_path)
    (tmp_path / "dev" / "dev-0-1-img0.png").unlink()
    with pytest.raises(InputError, match=r"1 of the 12 images of CIRR val .* dev-0-1-img0;"):
        cirr.load(tmp_path)
    benchmark = cirr.load(tmp_path, allow_missing=True)
    assert len(benchmark.queries) == 8
    assert benchmark.queries[0].targets == (11,)
    assert benchmark.queries[1].reference == 11
    assert benchmark.queries[0].within == (11, 1, 2, 3, 4)


def test_splits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no split 'test'.*: val, test1"):
        cirr.load(tmp_path, "test")
    with pytest.raises(InputError, match=r"cirr/captions/cap\.rc2\.val\.json cannot be read: No such file"):
        cirr.load(tmp_path)


MEMBERS = [f"dev-0-{number}-img0" for number in range(6)]
QUERY: dict[str, Any] = {
    "pairid": 1,
    "reference": MEMBERS[0],
    "target_hard": MEMBERS[1],
    "caption": "x",
    "img_set": {"members": MEMBERS},
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"img_set": {}}, "entry 1, img_set: the field 'members' is missing"),
        ({"img_set": {"members": MEMBERS[1:]}}, "entry 1, img_set: its members must be"),
        ({"img_set": {"members": [*MEMBERS, MEMBERS[0]]}}, "entry 1, img_set: its members must be different"),
        ({"target_hard": "dev-1-0-img0"}, "entry 1, img_set: its members must be"),
        ({"target_hard": MEMBERS[0]}, "is its own target"),
        ({"pairid": "1"}, "entry 1: the field 'pairid' must be a whole number"),
        ({"caption": None}, "entry 1: the field 'caption' must be text"),
    ],
)
def test_malformed_queries(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    tinybench.cirr(tmp_path)
    path = tinybench.write_json(tmp_path / "cirr" / "captions" / "cap.rc2.val.json", [{**QUERY, **changes}])
    with pytest.raises(InputError, match=says) as caught:
        cirr.load(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("files", "says"),
    [(["a"], "must hold an object"), ({"a": "../../a.png"}, "no image inside the root"), ({"a": 3}, "by text")],
)
def test_malformed_splits(tmp_path: Path, files: Any, says: str) -> None:
    tinybench.cirr(tmp_path)
    tinybench.write_json(tmp_path / "cirr" / "image_splits" / "split.rc2.val.json", files)
    with pytest.raises(InputError, match=rf"split\.rc2\.val\.json.*{says}"):
        cirr.load(tmp_path)


@pytest.mark.skipif(not tinybench.REAL.is_dir(), reason="the benchmarks' annotation files are not at hand")
@pytest.mark.parametrize(("split", "queries", "pictures"), [("val", 4181, 2297), ("test1", 4148, 2315)])
def test_the_real_annotation(split: str, queries: int, pictures: int) -> None:
    benchmark = cirr.load(tinybench.REAL / "CIRR", split, allow_missing=True)
    assert (len(benchmark.queries), benchmark.gallery.places) == (queries, pictures)
    assert all(query.within is not None and len(query.within) == 5 for query in benchmark.queries)
    assert all(query.reference not in (query.within or ()) for query in benchmark.queries)
    assert benchmark.answers_known == (split == "val")
