"""CIRCO: several targets, COCO's list or none, and the real annotation."""

from pathlib import Path
from typing import Any

import pytest

import tinybench
from fti4cir.benchmarks import circo
from fti4cir.errors import InputError


def test_queries(tmp_path: Path) -> None:
    benchmark = circo.load(tinybench.circo(tmp_path))
    assert benchmark.gallery.ids == ("52", "45", "38", "31", "24", "17", "10", "3")  # in the list's order
    first, second = benchmark.queries
    assert first.texts == ("is red",)
    assert (first.reference, first.exclude, first.within) == (7, (), None)
    assert (first.targets, first.recall_targets) == ((5, 6, 4), (5,))
    assert (second.targets, second.recall_targets) == ((1,), (1,))
    assert benchmark.values == (("addition", "negation"), ("addition",))
    assert benchmark.query_ids == (0, 1)
    assert (benchmark.precision_cuts, benchmark.recall_cuts) == ((5, 10, 25, 50), (5, 10, 25, 50))
    assert "8 images in image_info_unlabeled2017.json, not the 123,403" in benchmark.protocol


def test_hidden_targets(tmp_path: Path) -> None:
    benchmark = circo.load(tinybench.circo(tmp_path), "test")
    assert not benchmark.answers_known
    assert benchmark.values == ()
    assert [query.recall_targets for query in benchmark.queries] == [None, None]


@pytest.mark.parametrize("folder", ["COCO2017_unlabeled/unlabeled2017", "unlabeled2017"])
@pytest.mark.parametrize("info", ["COCO2017_unlabeled/annotations", "annotations"])
def test_where_files_may_be(tmp_path: Path, folder: str, info: str) -> None:
    assert len(circo.load(tinybench.circo(tmp_path, folder, info)).gallery) == 8


def test_the_folder_stands_in_for_the_list_if_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tinybench.circo(tmp_path, info="")
    (tmp_path / "COCO2017_unlabeled" / "unlabeled2017" / "readme.txt").touch()
    with pytest.raises(InputError, match=r"has 8 of COCO's 123,403 .*image_info_unlabeled2017\.json.*--allow-missing"):
        circo.load(tmp_path)
    monkeypatch.setattr(circo, "GALLERY", 8)
    benchmark = circo.load(tmp_path)
    assert sorted(benchmark.gallery.ids, key=int) == ["3", "10", "17", "24", "31", "38", "45", "52"]
    assert "8 images in the folder (all there should be" in benchmark.protocol


def test_without_the_list_those_that_nobody_can_name_are_counted(tmp_path: Path) -> None:
    tinybench.circo(tmp_path, info="")
    (tmp_path / "COCO2017_unlabeled" / "unlabeled2017" / "000000000024.jpg").unlink()
    benchmark = circo.load(tmp_path, allow_missing=True)
    assert benchmark.gallery.missing == ("24",)
    assert benchmark.gallery.absent == 123_403 - 7
    assert 7 in benchmark.queries[0].targets
    assert "7 images in the folder (there should be 123,403" in benchmark.protocol
    assert "123396 of 123403 images are missing" in benchmark.protocol


def test_missing_images(tmp_path: Path) -> None:
    tinybench.circo(tmp_path)
    (tmp_path / "COCO2017_unlabeled" / "unlabeled2017" / "000000000017.jpg").unlink()
    with pytest.raises(InputError, match=r"1 of the 8 images of CIRCO .* 17;"):
        circo.load(tmp_path)
    query = circo.load(tmp_path, allow_missing=True).queries[0]
    assert (query.targets, query.recall_targets) == ((7, 5, 4), (7,))


def test_annotation_without_aspects(tmp_path: Path) -> None:
    tinybench.circo(tmp_path)
    tinybench.write_json(tmp_path / "annotations" / "val.json", [QUERY])
    assert circo.load(tmp_path).values == ()


QUERY: dict[str, Any] = {
    "id": 0,
    "reference_img_id": 3,
    "target_img_id": 17,
    "relative_caption": "is red",
    "gt_img_ids": [17, 10],
}


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"target_img_id": 24}, "entry 1: the target 24 is not among its right answers"),
        ({"gt_img_ids": ["17"]}, "entry 1: each place of the list 'gt_img_ids' must be a whole number"),
        ({"semantic_aspects": [1]}, "entry 1: each place of the list 'semantic_aspects' must be text"),
        ({"relative_caption": 5}, "entry 1: the field 'relative_caption' must be text"),
    ],
)
@pytest.mark.parametrize("info", [None, ""])
def test_malformed_queries(tmp_path: Path, changes: dict[str, Any], says: str, info: str | None) -> None:
    tinybench.circo(tmp_path, info=info)
    tinybench.write_json(tmp_path / "annotations" / "val.json", [{**QUERY, **changes}])
    with pytest.raises(InputError, match=rf"annotations/val\.json.*{says}"):
        circo.load(tmp_path, allow_missing=True)


def test_an_image_that_is_in_no_list(tmp_path: Path) -> None:
    tinybench.circo(tmp_path)
    tinybench.write_json(tmp_path / "annotations" / "val.json", [{**QUERY, "reference_img_id": 4}])
    with pytest.raises(InputError, match="entry 1: the image '4' is not in the gallery"):
        circo.load(tmp_path, allow_missing=True)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([], "must list COCO's images under 'images'"),
        ({"images": [{"id": 3}]}, "image 1: the field 'file_name' is missing"),
        ({"images": [{"id": 3, "file_name": "../3.jpg"}]}, "no image inside the root"),
        ({"images": [{"id": 3, "file_name": "3.jpg"}, {"id": 3, "file_name": "4.jpg"}]}, "'3' twice"),
    ],
)
def test_malformed_lists(tmp_path: Path, content: Any, says: str) -> None:
    tinybench.circo(tmp_path)
    info = tmp_path / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json"
    tinybench.write_json(info, content)
    with pytest.raises(InputError, match=rf"image_info_unlabeled2017\.json.*{says}"):
        circo.load(tmp_path)


def test_splits(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no split 'test1'; it has: val, test"):
        circo.load(tmp_path, "test1")


@pytest.mark.skipif(not tinybench.REAL.is_dir(), reason="the benchmarks' annotation files are not at hand")
@pytest.mark.parametrize(("split", "queries"), [("val", 220), ("test", 800)])
def test_the_real_annotation(split: str, queries: int) -> None:
    benchmark = circo.load(tinybench.REAL / "CIRCO", split, allow_missing=True)
    assert benchmark.query_ids == tuple(range(queries))
    assert len(benchmark.gallery) + benchmark.gallery.absent == 123_403
    if split == "val":
        assert len({value for values in benchmark.values for value in values}) == 9
        assert all(query.recall_targets == query.targets[:1] for query in benchmark.queries)
