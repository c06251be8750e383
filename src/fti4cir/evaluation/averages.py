"""Benchmarks in several parts: each is evaluated by itself, and the parts' figures are averaged.

FashionIQ is an example. It has three categories, each with its own gallery. All have the same weight,
although one has more queries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import results
from .metrics import Difference
from .results import Evaluation


@dataclass(frozen=True, eq=False)
class Average:
    """The figures of one method on a benchmark in several parts; it is used like an `Evaluation`."""

    benchmark: str
    parts: Mapping[str, Evaluation] = field(repr=False)
    """By the name of each part in the figures."""

    @property
    def _first(self) -> Evaluation:
        return next(iter(self.parts.values()))

    @property
    def split(self) -> str:
        """The split, the same for all parts."""
        return self._first.split

    @property
    def method(self) -> str:
        """The method, the same for all parts."""
        return self._first.method

    @property
    def model(self) -> str | None:
        """The model, the same for all parts."""
        return self._first.model

    @property
    def protocol(self) -> str:
        """The parts' protocols, in one line."""
        each = " | ".join(part.protocol for part in self.parts.values())
        return f"means of {len(self.parts)} parts with a gallery each: {each}"

    @property
    def queries(self) -> int:
        """The number of queries of all parts."""
        return sum(part.queries for part in self.parts.values())

    @property
    def gallery(self) -> int:
        """The number of images in all galleries together."""
        return sum(part.gallery for part in self.parts.values())

    @property
    def missing(self) -> int:
        """The number of images missing from all galleries together."""
        return sum(part.missing for part in self.parts.values())

    def metrics(self) -> dict[str, float]:
        """Each metric's mean over the parts, named `R@10`, and the parts' own figures, named `dress R@10`."""
        each = {name: part.metrics() for name, part in self.parts.items()}
        means = {metric: math.fsum(figures[metric] for figures in each.values()) / len(each) for metric in self._names}
        return {**means, **{f"{name} {metric}": each[name][metric] for name in each for metric in self._names}}

    @property
    def shown(self) -> list[str]:
        """The names in `metrics` to print. A mean is printed if the figures of all parts are."""
        each = {name: part.shown for name, part in self.parts.items()}
        means = [metric for metric in self._names if all(metric in own for own in each.values())]
        return [*means, *(f"{name} {metric}" for name, own in each.items() for metric in own)]

    @property
    def ceilings(self) -> dict[str, float]:
        """What each of `metrics` would be if every ranking were perfect."""
        each = {name: {m: part.ceilings.get(m, 1.0) for m in self._names} for name, part in self.parts.items()}
        means = {metric: math.fsum(own[metric] for own in each.values()) / len(each) for metric in self._names}
        return {**means, **{f"{name} {metric}": own[metric] for name, own in each.items() for metric in own}}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """The 95 % interval of each of `metrics`."""
        figures = {name: part.metrics() for name, part in self.parts.items()}
        ends = {name: part.intervals() for name, part in self.parts.items()}
        means = {}
        for metric in self._names:
            mean = _mean([Difference(figures[name][metric], *ends[name][metric]) for name in self.parts])
            means[metric] = (mean.low, mean.high)
        return {**means, **{f"{name} {metric}": ends[name][metric] for name in ends for metric in self._names}}

    def by_value(self) -> dict[str, dict[str, float]]:
        """For each part, the number of its queries and its metrics."""
        return {name: {"queries": part.queries, **part.metrics()} for name, part in self.parts.items()}

    def to_json(self) -> dict[str, Any]:
        """The output of `fti4cir evaluate --json`, with the fields of an `Evaluation`."""
        return results.figures_json(self)

    @property
    def _names(self) -> list[str]:
        return list(self._first.per_query)


def average(benchmark: str, evaluations: Sequence[Evaluation]) -> Average:
    """Combine one method's evaluations of all parts of a benchmark.

    Args:
        benchmark: the whole benchmark's name, `fashioniq`; its parts are called `fashioniq-dress` and so on.
        evaluations: one for each part.

    Raises:
        ValueError: if they differ in method, model, split or metrics.
    """
    kinds = {(one.method, one.model, one.split, tuple(one.per_query)) for one in evaluations}
    if len(kinds) != 1:
        raise ValueError(f"evaluations of {len(kinds)} kinds cannot be averaged")
    return Average(benchmark, {one.benchmark.removeprefix(f"{benchmark}-"): one for one in evaluations})


def compare(first: Evaluation | Average, second: Evaluation | Average, metric: str) -> Difference:
    """How much better `first` is than `second` in a metric, paired by query; as `results.compare`, of averages, too.

    Raises:
        ValueError: if the two do not score the same queries.
    """
    if isinstance(first, Evaluation) and isinstance(second, Evaluation):
        return results.compare(first, second, metric=metric)
    if isinstance(first, Average) and isinstance(second, Average) and first.parts.keys() == second.parts.keys():
        return _mean([results.compare(first.parts[name], second.parts[name], metric=metric) for name in first.parts])
    raise ValueError("only evaluations of the same queries can be compared")


def differences(evaluations: Sequence[Evaluation | Average], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Compare each evaluation after the first with the first, in each of the metrics.

    The records can be given to `json.dumps`. They are in the order of the evaluations, then of the metrics.
    """
    first, *others = evaluations
    records: list[dict[str, Any]] = []
    for other in others:
        for metric in metrics:
            difference = compare(other, first, metric=metric)
            records.append(
                {
                    "method": other.method,
                    "model": other.model,
                    "against": first.method,
                    "against_model": first.model,
                    "metric": metric,
                    "difference": difference.mean,
                    "interval": [difference.low, difference.high],
                    "significant": difference.significant,
                }
            )
    return records


def _mean(parts: Sequence[Difference]) -> Difference:
    """The mean of independent estimates, and its interval from theirs.

    The variance of a mean of P independent estimates is the sum of their variances, divided by P squared. The same rule
    is applied to the squared distance from each estimate to each end of its interval, so that intervals may be
    asymmetric (the "MOVER" of Zou and Donner, Statistics in Medicine 2008).
    """
    count = len(parts)
    mean = math.fsum(part.mean for part in parts) / count
    below = math.hypot(*(part.mean - part.low for part in parts)) / count
    above = math.hypot(*(part.high - part.mean for part in parts)) / count
    return Difference(mean, mean - below, mean + above)
