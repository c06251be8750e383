"""The k best rows of a query: exact ties, nothing lost to excluded images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tinyindex import make, rows, vectors


def test_excluding_and_conditions_lose_no_results(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(300)
    store.upsert(rows(values))
    query = values[0]
    order = [f"d/{i}.jpg" for i in np.argsort(-(values @ query))]
    assert [hit.path for hit in store.search(query, 10, without_paths=order[:7])] == order[7:17]
    assert [hit.path for hit in store.search(query, 10, without_digests=["digest0"])] == order[1:11]
    wide = [path for path in order if int(path[2:-4]) >= 290]
    assert [hit.path for hit in store.search(query, 10, where="width >= 390")] == wide
    assert [
        hit.path for hit in store.search(query, 10, where="width >= 390 OR width < 0", without_paths=wide[:2])
    ] == wide[2:]


def test_equal_scores_come_in_the_order_of_paths(tmp_path: Path) -> None:
    store = make(tmp_path)
    store.upsert(rows(np.repeat(vectors(1), 9, axis=0))[::-1])
    paths = [hit.path for hit in store.search(vectors(1)[0], 9)]
    assert paths == sorted(paths)


def test_copies_tie_exactly_and_the_cut_respects_the_order_of_paths(tmp_path: Path) -> None:
    store, values = make(tmp_path), vectors(40)
    # As two runs of a model may leave them: the same file, features that differ in their last digits.
    near = [values[0] + np.float32(1e-7 * i) for i in range(6)]
    copies = [row._replace(digest="same") for row in rows(np.stack(near), start=100)]
    store.upsert([*copies[::-1], *rows(values[1:], start=1)])
    hits = store.search(values[0], 45)
    assert [hit.path for hit in hits[:6]] == [f"d/{i}.jpg" for i in range(100, 106)]
    assert len({hit.score for hit in hits[:6]}) == 1
    for k in range(1, 7):
        assert store.search(values[0], k) == hits[:k]


@pytest.mark.parametrize("k", [4, 2**31, 5_000_000_000])
def test_more_results_than_there_are_rows(tmp_path: Path, k: int) -> None:
    store = make(tmp_path)
    assert store.search(vectors(1)[0], k) == []
    store.upsert(rows(vectors(3)))
    assert len(store.search(vectors(1)[0], k)) == 3
    assert len(store.search(vectors(1)[0], k, where="width >= 101")) == 2
