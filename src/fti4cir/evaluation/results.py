"""What an evaluation found: figures with their intervals, how they differ, and what to call them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .metrics import Difference, bootstrap_interval, paired_bootstrap

_WORTH_SHOWING = 0.5  # of what a perfect ranking would reach


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one method reached on one benchmark. All figures are fractions."""

    benchmark: str
    split: str
    protocol: str
    method: str
    model: str | None
    """None where predictions were scored that came from a file."""
    gallery: int
    missing: int
    """How many of the benchmark's images were not there; unless 0, the figures are not comparable."""
    per_query: Mapping[str, NDArray[np.float64]] = field(repr=False)
    """Each metric, `mAP@10` say, for each query (Q,), in the benchmark's order; empty where answers are hidden."""
    references: NDArray[np.int64] = field(repr=False)
    """Each query's reference (Q,), a position in the gallery: queries that share one are not independent."""
    values: tuple[tuple[str, ...], ...] = field(repr=False)
    """What each query counts under in the breakdown; empty for no breakdown."""
    ranking: NDArray[np.int64] = field(repr=False)
    """The gallery positions that each query found (Q, depth), best first and without those it excludes, -1 where
    there are no more; as deep as the deepest cut and at least 10, but no deeper than the gallery."""
    subset_ranking: NDArray[np.int64] | None = field(default=None, repr=False)
    """The same within each query's few images, as deep as the deepest subset cut; None where there are no such."""
    unreadable: tuple[int, ...] = field(default=(), repr=False)
    """The gallery positions of images that could not be read, which are counted as missing."""
    ceilings: Mapping[str, float] = field(default_factory=dict, repr=False)
    """What each metric would be if every ranking were perfect; 1 for a metric that is not there."""

    @property
    def queries(self) -> int:
        """How many queries there were."""
        return len(self.references)

    def metrics(self) -> dict[str, float]:
        """Each metric's mean over the queries."""
        return {name: float(figures.mean()) for name, figures in self.per_query.items()}

    @property
    def shown(self) -> list[str]:
        """The metrics that are worth showing to people: those of which a perfect ranking would reach a half.

        Where a query has hundreds of right answers, the share of them that is found first says nothing.
        """
        return [name for name in self.per_query if self.ceilings.get(name, 1.0) >= _WORTH_SHOWING]

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Each metric's 95 % bootstrap interval; all queries of one reference are drawn together."""
        if not self.per_query:
            return {}
        low, high = bootstrap_interval(np.stack(list(self.per_query.values()), axis=1), self.references)
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(self.per_query)}

    def by_value(self) -> dict[str, dict[str, float]]:
        """For each value, in the order of the alphabet, the number of its queries and each metric's mean.

        A query may carry several values, and counts under each.
        """
        carrying: dict[str, list[int]] = {}
        for number, values in enumerate(self.values):
            for value in values:
                carrying.setdefault(value, []).append(number)
        return {
            value: {
                "queries": len(numbers),
                **{name: float(figures[numbers].mean()) for name, figures in self.per_query.items()},
            }
            for value, numbers in sorted(carrying.items())
        }

    def to_json(self) -> dict[str, Any]:
        """What `fti4cir evaluate --json` prints, ready for `json.dumps`."""
        return {
            "benchmark": self.benchmark,
            "split": self.split,
            "protocol": self.protocol,
            "method": self.method,
            "model": self.model,
            "queries": self.queries,
            "gallery": self.gallery,
            "missing": self.missing,
            "metrics": self.metrics(),
            "intervals": {name: list(ends) for name, ends in self.intervals().items()},
            "ceilings": {name: self.ceilings.get(name, 1.0) for name in self.per_query},
            "by_value": self.by_value(),
        }


def compare(first: Evaluation, second: Evaluation, *, metric: str) -> Difference:
    """How much better `first` is than `second` in a metric, paired by query.

    As in `Evaluation.intervals`, all queries of one reference are drawn together.

    Raises:
        ValueError: if the two do not score the same queries.
    """
    same_source = (first.benchmark, first.split, first.protocol) == (second.benchmark, second.split, second.protocol)
    if not same_source or not np.array_equal(first.references, second.references):
        raise ValueError("only evaluations of the same queries can be compared")
    return paired_bootstrap(first.per_query[metric], second.per_query[metric], first.references)


class Named(Protocol):
    """What the name of an evaluation is made of."""

    @property
    def method(self) -> str:
        """The method's name."""
        ...

    @property
    def model(self) -> str | None:
        """The model's name; None where there was none."""
        ...


class _Figures(Named, Protocol):
    """What the JSON of figures is made of. `Evaluation` says what each is."""

    @property
    def benchmark(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def protocol(self) -> str: ...

    @property
    def queries(self) -> int: ...

    @property
    def gallery(self) -> int: ...

    @property
    def missing(self) -> int: ...

    @property
    def ceilings(self) -> Mapping[str, float]: ...

    def metrics(self) -> dict[str, float]: ...

    def intervals(self) -> dict[str, tuple[float, float]]: ...

    def by_value(self) -> dict[str, dict[str, float]]: ...


def figures_json(one: _Figures) -> dict[str, Any]:
    """The fields of an `Evaluation`, or of the average of several, ready for `json.dumps`."""
    metrics = one.metrics()
    return {
        "benchmark": one.benchmark,
        "split": one.split,
        "protocol": one.protocol,
        "method": one.method,
        "model": one.model,
        "queries": one.queries,
        "gallery": one.gallery,
        "missing": one.missing,
        "metrics": metrics,
        "intervals": {name: list(ends) for name, ends in one.intervals().items()},
        "ceilings": {name: one.ceilings.get(name, 1.0) for name in metrics},
        "by_value": one.by_value(),
    }


def labels(evaluations: Sequence[Named]) -> list[str]:
    """What to call each of several evaluations, for people: its method, `sum`.

    Where a method occurs more than once its model is added, `fti4cir (k12)`: by the last part of its path, or as many
    as tell it from the other models.
    """
    methods = [one.method for one in evaluations]
    short = _short_names([one.model for one in evaluations if one.model is not None])
    return [
        f"{one.method} ({short[one.model]})" if one.model is not None and methods.count(one.method) > 1 else one.method
        for one in evaluations
    ]


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path by its last parts, as few as tell all of them apart."""
    parts = {path: PurePath(path).parts for path in paths}
    count = 1
    while count < max(map(len, parts.values()), default=1) and len({own[-count:] for own in parts.values()}) < len(
        parts
    ):
        count += 1
    return {path: str(PurePath(*own[-count:])) for path, own in parts.items()}
