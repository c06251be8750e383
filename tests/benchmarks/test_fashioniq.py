"""FashionIQ: galleries, texts, folders, and the real annotation."""

from pathlib import Path

import pytest

import tinybench
from fti4cir.benchmarks import fashioniq
from fti4cir.errors import InputError


def test_a_category(tmp_path: Path) -> None:
    benchmark = fashioniq.load(tinybench.fashioniq(tmp_path), "shirt")
    assert (benchmark.name, benchmark.split) == ("fashioniq-shirt", "val")
    assert benchmark.gallery.ids == ("SHIRT0", "SHIRT1", "SHIRT2", "SHIRT3", "SHIRT4")
    assert [path.name for path in benchmark.gallery.paths[:2]] == ["SHIRT0.png", "SHIRT1.png"]
    first, second = benchmark.queries
    assert first.texts == ("is red and has 0 sleeves", "has 0 sleeves and is red")
    assert (first.reference, first.targets, first.exclude, first.within) == (0, (1,), (), None)
    assert (second.reference, second.targets) == (1, (2,))
    assert (benchmark.precision_cuts, benchmark.recall_cuts, benchmark.subset_cuts) == ((), (10, 50), ())
    assert "shirt: gallery of the split list (5 images)" in benchmark.protocol


@pytest.mark.parametrize(
    ("captions", "texts"),
    [
        (["", "is red."], (" and is red", "is red and ")),
        (["is red", " . "], ("is red and ", " and is red")),
        ([".", " "], (" and ", " and ")),
    ],
)
def test_blank_captions_are_joined_as_any_other(tmp_path: Path, captions: list[str], texts: tuple[str, str]) -> None:
    """As in the released code; the real annotation has three such queries in val."""
    tinybench.fashioniq(tmp_path)
    tinybench.write_json(tmp_path / "captions" / "cap.dress.val.json", [{**QUERY, "captions": captions}])
    assert fashioniq.load(tmp_path, "dress").queries[0].texts == texts


def test_the_gallery_of_references_and_targets_only(tmp_path: Path) -> None:
    benchmark = fashioniq.load(tinybench.fashioniq(tmp_path), "shirt", gallery="union")
    assert benchmark.gallery.ids == ("SHIRT0", "SHIRT1", "SHIRT2")
    assert [query.targets for query in benchmark.queries] == [(1,), (2,)]
    assert "references and targets only (3 images)" in benchmark.protocol


@pytest.mark.parametrize("folder", ["images", "images/{}", "{}"])
def test_where_images_may_be(tmp_path: Path, folder: str) -> None:
    tinybench.fashioniq(tmp_path, folder=folder)
    assert len(fashioniq.load(tmp_path, "toptee").gallery) == 5


def test_missing_images(tmp_path: Path) -> None:
    tinybench.fashioniq(tmp_path)
    for name in ("SHIRT1", "SHIRT4"):
        (tmp_path / "images" / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"2 of the 5 images .* SHIRT1, SHIRT4; .*verify.*--allow-missing"):
        fashioniq.load(tmp_path, "shirt")
    benchmark = fashioniq.load(tmp_path, "shirt", allow_missing=True)
    assert benchmark.gallery.missing == ("SHIRT1", "SHIRT4")
    # No query is dropped: SHIRT1, a target and a reference, is position 3, after the three that are here.
    assert [(query.reference, query.targets) for query in benchmark.queries] == [(0, (3,)), (3, (1,))]
    assert "2 of 5 images are missing, among them the reference of 1 and known targets of 1 of 2" in benchmark.protocol


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"category": "hat"}, "no category 'hat'; it has: dress, shirt, toptee"),
        ({"split": "test"}, "were never published"),
        ({"split": "dev"}, "no split 'dev'"),
        ({"root": "gone"}, "The root gone is not a folder"),
    ],
)
def test_what_cannot_be_had(tmp_path: Path, options: dict[str, str], says: str) -> None:
    tinybench.fashioniq(tmp_path)
    with pytest.raises(InputError, match=says):
        fashioniq.load(**{"root": tmp_path, "category": "dress", **options})


QUERY = {"candidate": "DRESS0", "target": "DRESS1", "captions": ["a", "b"]}


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({**QUERY, "captions": ["a"]}, "entry 1: the field 'captions' must list two captions"),
        ({**QUERY, "captions": ["a", 2]}, "entry 1: each place of the list 'captions' must be text"),
        ({**QUERY, "target": "HAT"}, "entry 1: the image 'HAT' is not in the gallery"),
        ({"candidate": "DRESS0", "captions": ["a", "b"]}, "entry 1: the field 'target' is missing"),
    ],
)
def test_malformed_queries(tmp_path: Path, query: dict[str, object], says: str) -> None:
    tinybench.fashioniq(tmp_path)
    tinybench.write_json(tmp_path / "captions" / "cap.dress.val.json", [query])
    with pytest.raises(InputError, match=rf"cap\.dress\.val\.json.*{says}"):
        fashioniq.load(tmp_path, "dress")


def test_a_malformed_split_list(tmp_path: Path) -> None:
    tinybench.fashioniq(tmp_path)
    tinybench.write_json(tmp_path / "image_splits" / "split.dress.val.json", {"a": 1})
    with pytest.raises(InputError, match=r"split\.dress\.val\.json must hold a list of image ids"):
        fashioniq.load(tmp_path, "dress")


@pytest.mark.skipif(not tinybench.REAL.is_dir(), reason="the benchmarks' annotation files are not at hand")
@pytest.mark.parametrize(
    ("category", "queries", "pictures", "union"),
    [("dress", 2017, 3817, 2628), ("shirt", 2038, 6346, 3089), ("toptee", 1961, 5373, 2902)],
)
def test_the_real_annotation(category: str, queries: int, pictures: int, union: int) -> None:
    root = tinybench.REAL / "FashionIQ"
    benchmark = fashioniq.load(root, category, allow_missing=True)
    assert (len(benchmark.queries), benchmark.gallery.places) == (queries, pictures)
    assert all(len(query.texts) == 2 and len(query.targets) == 1 for query in benchmark.queries)
    assert fashioniq.load(root, category, gallery="union", allow_missing=True).gallery.places == union
