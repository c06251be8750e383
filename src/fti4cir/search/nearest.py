"""Take the best rows from a vector query: exact ties, each path once, excluded images left out."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, NamedTuple

# Scores that differ by less count as tied when the search decides whether it has seen enough.
_TIE = 1e-6


class Hit(NamedTuple):
    """One image found: its path relative to the root, and the cosine of its vector with the query."""

    path: str
    score: float


def best(
    query: Any, k: int, *, rows: int, without_paths: Collection[str], without_digests: Collection[str]
) -> list[Hit]:
    """The k best hits of a query, best first, without the excluded ones.

    Each path occurs once. All images that tie with the last one are considered, so the order of paths decides.

    Args:
        query: a LanceDB vector query by cosine that selects `path`, `digest` and `_distance`.
        k: how many.
        rows: how many rows the table has.
        without_paths: images to leave out.
        without_digests: contents to leave out.
    """
    limit = k + len(without_paths) + len(without_digests)
    while True:
        # One more than needed, to see whether the last one is tied with the next.
        limit = min(limit + 1, rows)
        table = query.limit(limit).to_arrow()
        found = [table[name].to_pylist() for name in ("path", "digest", "_distance")]
        scores: dict[str, float] = {}
        hits: dict[str, Hit] = {}
        for path, digest, distance in sorted(zip(*found, strict=True), key=lambda one: one[2]):
            if path not in without_paths and digest not in without_digests:
                hits.setdefault(path, Hit(path, scores.setdefault(digest, 1.0 - distance)))
        ranked = sorted(hits.values(), key=lambda hit: (-hit.score, hit.path))
        all_seen = len(table) < limit or limit >= rows
        if all_seen or (len(ranked) > k and 1.0 - max(found[2]) < ranked[k - 1].score - _TIE):
            return ranked[:k]
        limit *= 2
