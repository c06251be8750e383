"""What the loaders of published benchmarks share."""

from pathlib import Path

import pytest

from fti4cir.benchmarks.annotations import (
    Entry,
    Places,
    check_fields,
    check_list,
    check_names,
    coverage,
    locate,
    read_entries,
    read_json,
    unique_ids,
)
from fti4cir.benchmarks.base import Query
from fti4cir.errors import InputError


def test_locate_prefers_the_first_place_and_its_own_extension(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/1.jpg", "b/2.png", "b/2.jpg", "b/3.webp", "b/4.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    wanted = [[tmp_path / folder / f"{number}.jpg" for folder in "abc"] for number in range(1, 6)]
    found = locate(wanted)
    assert [path and path.relative_to(tmp_path).as_posix() for path in found] == [
        "a/1.png",
        "b/2.jpg",
        "b/3.webp",
        None,
        None,
    ]


def test_missing_images_come_after_those_that_are_here() -> None:
    places = Places(["a", "b", "c", "d"], [None, Path("b.jpg"), None, Path("d.jpg")])
    assert places.gallery.ids == ("b", "d")
    assert places.gallery.missing == ("a", "c")
    assert (len(places.gallery), places.gallery.places, places.gallery.absent) == (2, 4, 2)
    entry = Entry({}, "file, entry 1")
    assert [places(name, entry) for name in "abcd"] == [2, 0, 3, 1]
    with pytest.raises(InputError, match=r"file, entry 1: the image 'e' is not in the gallery"):
        places("e", entry)


def test_coverage_counts_queries() -> None:
    places = Places(["a", "b", "c"], [Path("a"), Path("b"), None], unnamed=7)
    queries = [Query(("x",), 2, (), None, (0,)), Query(("x",), 0, (), None, (1, 2)), Query(("x",), 0, (), None, (1,))]
    said = coverage(places.gallery, queries)
    assert "8 of 10 images are missing" in said
    assert "the reference of 1 and known targets of 1 of 3 queries" in said
    assert coverage(Places(["a"], [Path("a")]).gallery, queries[2:]) == ""


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is not JSON in UTF-8"),
        (b'[{"id": 1}', "is not JSON in UTF-8"),
        (b'["\xff"]', "is not JSON in UTF-8"),
        (b"[" * 100_000, "is not JSON in UTF-8"),
        (b'{"id": 1}', "must hold a list of queries"),
        (b"[]", "must hold a list of queries"),
        (b"[7]", "entry 1: this must be an object with the fields id, name"),
        (b'[{"id": 1, "name": "a"}, {"id": 1}]', "entry 2: the field 'name' is missing"),
        (b'[{"id": "1", "name": "a"}]', "entry 1: the field 'id' must be a whole number"),
        (b'[{"id": true, "name": "a"}]', "entry 1: the field 'id' must be a whole number"),
        (b'[{"id": 1, "name": null}]', "entry 1: the field 'name' must be text"),
    ],
)
def test_malformed_files(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "cap.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=says) as caught:
        read_entries(path, {"id": int, "name": str})
    assert str(path) in str(caught.value)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.json cannot be read: No such file"):
        read_json(tmp_path / "gone.json")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        read_json(tmp_path)


def test_lists_and_ids() -> None:
    entry = Entry({"members": ["a", 1]}, "file, entry 3")
    check_fields(entry, {"members": list})
    with pytest.raises(InputError, match="file, entry 3: each place of the list 'members' must be text"):
        check_list(entry, "members", str)
    entries = [Entry({"id": 5}, "file, entry 1"), Entry({"id": 5}, "file, entry 2")]
    with pytest.raises(InputError, match="file, entry 2: the id 5 stands in more than one entry"):
        unique_ids(entries, "id")


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ([], "names no image"),
        ([3], "by text, not by 3"),
        (["a", "b", "./a"], "'./a' twice"),
        (["../a"], "no image inside the root"),
        (["/etc/passwd"], "no image inside the root"),
        (["a/../.."], "no image inside the root"),
        (["a\0b"], "no image inside the root"),
    ],
)
def test_names_that_make_no_sense(names: list[object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_names(names, Path("split.json"))
