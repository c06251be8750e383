"""CIRCO (Baldrati et al., ICCV 2023): queries with several targets among the unlabelled images of COCO 2017.

Figures are mAP@5, 10, 25 and 50, R@5, 10, 25 and 50 of the one target that the text was written for, and all of them by
semantic aspect. As in the benchmark's own evaluation code, the reference stays in the ranking, where it costs a place.
The text is the relative caption alone. The targets of `test` are known to the benchmark's server only.

Files: `annotations/{split}.json` as published; images in `COCO2017_unlabeled/unlabeled2017/` or `unlabeled2017/`;
their list `image_info_unlabeled2017.json` in `COCO2017_unlabeled/annotations/` or `annotations/`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
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
    listing,
    locate,
    read_entries,
    read_json,
    require_images,
    require_root,
    unique_ids,
)
from .base import Benchmark, Query
from .published import Form, Published, in_one_part

SPLITS = ("val", "test")

GALLERY = 123_403
"""How many images COCO's unlabelled set of 2017 has, all of which are CIRCO's gallery."""

_CUTS = (5, 10, 25, 50)
_INFO = "image_info_unlabeled2017.json"
_PICTURES = "unlabeled2017"


def load(root: str | os.PathLike[str], split: str = "val", *, allow_missing: bool = False) -> Benchmark:
    """CIRCO's queries over the images that COCO's list names.

    Without that list the gallery is what is in the folder, provided that it is as many images as COCO has; the
    protocol then says so. With `allow_missing` it need not be as many, or any: the protocol says that, too.

    Args:
        root: the folder with the annotation and COCO's images.
        split: `val` or `test`; the queries of the latter have no targets.
        allow_missing: go on with the images that are there; `Gallery.missing` then names the others.

    Raises:
        InputError: if there is no such split, an annotation file cannot be read or makes no sense, or images are
            missing.
    """
    root = Path(root)
    require_root(root)
    if split not in SPLITS:
        raise InputError(f"CIRCO has no split {split!r}; it has: {', '.join(SPLITS)}.")

    fields = {"id": int, "reference_img_id": int, "relative_caption": str}
    if split == "val":
        fields |= {"target_img_id": int, "gt_img_ids": list}
    entries = read_entries(root / "annotations" / f"{split}.json", fields)
    info = first_file([root / "COCO2017_unlabeled" / "annotations" / _INFO, root / "annotations" / _INFO])
    if info.is_file():
        files, source = _listed(info)
        unnamed = 0
    else:
        files, source = _in_folder(root, entries, allow_missing)
        unnamed = max(0, GALLERY - len(files))
    folders = _folders(root)
    places = Places(list(files), locate([folder / name for folder in folders] for name in files.values()), unnamed)
    if not allow_missing:
        require_images(places.gallery, "CIRCO", root)
    queries = tuple(_query(entry, places) for entry in entries)
    return Benchmark(
        name="circo",
        split=split,
        protocol=f"gallery of {source}, the reference left in it" + coverage(places.gallery, queries),
        gallery=places.gallery,
        queries=queries,
        values=_aspects(entries),
        precision_cuts=_CUTS,
        recall_cuts=_CUTS,
        query_ids=unique_ids(entries, "id"),
        compared_by="mAP@10",
    )


def _folders(root: Path) -> tuple[Path, Path]:
    return root / "COCO2017_unlabeled" / _PICTURES, root / _PICTURES


def _listed(info: Path) -> tuple[dict[str, str], str]:
    """The files that COCO's list names, by the images' ids, and what to call this gallery."""
    content = read_json(info)
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, list):
        raise InputError(f"The annotation file {info} must list COCO's images under 'images'; this one does not.")
    for number, image in enumerate(images, start=1):
        check_fields(Entry(image, f"{info}, image {number}"), {"id": int, "file_name": str})
    ids = check_names([str(image["id"]) for image in images], info)
    names = check_names([image["file_name"] for image in images], info)
    whole = "" if len(ids) == GALLERY else f", not the {GALLERY:,} of COCO's own"
    return dict(zip(ids, names, strict=True)), f"the {len(ids):,} images in {info.name}{whole}"


def _in_folder(root: Path, entries: Sequence[Entry], allow_missing: bool) -> tuple[dict[str, str], str]:
    """The same from the folder: the files in it, and those that queries name and that are not there."""
    folder = next((folder for folder in _folders(root) if folder.is_dir()), _folders(root)[0])
    # COCO's files are called by their ids, with zeros in front.
    here = {str(int(stem)): names[0] for stem, names in listing(folder)[1].items() if stem.isascii() and stem.isdigit()}
    if len(here) != GALLERY and not allow_missing:
        raise InputError(
            f"{folder} has {len(here):,} of COCO's {GALLERY:,} unlabelled images, and without {_INFO} nobody can say "
            "which are missing; put that file of COCO's into "
            f"{root / 'COCO2017_unlabeled' / 'annotations'}, or give --allow-missing to go on without them."
        )
    named = {
        str(number): f"{number:012}.jpg"
        for entry in entries
        for number in (entry.fields["reference_img_id"], *_right_answers(entry))
    }
    whole = "all there should be" if len(here) == GALLERY else f"there should be {GALLERY:,}"
    return {**named, **here}, f"the {len(here):,} images in the folder ({whole}; {_INFO} is not there)"


def _right_answers(entry: Entry) -> list[int]:
    """All targets of a query; none where they are hidden."""
    return check_list(entry, "gt_img_ids", int) if "gt_img_ids" in entry.fields else []


def _aspects(entries: Sequence[Entry]) -> tuple[tuple[str, ...], ...]:
    """The semantic aspects of each query; nothing for `test`, and for `val` as it was before they were added to it."""
    if "semantic_aspects" not in entries[0].fields:
        return ()
    for entry in entries:
        check_fields(entry, {"semantic_aspects": list})
    return tuple(tuple(dict.fromkeys(check_list(entry, "semantic_aspects", str))) for entry in entries)


def _query(entry: Entry, places: Places) -> Query:
    targets = _right_answers(entry)
    written_for = entry.fields.get("target_img_id")
    if written_for is not None and written_for not in targets:
        raise InputError(f"{entry.place}: the target {written_for} is not among its right answers, 'gt_img_ids'.")
    return Query(
        texts=(entry.fields["relative_caption"],),
        reference=places(str(entry.fields["reference_img_id"]), entry),
        exclude=(),
        within=None,
        targets=tuple(dict.fromkeys(places(str(target), entry) for target in targets)),
        recall_targets=None if written_for is None else (places(str(written_for), entry),),
    )


BENCHMARK = Published(
    name="circo",
    summary="CIRCO: photographs of COCO, several right answers a query.",
    splits=SPLITS,
    load=in_one_part(load),
    # As the benchmark's README, `src/evaluation.py` and examples have it.
    forms=(Form(50, {}, numbers=True),),
    gallery_size=GALLERY,
)
