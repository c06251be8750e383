"""Ranking metrics of retrieval, with confidence intervals. Pure NumPy.

Q queries, N images in the gallery. A *ranking* (Q, k) holds gallery positions, best first, and -1 where no
image is left. *Relevant* (Q, N) is true for the images that are a query's targets.

Of equal scores, the image that comes first in the gallery ranks first. A figure therefore depends on the scores alone,
never on the sorting algorithm, on k or on the blocks of queries. `similarities` gives equal features equal scores; a
plain matrix product does not guarantee that.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2000
_COVERAGE = 0.95


def first_equal(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each row (N, D) the position of the first row with the same bits, usually its own: (N,).

    >>> first_equal(np.float32([[1, 2], [3, 4], [1, 2], [1, 5]]))
    array([0, 1, 0, 3])
    """
    first = np.arange(len(features))
    # Few rows agree in their first two numbers. Only these are compared in full, so nothing large is sorted.
    heads = np.asarray(features[:, :2])
    order = np.lexsort(heads.T)
    same_as_next = (heads[order[1:]] == heads[order[:-1]]).all(axis=1)  # (N - 1,)
    candidates = np.union1d(order[1:][same_as_next], order[:-1][same_as_next])
    seen: dict[bytes, int] = {}
    for position in candidates.tolist():
        # A digest and not the row is the key, to save memory: in the worst case all rows are candidates.
        key = hashlib.blake2b(features[position].tobytes(), digest_size=16).digest()
        first[position] = seen.setdefault(key, position)
    return first


def similarities(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], first: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The dot product of each query (Q, D) with each row of the gallery (N, D), the same for equal rows: (Q, N).

    The order of the sum in a dot product depends on the row's place in the matrix, on the matrix' size and on the
    processor. Two equal rows could therefore get scores that differ in the last bit. Here each gets that of the first.

    Args:
        queries: (Q, D).
        gallery: (N, D); may be memory-mapped.
        first: (N,) from `first_equal`.
    """
    scores = queries @ gallery.T
    copies = np.flatnonzero(first != np.arange(len(first)))
    scores[:, copies] = scores[:, first[copies]]
    return scores


def rank(scores: ArrayLike, k: int, exclude: ArrayLike | None = None) -> NDArray[np.int64]:
    """The k best of the gallery for each query, best first, ties in gallery order.

    Args:
        scores: (Q, N), higher is better, all finite.
        k: how many to return, at least 1.
        exclude: (Q, N), true for images that must not appear in a query's ranking, such as its reference image.

    Returns:
        (Q, min(k, N)) gallery positions; -1 at the end of a row that has fewer than k images left.

    Raises:
        ValueError: if a shape does not match, k < 1, or a score is not finite.

    >>> rank([[0.1, 0.9, 0.9, 0.3]], k=3)
    array([[1, 2, 3]])
    >>> rank([[0.1, 0.9, 0.9, 0.3]], k=3, exclude=[[False, True, False, True]])
    array([[ 2,  0, -1]])
    """
    values: NDArray[Any] = np.asarray(scores)
    if values.ndim != 2:
        raise ValueError(f"scores must be (queries, gallery), not of shape {values.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if values.dtype.kind != "f":
        values = values.astype(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("scores must be finite")
    if exclude is not None:
        banned = np.asarray(exclude, dtype=bool)
        if banned.shape != values.shape:
            raise ValueError(f"exclude has shape {banned.shape}, scores have {values.shape}")
        values = np.where(banned, -np.inf, values)

    gallery = values.shape[1]
    if k >= gallery:
        ranking = np.argsort(-values, axis=1, kind="stable")
    else:
        # A partition costs a tenth of a sort. The k that it picks are put into gallery order first, so that the stable
        # sort by score keeps ties in that order.
        best = np.sort(np.argpartition(values, gallery - k, axis=1)[:, gallery - k :], axis=1)  # (Q, k)
        chosen = np.take_along_axis(values, best, axis=1)
        ranking = np.take_along_axis(best, np.argsort(-chosen, axis=1, kind="stable"), axis=1)
        # If a tie crosses the cut, the partition picked any of the equal images: sort these rows in full.
        last = chosen.min(axis=1, keepdims=True)
        straddled = (values == last).sum(axis=1) > (chosen == last).sum(axis=1)
        ranking[straddled] = np.argsort(-values[straddled], axis=1, kind="stable")[:, :k]
    ranking[np.isneginf(np.take_along_axis(values, ranking, axis=1))] = -1
    return ranking


def recall_at(ranking: ArrayLike, relevant: ArrayLike, k: int) -> NDArray[np.float64]:
    """R@k of each query: the share of its targets that are among the first k, in [0, 1].

    With one target it is 1 or 0, the hit rate of CIRR and FashionIQ. It cannot reach 1 with more than k targets.

    Args:
        ranking: (Q, K) from `rank`, with K >= min(k, N).
        relevant: (Q, N), true for a query's targets.
        k: the cut, at least 1; a cut above the gallery's size means the whole gallery.

    Returns:
        (Q,) float64.

    Raises:
        ValueError: if a query has no target, the shapes do not match, or the ranking is shorter than the cut.

    >>> ranking = [[2, 0, 1], [1, 2, 0]]
    >>> relevant = [[True, False, True], [True, False, False]]
    >>> recall_at(ranking, relevant, k=1)
    array([0.5, 0. ])
    """
    hits, targets = _hits(ranking, relevant, k)
    return hits.sum(axis=1) / targets


def average_precision_at(ranking: ArrayLike, relevant: ArrayLike, k: int) -> NDArray[np.float64]:
    """AP@k of each query, in [0, 1]; its mean over queries is mAP@k.

    AP@k = (sum of precision@i over the ranks i <= k that hold a target) / min(targets, k), where precision@i is the
    share of targets among the first i. The divisor is CIRCO's. A ranking that begins with k targets scores 1, even if
    there are more than k.

    Args:
        ranking: (Q, K) from `rank`, with K >= min(k, N).
        relevant: (Q, N), true for a query's targets.
        k: the cut, at least 1; a cut above the gallery's size means the whole gallery.

    Returns:
        (Q,) float64.

    Raises:
        ValueError: if a query has no target, the shapes do not match, or the ranking is shorter than the cut.

    Two targets, found at ranks one and three of three: (1/1 + 2/3) / 2.

    >>> average_precision_at([[2, 0, 1]], [[False, True, True]], k=3).round(4)
    array([0.8333])
    """
    hits, targets = _hits(ranking, relevant, k)
    precision = hits.cumsum(axis=1) / np.arange(1, hits.shape[1] + 1)
    return (precision * hits).sum(axis=1) / np.minimum(targets, k)


def _hits(ranking: ArrayLike, relevant: ArrayLike, k: int) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which of the first k are targets (Q, min(k, N)), and how many targets there are (Q,)."""
    order, truth = np.asarray(ranking), np.asarray(relevant, dtype=bool)
    if order.ndim != 2 or truth.ndim != 2 or len(order) != len(truth):
        raise ValueError(f"ranking {order.shape} and relevant {truth.shape} must be (queries, ...) of as many queries")
    if k < 1:
        raise ValueError(f"k must be at least 1, not {k}")
    if order.shape[1] < min(k, truth.shape[1]):
        raise ValueError(f"a ranking of {order.shape[1]} is too short for a cut at {k}")
    targets = truth.sum(axis=1)
    if not targets.all():
        raise ValueError(f"query {int(targets.argmin())} has no target, so its score is not defined")
    order = order[:, :k]
    return np.take_along_axis(truth, order, axis=1) & (order >= 0), targets


