"""A study that is made up: twelve images of plain colours, queries with known rankings by two methods."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fti4cir.benchmarks.base import Benchmark, Gallery, Query
from fti4cir.evaluation.ranking import judge
from fti4cir.evaluation.results import Evaluation
from fti4cir.report import Study, study
from standin import save_colour

PICTURES, QUERIES, DEPTH = 12, 24, 10


def benchmark(folder: Path, **changes: object) -> Benchmark:
    paths = tuple(save_colour(folder / f"a <b> & {n}.png", (20 * n, 255 - 20 * n, 9)) for n in range(PICTURES))
    queries = tuple(
        Query(
            texts=(f"in <red> & {number}",),
            reference=number % PICTURES,
            exclude=(number % PICTURES,),
            within=None,
            targets=tuple((number + step) % PICTURES for step in range(1, 2 + number % 3)),
        )
        for number in range(QUERIES)
    )
    settings = {
        "name": "made-up",
        "split": "val",
        "protocol": "colours & <more>",
        "gallery": Gallery(tuple(path.stem for path in paths), paths),
        "queries": queries,
        "values": tuple((f"<value> {number % 4}",) for number in range(QUERIES)),
        "precision_cuts": (5, 10),
        "recall_cuts": (1, 5, 10),
        **changes,
    }
    return Benchmark(**settings)


def ranked(made: Benchmark, method: str, seed: int, help_: float = 0.0) -> Evaluation:
    """Random rankings, the better the more help they get."""
    generator = np.random.default_rng(seed)
    rows = []
    for query in made.queries:
        scores = generator.random(PICTURES)
        scores[list(query.targets)] += help_
        scores[list(query.exclude)] = -1
        rows.append(np.argsort(-scores)[:DEPTH])
    return judge(made, np.array(rows), subset_ranking=None, method=method, model="tiny")


def two_methods(folder: Path, **changes: object) -> Study:
    made = benchmark(folder, **changes)
    return study(made, [ranked(made, "good", 0, 0.5), ranked(made, "bad", 1)])
