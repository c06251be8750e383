"""A report as one HTML page that needs no other file, no network and no JavaScript."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..evaluation.results import labels
from ..html import render
from . import plots
from .drawings import breakdown, figures
from .examples import Thumbnails, choose
from .study import Item, Question, Study
from .table import answers, differences_in, hits, left_out, models

_SHOWN = 8  # results of each method in an example
_SHOWN_TEXTS = 5
_SHOWN_TARGETS = 4


def page(study: Study, summary: dict[str, Any]) -> str:
    """The page, from a study and its figures (`table.figures`).

    Raises:
        ImageError: if an image that is shown cannot be read.
    """
    thumbnails = Thumbnails()
    groups = _groups(study, thumbnails)
    first = summary["evaluations"][0]
    metric = summary["compared_by"]
    return render(
        "report.html.j2",
        title=f"fti4cir evaluation: {summary['benchmark']} with {models(summary)[1]}",
        summary=summary,
        metric=metric,
        value=first["metrics"][metric],
        interval=first["intervals"][metric],
        comparison=_comparison(summary) if summary["differences"] else "",
        facts=_facts(summary),
        methods=[Method(name, plots.swatch(place % plots.STYLES)) for place, name in enumerate(summary["labels"])],
        rows=_rows(summary),
        left_out=left_out(summary) if summary["shown"] != list(first["metrics"]) else "",
        differences=[(name, differences_in(summary, name)) for name in summary["shown"]],
        figures=figures(summary),
        breakdown=breakdown(summary),
        groups=groups,
        list_kind="strip" if study.gallery[0].path else "texts",
        thumbnails=thumbnails.images,
    )


class Method(NamedTuple):
    """A method's name and the swatch that stands for it in plots."""

    name: str
    swatch: str


def _facts(summary: dict[str, Any]) -> list[tuple[str, str]]:
    """What was evaluated: (name, value)."""
    return [
        ("benchmark", f"{summary['benchmark']}, {summary['split']}"),
        models(summary),
        ("queries", f"{summary['queries']:,}"),
        (answers(summary), f"{summary['gallery']:,}"),
        ("date", summary["date"][:10]),
    ]


def _comparison(summary: dict[str, Any]) -> str:
    """How the first method compares with the others, in words."""
    parts = []
    for name, one in zip(summary["labels"][1:], differences_in(summary, summary["compared_by"]), strict=True):
        low, high = (f"{end:+.3f}".replace("-", "−") for end in sorted(-end for end in one["interval"]))
        difference = f"{abs(one['difference']):.3f} {'more' if one['difference'] < 0 else 'less'} than {name}"
        chance = "" if one["significant"] else ", which may be chance"
        parts.append(f"{difference}{chance} ({low} to {high})")
    return f"Paired by query, that is {'; '.join(parts)}."


class Figure(NamedTuple):
    """A method's value of a metric."""

    value: float
    interval: Sequence[float]
    best: bool


def _rows(summary: dict[str, Any]) -> list[tuple[str, list[Figure]]]:
    """For each metric the figures of all methods; the best stands out where there are several."""
    evaluations = summary["evaluations"]
    rows = []
    for metric in summary["shown"]:
        best = max(one["metrics"][metric] for one in evaluations) if len(evaluations) > 1 else None
        cells = [
            Figure(one["metrics"][metric], one["intervals"][metric], one["metrics"][metric] == best)
            for one in evaluations
        ]
        rows.append((metric, cells))
    return rows


# -- examples -----------------------------------------------------------------------------------------------


class Shown(NamedTuple):
    """An image or a text, and whether it is a right answer."""

    name: str
    thumbnail: str | None
    """The class that has the image as its background; None for a text."""
    right: bool = False


class Row(NamedTuple):
    """What one method found for a query."""

    method: str
    swatch: str
    note: str
    results: list[Shown]


class Example(NamedTuple):
    """A query, its right answers, and what each method found."""

    image: Shown
    text: str
    targets: list[Shown]
    targets_title: str
    rows: list[Row]


class ExampleGroup(NamedTuple):
    """Examples that are shown for one reason."""

    title: str
    why: str
    examples: list[Example]


def _groups(study: Study, thumbnails: Thumbnails) -> list[ExampleGroup]:
    found = [hits(study.questions, evaluation.ranking) for evaluation in study.evaluations]
    return [
        ExampleGroup(group.title, group.why, [_example(study, number, found, thumbnails) for number in group.queries])
        for group in choose(study)
    ]


def _example(study: Study, number: int, found: Sequence[NDArray[np.bool_]], thumbnails: Thumbnails) -> Example:
    question = study.questions[number]
    names = labels(study.evaluations)
    rows = [
        Row(
            names[place],
            plots.swatch(place % plots.STYLES),
            _rank_note(study, number, place, found[place][number]),
            _results(study, evaluation.ranking[number], found[place][number], thumbnails),
        )
        for place, evaluation in enumerate(study.evaluations)
    ]
    return Example(
        image=_shown(question.picture, thumbnails),
        text=question.text,
        targets=[_shown(study.gallery[position], thumbnails) for position in question.targets[:_SHOWN_TARGETS]],
        targets_title=_targets_title(question),
        rows=rows,
    )


def _rank_note(study: Study, number: int, place: int, right: NDArray[np.bool_]) -> str:
    """Where a method ranks the first right answer of a query, and the query's own figure."""
    evaluation = study.evaluations[place]
    if right.any():
        note = f"first right one at rank {int(right.argmax()) + 1}"
    else:
        note = f"no right one among the first {len(right)}"
    if study.one_is_enough:
        return note
    # Of one query, the mean average precision is the average precision.
    metric = study.compared_by.removeprefix("m")
    return f"{note}; {metric} {evaluation.per_query[study.compared_by][number]:.3f}"


def _results(study: Study, ranking: NDArray[np.int64], right: NDArray[np.bool_], thumbnails: Thumbnails) -> list[Shown]:
    """The first results of a ranking (depth,). -1 stands for no result."""
    count = _SHOWN if study.gallery[0].path else _SHOWN_TEXTS
    return [
        _shown(study.gallery[position], thumbnails, right=hit)
        for position, hit in zip(ranking[:count].tolist(), right[:count].tolist(), strict=True)
        if position >= 0
    ]


def _targets_title(question: Question) -> str:
    count = len(question.targets)
    title = f"{count} right answers" if count > 1 else "the right answer"
    return f"{title}, {_SHOWN_TARGETS} of them" if count > _SHOWN_TARGETS else title


def _shown(item: Item, thumbnails: Thumbnails, *, right: bool = False) -> Shown:
    return Shown(item.name, None if item.path is None else thumbnails.style_of(item.path), right)
