"""From features to rankings of the gallery, and from rankings to an evaluation.

Scores exist for a block of queries at a time, so that a gallery of a hundred thousand images needs no more memory than
that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..benchmarks.base import Benchmark
from .metrics import average_precision_at, first_equal, rank, recall_at, similarities
from .results import Evaluation

_SHOWN = 10  # ranks that a report can count on
_SCORES = 2**23  # scores held at a time while ranking: 32 MiB of float32, and a few times that to rank them


def judge(
    benchmark: Benchmark,
    ranking: NDArray[np.int64] | None,
    *,
    subset_ranking: NDArray[np.int64] | None,
    method: str,
    model: str | None,
) -> Evaluation:
    """Score rankings of a benchmark's gallery, wherever they come from.

    Args:
        benchmark: the queries and the cuts.
        ranking: (Q, depth) as in `Evaluation`; without it, there are only the figures within the subsets.
        subset_ranking: (Q, depth) likewise; without it, there are none of these.
        method: what the result calls the method.
        model: what the result calls the model; None where there was none.

    Raises:
        ValueError: if a ranking is not as deep as the deepest cut.
    """
    return Evaluation(
        benchmark=benchmark.name,
        split=benchmark.split,
        protocol=benchmark.protocol,
        method=method,
        model=model,
        gallery=len(benchmark.gallery),
        missing=benchmark.gallery.absent,
        per_query=_score(benchmark, ranking, subset_ranking) if benchmark.answers_known else {},
        references=np.array([query.reference for query in benchmark.queries], dtype=np.int64),
        values=benchmark.values,
        ranking=np.empty((len(benchmark.queries), 0), dtype=np.int64) if ranking is None else ranking,
        subset_ranking=subset_ranking,
        ceilings=_ceilings(benchmark) if benchmark.answers_known else {},
    )


def _ceilings(benchmark: Benchmark) -> dict[str, float]:
    """`Evaluation.ceilings`: recall is bounded by how many right answers a query has, precision is not."""
    counts = np.array([len(query.recall_targets or query.targets) for query in benchmark.queries])
    return {
        **{f"mAP@{k}": 1.0 for k in benchmark.precision_cuts},
        **{
            f"{prefix}@{k}": float((np.minimum(counts, k) / counts).mean())
            for prefix, cuts in (("R", benchmark.recall_cuts), ("Rs", benchmark.subset_cuts))
            for k in cuts
        },
    }


def rank_gallery(
    benchmark: Benchmark,
    composed: NDArray[np.float32],
    *,
    gallery: NDArray[np.float32],
    lost: Collection[int] = (),
    first: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Rank the gallery for each query, and within its few images where the benchmark has such.

    Images with equal features tie, and rank in gallery order.

    Args:
        benchmark: what each query excludes, and the cuts that say how deep to rank.
        composed: (Q, D) unit-length features of the queries.
        gallery: (N, D) unit-length features of the images that are here; may be memory-mapped.
        lost: the positions of those that are treated as missing, for they could not be read.
        first: `metrics.first_equal` of the gallery, where it is known already.

    Returns:
        `ranking` and `subset_ranking` as in `Evaluation`. A query whose reference is missing finds nothing.
    """
    count, places = len(gallery), benchmark.gallery.places
    first = first_equal(gallery) if first is None else first
    # Missing images take no rank, but a gallery that lacks some is asked for as many ranks as one that is whole.
    ranking = np.full((len(composed), min(_depth(benchmark), places)), -1)
    subset_ranking = np.full((len(composed), max(benchmark.subset_cuts)), -1) if benchmark.subset_cuts else None
    for block in blocks(range(len(composed)), max(1, _SCORES // max(1, count))):
        block = [
            number
            for number in block
            if (reference := benchmark.queries[number].reference) < count and reference not in lost
        ]
        queries = [benchmark.queries[number] for number in block]
        scores = similarities(composed[block], gallery, first)  # (B, N)
        excluded = _mask([query.exclude for query in queries], places)[:, :count]
        excluded[:, list(lost)] = True
        found = rank(scores, ranking.shape[1], excluded)
        ranking[block, : found.shape[1]] = found
        if subset_ranking is not None:
            inside = _mask([query.within or () for query in queries], places)[:, :count]
            inside[:, list(lost)] = False
            found = rank(scores, subset_ranking.shape[1], ~inside)
            subset_ranking[block, : found.shape[1]] = found
    return ranking, subset_ranking


def _depth(benchmark: Benchmark) -> int:
    """How deep to rank: as deep as the deepest cut, and deep enough for a report."""
    return max(_SHOWN, *benchmark.precision_cuts, *benchmark.recall_cuts)


def _score(
    benchmark: Benchmark, ranking: NDArray[np.int64] | None, subset_ranking: NDArray[np.int64] | None
) -> dict[str, NDArray[np.float64]]:
    """Each metric for each query (Q,), from rankings (Q, depth)."""
    parts: dict[str, list[NDArray[np.float64]]] = {}
    places = benchmark.gallery.places
    for block in blocks(range(len(benchmark.queries)), max(1, _SCORES // places)):
        queries = [benchmark.queries[number] for number in block]
        relevant = _mask([query.targets for query in queries], places)
        counted = _mask([query.recall_targets or query.targets for query in queries], places)
        if ranking is not None:
            for k in benchmark.precision_cuts:
                parts.setdefault(f"mAP@{k}", []).append(average_precision_at(ranking[block], relevant, k))
            for k in benchmark.recall_cuts:
                parts.setdefault(f"R@{k}", []).append(recall_at(ranking[block], counted, k))
        if subset_ranking is not None:
            for k in benchmark.subset_cuts:
                parts.setdefault(f"Rs@{k}", []).append(recall_at(subset_ranking[block], counted, k))
    return {name: np.concatenate(figures) for name, figures in parts.items()}


def _mask(members: Sequence[Sequence[int]], width: int) -> NDArray[np.bool_]:
    """For each row, true at the columns that it lists: (len(members), width)."""
    mask = np.zeros((len(members), width), dtype=bool)
    rows = np.repeat(np.arange(len(members)), [len(columns) for columns in members])
    mask[rows, np.fromiter((column for columns in members for column in columns), dtype=np.int64)] = True
    return mask


def blocks(numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    """Consecutive parts of a sequence, of at most `size`."""
    for start in range(0, len(numbers), size):
        yield list(numbers[start : start + size])
