"""Figures of a benchmark in several parts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from fti4cir.evaluation import averages as averaging
from fti4cir.evaluation.metrics import bootstrap_interval, paired_bootstrap
from fti4cir.evaluation.results import Evaluation

GENERATOR = np.random.default_rng(0)


def evaluation(name: str, hits: np.ndarray, method: str = "sum") -> Evaluation:
    hits = np.asarray(hits, dtype=np.float64)
    return Evaluation(
        benchmark=f"fashioniq-{name}",
        split="val",
        protocol=name,
        method=method,
        model="mini",
        gallery=100 + len(hits),
        missing=1,
        per_query={"R@10": hits, "R@50": np.ones(len(hits))},
        references=np.arange(len(hits)),
        values=(),
        ranking=np.zeros((len(hits), 50), dtype=np.int64),
    )


def test_parts_count_alike() -> None:
    # By hand: a quarter of four and all of two; a mean over the six queries would be 3/6.
    found = averaging.average("fashioniq", [evaluation("dress", [1, 0, 0, 0]), evaluation("shirt", [1, 1])])
    assert found.metrics() == {
        "R@10": 0.625,
        "R@50": 1.0,
        "dress R@10": 0.25,
        "dress R@50": 1.0,
        "shirt R@10": 1.0,
        "shirt R@50": 1.0,
    }
    told = found.to_json()
    fixed = ["benchmark", "split", "method", "model", "queries", "gallery"]
    assert [told[name] for name in fixed] == ["fashioniq", "val", "sum", "mini", 6, 206]
    assert told["missing"] == 2
    assert told["by_value"] == {
        "dress": {"queries": 4, "R@10": 0.25, "R@50": 1.0},
        "shirt": {"queries": 2, "R@10": 1.0, "R@50": 1.0},
    }
    assert told["intervals"].keys() == told["metrics"].keys()
    assert "dress | shirt" in told["protocol"]


def test_what_is_shown_of_the_parts() -> None:
    dress, shirt = evaluation("dress", [1, 0]), evaluation("shirt", [1, 1])
    found = averaging.average("fashioniq", [dress, replace(shirt, ceilings={"R@10": 0.2, "R@50": 0.9})])
    assert found.shown == ["R@50", "dress R@10", "dress R@50", "shirt R@50"]
    assert found.to_json()["ceilings"] == {
        "R@10": pytest.approx(0.6),
        "R@50": pytest.approx(0.95),
        "dress R@10": 1.0,
        "dress R@50": 1.0,
        "shirt R@10": 0.2,
        "shirt R@50": 0.9,
    }


def test_the_interval_of_the_mean_is_that_of_drawing_in_each_part() -> None:
    parts = [GENERATOR.random(count) < share for count, share in ((300, 0.2), (500, 0.5), (200, 0.8))]
    names = ("dress", "shirt", "toptee")
    found = averaging.average("fashioniq", [evaluation(*pair) for pair in zip(names, parts, strict=True)])
    low, high = found.intervals()["R@10"]
    draws = np.mean(
        [[part[GENERATOR.integers(len(part), size=len(part))].mean() for part in parts] for _ in range(4000)], 1
    )
    expected = np.quantile(draws, [0.025, 0.975])
    assert [low, high] == pytest.approx(expected, abs=0.003)
    dress = bootstrap_interval(parts[0].astype(float), np.arange(300))
    assert found.intervals()["dress R@10"] == pytest.approx(tuple(dress))


def test_differences() -> None:
    ours = [GENERATOR.random(40) < 0.7, GENERATOR.random(60) < 0.6]
    theirs = [GENERATOR.random(40) < 0.4, GENERATOR.random(60) < 0.5]
    one, other = (
        averaging.average("fashioniq", [evaluation("dress", hits[0]), evaluation("shirt", hits[1])])
        for hits in (ours, theirs)
    )
    found = averaging.compare(one, other, "R@10")
    each = [
        paired_bootstrap(a.astype(float), b.astype(float), np.arange(len(a))) for a, b in zip(ours, theirs, strict=True)
    ]
    assert found.mean == pytest.approx(one.metrics()["R@10"] - other.metrics()["R@10"])
    assert found.mean - found.low == pytest.approx(math.hypot(*(part.mean - part.low for part in each)) / 2)
    assert averaging.compare(one, one, "R@10") == (0, 0, 0)
    part = one.parts["dress"], other.parts["dress"]
    assert averaging.compare(*part, "R@10") == each[0]
    with pytest.raises(ValueError, match="same queries"):
        averaging.compare(one, part[0], "R@10")


def test_differences_of_several_as_json() -> None:
    kinds = ("first", "second", "third")
    first, second, third = (
        evaluation("dress", GENERATOR.random(40) < 0.2 * n, kind) for n, kind in enumerate(kinds, 2)
    )
    told = averaging.differences([first, second, third], ["R@50", "R@10"])
    assert [(one["method"], one["metric"]) for one in told] == [
        ("second", "R@50"), ("second", "R@10"), ("third", "R@50"), ("third", "R@10"),
    ]  # fmt: skip
    assert {(one["model"], one["against"], one["against_model"]) for one in told} == {("mini", "first", "mini")}
    expected = averaging.compare(second, first, "R@10")
    assert [told[1]["difference"], *told[1]["interval"]] == list(expected)
    assert [one["significant"] for one in told[:2]] == [False, expected.significant]
    assert averaging.differences([first], ["R@10"]) == []


def test_what_cannot_be_averaged() -> None:
    with pytest.raises(ValueError, match="2 kinds"):
        averaging.average("fashioniq", [evaluation("dress", [1]), evaluation("shirt", [1], method="text")])
