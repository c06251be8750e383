"""Ranking metrics of retrieval, and how sure they are. Pure NumPy.

Q queries, N images in the gallery. A *ranking* (Q, k) holds gallery positions, best first, and -1 where a
query has nothing left to show. *Relevant* (Q, N) says, true or false, which images are a query's targets.

One rule settles ties: of equal scores, the image that comes first in the gallery ranks first. So a figure
depends on the scores alone, never on the sorting algorithm, on k or on how queries were put into blocks. Equal features
get equal scores from `similarities`; a plain matrix product does not promise that.
"""

from __future__ import annotations

import hashlib
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

_RESAMPLES = 2000
_COVERAGE = 0.95


def first_equal(features: NDArray[np.float32]) -> NDArray[np.int64]:
    """For each row (N, D) the position of the first row that equals it in every bit, mostly its own: (N,).

    >>> first_equal(np.float32([[1, 2], [3, 4], [1, 2], [1, 5]]))
    array([0, 1, 0, 3])
    """
    first = np.arange(len(features))
    # Rows that agree in their first two numbers are few: only these are compared whole, so nothing large is sorted.
    heads = np.asarray(features[:, :2])
    order = np.lexsort(heads.T)
    same_as_next = (heads[order[1:]] == heads[order[:-1]]).all(axis=1)  # (N - 1,)
    candidates = np.union1d(order[1:][same_as_next], order[:-1][same_as_next])
    seen: dict[bytes, int] = {}
    for position in candidates.tolist():
        # Not the row itself as the key: in the worst case all rows are candidates.
        key = hashlib.blake2b(features[position].tobytes(), digest_size=16).digest()
        first[position] = seen.setdefault(key, position)
    return first


def similarities(
    queries: NDArray[np.float32], gallery: NDArray[np.float32], first: NDArray[np.int64]
) -> NDArray[np.float32]:
    """The dot product of each query (Q, D) with each row of the gallery (N, D), alike for equal rows: (Q, N).

    How the numbers of a dot product are summed up depends on where the row stands in the matrix, on the matrix' size
    and on the processor. So two equal rows may get scores that differ in the last bit; here each has that of the first.

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
        k: how many to give, at least 1.
        exclude: (Q, N), true for what must not appear in a query's ranking (its reference, say).

    Returns:
        (Q, min(k, N)) gallery positions; -1 at the end of a row that has fewer images left than asked for.

    Raises:
        ValueError: on a shape that does not fit, k < 1, or a score that is not finite.

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
        # A partition costs a tenth of a sort. The k it picks are brought into gallery order first, so that the
        # stable sort by score leaves ties in it.
        best = np.sort(np.argpartition(values, gallery - k, axis=1)[:, gallery - k :], axis=1)  # (Q, k)
        chosen = np.take_along_axis(values, best, axis=1)
        ranking = np.take_along_axis(best, np.argsort(-chosen, axis=1, kind="stable"), axis=1)
        # Where a tie straddles the cut, the partition picked any of the equals: sort those rows in full.
        last = chosen.min(axis=1, keepdims=True)
        straddled = (values == last).sum(axis=1) > (chosen == last).sum(axis=1)
        ranking[straddled] = np.argsort(-values[straddled], axis=1, kind="stable")[:, :k]
    ranking[np.isneginf(np.take_along_axis(values, ranking, axis=1))] = -1
    return ranking


def recall_at(ranking: ArrayLike, relevant: ArrayLike, k: int) -> NDArray[np.float64]:
    """R@k of each query: the share of its targets that are among the first k, in [0, 1].

    With one target it is 1 or 0, the hit rate of CIRR and FashionIQ. With more than k targets it cannot reach 1.

    Args:
        ranking: (Q, K) from `rank`, with K >= min(k, N).
        relevant: (Q, N), true for a query's targets.
        k: the cut, at least 1; beyond the gallery's size it means the whole gallery.

    Returns:
        (Q,) float64.

    Raises:
        ValueError: if a query has no target, the shapes do not fit, or the ranking is shorter than the cut.

    >>> ranking = [[2, 0, 1], [1, 2, 0]]
    >>> relevant = [[True, False, True], [True, False, False]]
    >>> recall_at(ranking, relevant, k=1)
    array([0.5, 0. ])
    """
    hits, targets = _hits(ranking, relevant, k)
    return hits.sum(axis=1) / targets


def average_precision_at(ranking: ArrayLike, relevant: ArrayLike, k: int) -> NDArray[np.float64]:
    """AP@k of each query, in [0, 1]; its mean over queries is mAP@k.

    AP@k = (sum over the ranks i <= k that hold a target of: targets among the first i, over i) / min(targets, k).
    The divisor is CIRCO's: a ranking that begins with targets only scores 1 even if there are more than k of
    them, and a target that is missed costs as much as it would have earned.

    Args:
        ranking: (Q, K) from `rank`, with K >= min(k, N).
        relevant: (Q, N), true for a query's targets.
        k: the cut, at least 1; beyond the gallery's size it means the whole gallery.

    Returns:
        (Q,) float64.

    Raises:
        ValueError: if a query has no target, the shapes do not fit, or the ranking is shorter than the cut.

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
    97.5th percentile of the means. Queries that share something succeed and fail together (the same image asked
    for in ten colours is not ten independent trials): give such queries the same group, and whole groups are
    drawn instead. Without that the interval would be too narrow.

    Args:
        values: (Q,), one figure a query; or (Q, M), M figures a query, all judged on the same draws.
        groups: (Q,) what a query belongs to, of any type that sorts; each query on its own if not given.
        seed: of the draws. The same seed gives the same interval.

    Returns:
        (2,) or (2, M): the lower and the upper end. A single group gives an interval of no width.

    Raises:
        ValueError: if there are no values or the shapes do not fit.

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

    Pairing takes out what makes a query hard for both, so it finds differences that two separate intervals hide.

    Args:
        first: (Q,) one figure a query, of one method.
        second: (Q,) the same queries in the same order, of the other method.
        groups: (Q,) as in `bootstrap_interval`.
        seed: as in `bootstrap_interval`.

    Raises:
        ValueError: if the two are not of one shape (Q,), or are empty.

    >>> paired_bootstrap([0.5, 0.75, 1.0], [0.25, 0.5, 0.75])
    Difference(mean=0.25, low=0.25, high=0.25)
    """
    one, other = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != other.shape:
        raise ValueError(f"the two methods must have figures for the same queries, not {one.shape} and {other.shape}")
    change = one - other
    low, high = bootstrap_interval(change, groups, seed)
    return Difference(float(change.mean()), float(low), float(high))