def bootstrap_interval(values: ArrayLike, groups: ArrayLike | None = None, seed: int = 0) -> NDArray[np.float64]:
    """The 95 % percentile bootstrap interval of a mean over queries.

    Queries are drawn with replacement, as many as there are, 2,000 times; the interval runs from the 2.5th to the
    97.5th percentile of the means. Queries that share something succeed and fail together: one image with ten
    wanted colours is not ten independent trials. Give such queries the same group. Then whole groups are
    drawn. Otherwise the interval would be too narrow.

    Args:
        values: (Q,), one figure for each query; or (Q, M), M figures for each query, all with the same draws.
        groups: (Q,) the group of each query, of any type that sorts; by default each query is its own group.
        seed: for the draws. The same seed gives the same interval.

    Returns:
        (2,) or (2, M): the lower and the upper end. A single group gives an interval of no width.

    Raises:
        ValueError: if there are no values or the shapes do not match.

    >>> low, high = bootstrap_interval([0.0, 1.0] * 50)
    >>> bool(0.38 < low < 0.42 and 0.58 < high < 0.62)
    True
    """
    figures = np.asarray(values, dtype=np.float64)
    if figures.ndim not in (1, 2) or len(figures) == 0:
        raise ValueError(f"values must be (queries,) or (queries, figures) and not empty, not {figures.shape}")
    member = np.arange(len(figures)) if groups is None else np.unique(np.asarray(groups), return_inverse=True)[1]
    if member.shape != (len(figures),):
        raise ValueError(f"groups has shape {member.shape}, there are {len(figures)} queries")

    # A mean over drawn queries is (sum of the drawn groups' sums) / (sum of their sizes), so a draw is a dot product.
    sizes = np.bincount(member)  # (G,)
    table = figures.reshape(len(figures), -1)
    sums = np.stack([np.bincount(member, weights=column) for column in table.T], axis=1)  # (G, M)
    generator = np.random.default_rng(seed)
    means = np.empty((_RESAMPLES, table.shape[1]))
    for resample in range(_RESAMPLES):
        times = np.bincount(generator.integers(len(sizes), size=len(sizes)), minlength=len(sizes))
        means[resample] = times @ sums / (times @ sizes)
    tail = (1 - _COVERAGE) / 2
    ends = np.quantile(means, [tail, 1 - tail], axis=0)  # (2, M)
    return ends.reshape((2, *figures.shape[1:]))


class Difference(NamedTuple):
    """How much better one method is than another, with the 95 % interval of the difference."""

    mean: float
    low: float
    high: float

    @property
    def significant(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None, seed: int = 0) -> Difference:
    """The mean of `first - second` over the same queries, with its 95 % percentile bootstrap interval.

    Pairing removes what makes a query hard for both methods. It therefore finds differences that two separate intervals
    hide.

    Args:
        first: (Q,) one figure for each query, of one method.
        second: (Q,) the same queries in the same order, of the other method.
        groups: (Q,) as in `bootstrap_interval`.
        seed: as in `bootstrap_interval`.

    Raises:
        ValueError: if the two do not have the same shape (Q,), or are empty.

    >>> paired_bootstrap([0.5, 0.75, 1.0], [0.25, 0.5, 0.75])
    Difference(mean=0.25, low=0.25, high=0.25)
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"the two methods must have figures for the same queries, not {one.shape} and {other.shape}")
    change = one - other
    low, high = bootstrap_interval(change, groups, seed)
    return Difference(float(change.mean()), float(low), float(high))
