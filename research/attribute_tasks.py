"""The tasks of methods.py whose answers a table of attributes gives: "in red", of products and of art."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import fti4cir
import mini_data
from fti4cir.benchmarks import attributes
from fti4cir.benchmarks.base import Benchmark
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.methods.registry import create


class Task(NamedTuple):
    """Find the images that have another value in one column of a table, and the same in others."""

    table: str
    change: str
    keep: tuple[str, ...]
    template: str

    def load(self, work: Path, *, part: str, limit: int | None = None) -> Benchmark:
        """The queries and gallery of the images that were trained on (`train`), or of those that were not."""
        root = work / ("images" if part == "train" else "held_out")
        table = work / f"{part}_{self.table}.csv"
        return attributes.load(root, table, "path", self.change, self.keep, self.template, limit=limit)


TASKS = {
    "colour": Task("shop", "baseColour", ("articleType",), "in {value}"),
    "audience": Task("shop", "gender", ("articleType", "baseColour"), "for {value}"),
    "kind": Task("shop", "articleType", ("baseColour", "gender"), "{value}"),
    "domain": Task("art", "domain", ("class",), "as a {value}"),
    "sketch": Task("art", "domain", ("class",), "as a {value}"),
}
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
"""Of the image in the sum; the best of them is taken."""


def belongs(name: str, part: str) -> bool:
    """Whether a held-out image asks in the part `validation`, on which recipes are chosen, or in `test`."""
    return (hashlib.sha256(name.encode()).digest()[0] < 64) == (part == "validation")


def load_task(work: Path, task: str, *, part: str, limit: int) -> Benchmark:
    """A task's queries among the images that were trained on (`train`), or among those that were not.

    The two other parts, `validation` and `test`, share a gallery, but no query's image.
    """
    whole = TASKS[task].load(work, part="train" if part == "train" else "held_out")
    root = work / ("images" if part == "train" else "held_out")
    names = [path.relative_to(root).as_posix() for path in whole.gallery.paths]
    chosen = [
        number
        for number, query in enumerate(whole.queries)
        if (task != "sketch" or query.texts == ("as a sketch",))
        and (part == "train" or belongs(names[query.reference], part))
    ]
    whole = replace(
        whole,
        queries=tuple(whole.queries[number] for number in chosen),
        values=tuple(whole.values[number] for number in chosen),
    )
    return whole.sample(limit)


def feature_cache(work: Path, task: str, *, part: str) -> Path:
    """The folder for the features of a task's gallery; `part` is `train` or `held_out`."""
    return work / "evaluation" / f"{part}-{TASKS[task].table}"


def best_weight(benchmark: Benchmark, model: fti4cir.Model, *, cache: Path | None = None) -> float:
    """The image weight of the sum that is best on a benchmark."""
    methods = [create("sum", model, image_weight=weight) for weight in WEIGHTS]
    found = evaluate(benchmark, model.encoder, methods=methods, model=model.name, cache=cache)
    scores = [result.metrics()["mAP@10"] for result in found]
    return WEIGHTS[scores.index(max(scores))]


def describe(facts: Mapping[str, str]) -> str:
    """A caption with all facts that a table gives of an image."""
    thing = mini_data.article(f"{facts.get('colour', '')} {facts['kind']}".strip())
    if "domain" in facts:
        return f"{mini_data.article(facts['domain'])} of {thing}"
    return f"{thing} for {facts['audience']}" if "audience" in facts else thing


def table_captions(data: Path, work: Path) -> dict[Path, str]:
    """For each held-out image with facts in a table, a caption with all of them: as good as captions get."""
    return {
        (work / "held_out" / image.name).absolute(): describe(image.facts)
        for image in mini_data.load(data)
        if image.held_out and image.facts
    }
