"""FashionIQ (Wu et al., CVPR 2021): three categories of clothes, each with a gallery of its own, two captions a query.

Figures are R@10 and R@50 of each category, and the means of the three. The reference stays in the ranking, as in the
authors' challenge and in the published figures of zero-shot methods.

Files: `captions/cap.{category}.{split}.json` and `image_splits/split.{category}.{split}.json` as published; images in
`images/`, `images/{category}/` or `{category}/`, named by their ids, of any kind.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from ..errors import InputError
from .annotations import (
    Entry,
    Places,
    check_list,
    check_names,
    coverage,
    locate,
    read_entries,
    read_json,
    require_images,
    require_root,
)
from .base import Benchmark, Query
from .published import Option, Published

CATEGORIES = ("dress", "shirt", "toptee")
SPLITS = ("val",)

GalleryChoice = Literal["split", "union"]
"""`split`: all images of the category's split list. `union`: those that are a query's reference or target, which is
an easier gallery that some papers have used."""

_CUTS = (10, 50)


def load(
    root: str | os.PathLike[str],
    category: str,
    split: str = "val",
    *,
    gallery: GalleryChoice = "split",
    allow_missing: bool = False,
) -> Benchmark:
    """One category of FashionIQ.

    A query's two captions are joined with "and", in both orders; the two features are averaged. As in the code that
    published figures come from, full stops, question marks, commas and spaces around a caption are taken off. A blank
    caption is joined as any other: "and is red".

    Args:
        root: the folder with `captions`, `image_splits` and the images.
        category: one of `CATEGORIES`.
        split: `val`; the answers of `test` were never published.
        gallery: which images are searched.
        allow_missing: go on with the images that are there; `Gallery.missing` then names the others.

    Raises:
        InputError: if there is no such category or split, an annotation file cannot be read or makes no sense,
            or images are missing.
    """
    root = Path(root)
    require_root(root)
    if category not in CATEGORIES:
        raise InputError(f"FashionIQ has no category {category!r}; it has: {', '.join(CATEGORIES)}.")
    if split == "test":
        raise InputError("The answers of FashionIQ's split test were never published, so it cannot be scored; use val.")
    if split not in SPLITS:
        raise InputError(f"FashionIQ has no split {split!r} to be scored on; it has: {', '.join(SPLITS)}.")

    entries = read_entries(
        root / "captions" / f"cap.{category}.{split}.json", {"candidate": str, "target": str, "captions": list}
    )
    split_file = root / "image_splits" / f"split.{category}.{split}.json"
    listed = read_json(split_file)
    if not isinstance(listed, list):
        raise InputError(f"The annotation file {split_file} must hold a list of image ids; this one does not.")
    names = check_names(listed, split_file)
    if gallery == "union":
        used = {entry.fields[field] for entry in entries for field in ("candidate", "target")}
        names = [name for name in names if name in used]
    folders = (root / "images", root / "images" / category, root / category)
    # Ids have no extension of their own; the one put here is that of the published images.
    places = Places(names, locate([folder / f"{name}.jpg" for folder in folders] for name in names))
    if not allow_missing:
        require_images(places.gallery, f"FashionIQ {category}", root)
    queries = tuple(_query(entry, places) for entry in entries)
    which = "the split list" if gallery == "split" else "the queries' references and targets only"
    return Benchmark(
        name=f"fashioniq-{category}",
        split=split,
        protocol=f"{category}: gallery of {which} ({len(names)} images), both captions in both orders, averaged"
        + coverage(places.gallery, queries),
        gallery=places.gallery,
        queries=queries,
        values=(),
        precision_cuts=(),
        recall_cuts=_CUTS,
        compared_by="R@10",
    )


def _query(entry: Entry, places: Places) -> Query:
    captions = [caption.strip(".?, ") for caption in check_list(entry, "captions", str)]
    if len(captions) != 2:
        raise InputError(f"{entry.place}: the field 'captions' must list two captions.")
    first, second = captions
    return Query(
        texts=(f"{first} and {second}", f"{second} and {first}"),
        reference=places(entry.fields["candidate"], entry),
        exclude=(),
        within=None,
        targets=(places(entry.fields["target"], entry),),
    )


def _parts(
    root: str | os.PathLike[str],
    split: str,
    *,
    allow_missing: bool,
    gallery: GalleryChoice = "split",
    category: str | None = None,
) -> tuple[Benchmark, ...]:
    """The three categories, or one of them."""
    chosen = CATEGORIES if category is None else (category,)
    return tuple(load(root, one, split, gallery=gallery, allow_missing=allow_missing) for one in chosen)


BENCHMARK = Published(
    name="fashioniq",
    summary="FashionIQ: dresses, shirts and tops, two captions a query.",
    splits=SPLITS,
    load=_parts,
    options=(
        Option(
            "gallery",
            ("split", "union"),
            "Search all images of the split, or only the queries' references and targets.",
            default="split",
        ),
        Option("category", CATEGORIES, "This category only.", default="all three"),
    ),
)
