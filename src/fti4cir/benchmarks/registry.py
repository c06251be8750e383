"""Published benchmarks by name."""

from __future__ import annotations

import os

from ..errors import InputError
from . import circo, cirr, fashioniq
from .base import Benchmark
from .fashioniq import GalleryChoice


def load(
    name: str,
    root: str | os.PathLike[str],
    split: str = "val",
    *,
    gallery: GalleryChoice | None = None,
    category: str | None = None,
    allow_missing: bool = False,
) -> tuple[Benchmark, ...]:
    """A benchmark in its parts, each with a gallery of its own: the three categories of FashionIQ, else one part.

    Args:
        name: `fashioniq`, `cirr` or `circo`.
        root: the benchmark's folder.
        split: `val`, or where there is one a split whose answers are hidden.
        gallery: for `fashioniq`; see `fashioniq.GalleryChoice`.
        category: for `fashioniq`: this one only.
        allow_missing: go on with the images that are there.

    Raises:
        InputError: if the benchmark has no such part, or cannot be loaded.
    """
    if name == "fashioniq":
        chosen = fashioniq.CATEGORIES if category is None else (category,)
        return tuple(
            fashioniq.load(root, one, split, gallery=gallery or "split", allow_missing=allow_missing) for one in chosen
        )
    if gallery is not None or category is not None:
        raise InputError(f"The benchmark {name} has one gallery; --gallery and --category are for fashioniq.")
    load_one = {"cirr": cirr.load, "circo": circo.load}[name]
    return (load_one(root, split, allow_missing=allow_missing),)
