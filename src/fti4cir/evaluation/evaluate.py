"""One loop for every benchmark and every method."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from ..backbones.base import DualEncoder
from ..benchmarks.base import Benchmark
from ..errors import ImageError, ModelError
from ..methods.base import Method, NeedsFiles
from ..progress import Progress
from .gallery import encode, encode_cached
from .metrics import first_equal
from .queries import QueryComposer
from .ranking import judge, rank_gallery
from .results import Evaluation

_logger = logging.getLogger(__name__)


def evaluate(
    benchmark: Benchmark,
    encoder: DualEncoder,
    *,
    methods: Sequence[Method],
    model: str | Sequence[str],
    progress: Progress | None = None,
    cache: Path | None = None,
    allow_unreadable: bool = False,
) -> list[Evaluation]:
    """Score methods on a benchmark, all of them in one pass over the images.

    The log gets a line for each image that cannot be read, and says now and then how far a cache has got.

    Args:
        benchmark: the gallery, its queries and the cuts.
        encoder: what encodes the gallery; the methods' models must stand on the same one.
        methods: what composes the queries.
        model: what the result calls the model; where methods have models of their own, one name a method.
        progress: called after each batch of images.
        cache: a folder to keep the gallery's features in, for the next evaluation on the same images by the same
            encoder, or for this one should it be interrupted. Then `progress` is of the queries' references only.
        allow_unreadable: count an image that cannot be read as missing, instead of stopping at it.

    Returns:
        One evaluation a method, in the order of the methods.

    Raises:
        InputError: if an image that a query starts from has no caption, and a method needs one.
        ImageError: if an image of the gallery cannot be read, unless `allow_unreadable`; none is dropped silently.
        ModelError: if a feature is not a finite number.
        CacheError: if the cache cannot be written or is damaged.
    """
    models = [model] * len(methods) if isinstance(model, str) else model
    queries = QueryComposer(benchmark, methods, encoder.joint_width)
    for method in methods:
        if isinstance(method, NeedsFiles):  # now, not after the first thousand images
            method.require(queries.paths)
    report = progress or (lambda done, total: None)
    lost: set[int] = set()

    def lose(position: int, reason: str) -> None:
        if not allow_unreadable:
            raise ImageError(f"{reason} Replace the file, or count it as missing with --allow-missing.")
        _logger.warning("counted as missing: %s", reason)
        lost.add(position)

    if cache is None:
        gallery = encode(benchmark, encoder, queries=queries, progress=report, lose=lose)
    else:
        gallery = encode_cached(benchmark, encoder, cache=cache, queries=queries, progress=report, lose=lose)
    first = first_equal(gallery)
    evaluations = []
    for method, name, features in zip(methods, models, queries.composed, strict=True):
        if not np.isfinite(features).all():
            raise ModelError(f"The method {method.name!r} on the model {name} gives features that are not finite.")
        ranking, subset_ranking = rank_gallery(benchmark, features, gallery=gallery, lost=lost, first=first)
        judged = judge(benchmark, ranking, subset_ranking=subset_ranking, method=method.name, model=name)
        evaluations.append(_without(judged, tuple(sorted(lost))) if lost else judged)
    return evaluations


def _without(evaluation: Evaluation, unreadable: tuple[int, ...]) -> Evaluation:
    """The same, which says that these images of the gallery were not there."""
    count = len(unreadable)
    return replace(
        evaluation,
        protocol=f"{evaluation.protocol}, {count} that could not be read counted as missing",
        gallery=evaluation.gallery - count,
        missing=evaluation.missing + count,
        unreadable=unreadable,
    )
