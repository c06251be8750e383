"""Benchmarks as data."""

from pathlib import Path

import pytest

from fti4cir.benchmarks.base import Benchmark, Gallery, Query


def benchmark(count: int = 50) -> Benchmark:
    return Benchmark(
        name="x",
        split="val",
        protocol="all",
        gallery=Gallery(("a", "b"), (Path("a"), Path("b")), ("c",), unnamed=2),
        queries=tuple(Query((str(number),), 0, (), None, (1,)) for number in range(count)),
        values=tuple((str(number),) for number in range(count)),
        precision_cuts=(),
        recall_cuts=(1, 5),
        query_ids=tuple(range(count)),
    )


def test_a_sample_keeps_what_belongs_together() -> None:
    whole = benchmark()
    some = whole.sample(20, seed=1)
    assert some == whole.sample(20, seed=1) != whole.sample(20, seed=2)
    assert [query.texts[0] for query in some.queries] == [str(number) for number in some.query_ids]
    assert [value for (value,) in some.values] == [str(number) for number in some.query_ids]
    assert list(some.query_ids) == sorted(some.query_ids)
    assert set(whole.sample(5, seed=1).query_ids) < set(some.query_ids)
    assert some.protocol == "all, at most 20 queries drawn with seed 1"
    assert whole.sample(1000).queries == whole.queries


def test_counts_have_to_agree() -> None:
    whole = benchmark()
    for name in ("values", "query_ids"):
        with pytest.raises(ValueError, match=f"1 {name} for 50 queries"):
            Benchmark(**{**vars(whole), name: getattr(whole, name)[:1]})
    with pytest.raises(ValueError, match="1 ids and 0 paths"):
        Gallery(("a",), ())


def test_hidden_answers() -> None:
    whole = benchmark()
    assert whole.answers_known
    hidden = Query(("x",), 0, (), None, ())
    assert not Benchmark(**{**vars(whole), "queries": (*whole.queries[1:], hidden)}).answers_known
