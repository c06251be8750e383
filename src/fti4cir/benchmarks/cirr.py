"""CIRR (Liu et al., ICCV 2021): open images, one caption and one target a query, and a group of six similar images.

Figures are R@1, 5, 10 and 50 over the split's images without the reference, and Rs@1, 2 and 3, the same among the
five other images of the query's group. The targets of `test1` are known to the benchmark's server only.

Files, as published: `cirr/captions/cap.rc2.{split}.json` and `cirr/image_splits/split.rc2.{split}.json`, or the same
without `cirr/`; images where the split file says (`dev/`, `test1/`), in the root, in `images/` or in `img_raw/`, or
all of them directly in one of these three.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import InputError
from .annotations import (
    Entry,
    Places,
    check_fields,
    check_list,
    check_names,
    coverage,
    first_file,
    locate,
    read_entries,
    read_json,
    require_images,
    require_root,
    unique_ids,
)
from .base import Benchmark, Query
from .published import Form, Published, in_one_part

SPLITS = ("val", "test1")

_CUTS = (1, 5, 10, 50)
_SUBSET_CUTS = (1, 2, 3)
_SERVER_LIMIT = 5_000_000  # bytes a file


def load(root: str | os.PathLike[str], split: str = "val", *, allow_missing: bool = False) -> Benchmark:
    """CIRR's queries over the images of a split.

    The one target is `target_hard`; the graded `target_soft` has no part in the published figures.

    Args:
        root: the folder with the annotation and the images.
        split: `val` or `test1`; the queries of the latter have no targets.
        allow_missing: go on with the images that are there; `Gallery.missing` then names the others.

    Raises:
        InputError: if there is no such split, an annotation file cannot be read or makes no sense, or images are
            missing.
    """
    root = Path(root)
    require_root(root)
    if split not in SPLITS:
        raise InputError(f"CIRR has no split {split!r} to be scored on; it has: {', '.join(SPLITS)}.")

    fields = {"pairid": int, "reference": str, "caption": str, "img_set": dict}
    if split == "val":
        fields["target_hard"] = str
    entries = read_entries(_annotation(root, f"captions/cap.rc2.{split}.json"), fields)
    split_file = _annotation(root, f"image_splits/split.rc2.{split}.json")
    files = read_json(split_file)
    if not isinstance(files, dict):
        raise InputError(f"The annotation file {split_file} must hold an object of names and files; this one does not.")
    relative = check_names(list(files.values()), split_file)
    bases = (root, root / "images", root / "img_raw")
    places = Places(list(files), locate([base / way for way in _ways(name) for base in bases] for name in relative))
    if not allow_missing:
        require_images(places.gallery, f"CIRR {split}", root)
    queries = tuple(_query(entry, places) for entry in entries)
    return Benchmark(
        name="cirr",
        split=split,
        protocol=f"gallery of the split ({len(files)} images), the reference left out of it"
        + coverage(places.gallery, queries),
        gallery=places.gallery,
        queries=queries,
        values=(),
        precision_cuts=(),
        recall_cuts=_CUTS,
        subset_cuts=_SUBSET_CUTS,
        query_ids=unique_ids(entries, "pairid"),
        compared_by="R@5",
    )


def _annotation(root: Path, name: str) -> Path:
    return first_file([root / "cirr" / name, root / name])


def _ways(name: str) -> tuple[str, str]:
    """The image's path as the split file has it, and for images that lie all in one folder."""
    return name, name.rpartition("/")[2]


def _query(entry: Entry, places: Places) -> Query:
    group = Entry(entry.fields["img_set"], f"{entry.place}, img_set")
    check_fields(group, {"members": list})
    members = check_list(group, "members", str)
    name = entry.fields["reference"]
    target = entry.fields.get("target_hard")
    if len(set(members)) < len(members) or name not in members or (target is not None and target not in members):
        raise InputError(f"{group.place}: its members must be different, and the reference and the target among them.")
    if name == target:
        raise InputError(f"{entry.place}: the reference {name!r} is its own target.")
    reference = places(name, entry)
    return Query(
        texts=(entry.fields["caption"],),
        reference=reference,
        exclude=(reference,),
        within=tuple(places(member, entry) for member in members if member != name),
        targets=() if target is None else (places(target, entry),),
    )


BENCHMARK = Published(
    name="cirr",
    summary="CIRR: everyday photographs, in groups of six similar ones.",
    splits=SPLITS,
    load=in_one_part(load),
    # As the benchmark's `Test-split_server.md` and its examples have them.
    forms=(
        Form(50, {"version": "rc2", "metric": "recall"}, limit=_SERVER_LIMIT),
        Form(3, {"version": "rc2", "metric": "recall_subset"}, within=True, limit=_SERVER_LIMIT),
    ),
)
