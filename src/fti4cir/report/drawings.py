"""Which plots a report shows, from its figures (`table.figures`)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from . import plots
from .plots import Bar, Series
from .table import differences_in

_LETTERS = 20  # of a value's name and its number of queries
_VALUES = 24  # rows of the breakdown; a longer one shows those with the most queries


class Figure(NamedTuple):
    """A plot with its title."""

    title: str
    plot: str
    note: str = ""


class Breakdown(NamedTuple):
    """Plots side by side, of one metric by the queries' values."""

    title: str
    note: str
    plots: Sequence[str]


def figures(summary: dict[str, Any]) -> list[Figure]:
    """All plots but the breakdown by value."""
    drawn = [
        _main_figure(summary),
        _paired(summary),
        *_curves(summary),
        *_word_plots(summary),
        _latent(summary),
    ]
    return [figure for figure in drawn if figure]


def _main_figure(summary: dict[str, Any]) -> Figure:
    metric = summary["compared_by"]
    rows = [
        Bar(name, "", [(place % plots.STYLES, one["metrics"][metric])], tuple(one["intervals"][metric]))
        for place, (name, one) in enumerate(zip(summary["labels"], summary["evaluations"], strict=True))
    ]
    title = f"{metric} of each method"
    return Figure(title, plots.intervals(title, rows, f"{metric}, with 95 % interval"))


def _paired(summary: dict[str, Any]) -> Figure | None:
    if not summary["differences"]:
        return None
    metric = summary["compared_by"]
    first, *others = summary["labels"]
    rows = [
        Bar(name, "", [(place % plots.STYLES, one["difference"])], tuple(one["interval"]))
        for place, (name, one) in enumerate(zip(others, differences_in(summary, metric), strict=True), start=1)
    ]
    title = f"Difference to {first}, paired by query"
    return Figure(title, plots.intervals(title, rows, f"difference in {metric}, with 95 % interval", zero=True))


def _curves(summary: dict[str, Any]) -> list[Figure]:
    cuts = next(iter(summary["curves"].values()))["k"]
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if k <= cuts[-1]]
    drawn = []
    for kind, name in (("R", "Recall"), ("mAP", "Mean average precision")):
        series = [
            Series(label, place % plots.STYLES, list(zip(curve["k"], curve[kind], strict=True)))
            for place, (label, curve) in enumerate(summary["curves"].items())
            if kind in curve
        ]
        if not series:
            continue
        ceiling = list(zip(cuts, summary["ceiling"], strict=True)) if kind == "R" and summary["ceiling"][0] < 1 else []
        title = f"{name} among the first k"
        note = "A query with several right answers cannot have them all among the first few." if ceiling else ""
        drawn.append(
            Figure(
                title,
                plots.lines(title, series, "k", f"{kind}@k", ticks, logarithmic=True, ceiling=ceiling),
                note,
            )
        )
    return drawn


def _word_plots(summary: dict[str, Any]) -> list[Figure]:
    words = summary["words"]
    if words is None or not words["pictures"]:
        return []
    made_by = next(
        place
        for place, one in enumerate(summary["evaluations"])
        if (one["method"], one["model"]) == (words["method"], words["model"])
    )
    name, style = summary["labels"][made_by], made_by % plots.STYLES
    counts = {int(count): pictures for count, pictures in words["histogram"].items()}
    shares = [(count, counts.get(count, 0) / words["pictures"]) for count in range(words["most"] + 1)]
    title = "Attribute words an image"
    selection = (
        f"Those of relevance above {words['threshold']:g}, at least one" if words["threshold"] is not None else "All"
    )
    note = f"{selection}, at most {words['most']}; over {words['pictures']:,} images that queries start from."
    if len(summary["labels"]) > 1:
        note += f" Made by {name}."
    drawn = [Figure(title, plots.columns(title, shares, "attribute words", "share of images", style), note)]
    if words["limited"]:
        metric = summary["compared_by"]
        points = [(float(one["most"]), one["metrics"][metric]) for one in words["limited"]]
        ends = [tuple(one["intervals"][metric]) for one in words["limited"]]
        title = f"{metric} by the most attribute words"
        plot = plots.lines(
            title,
            [Series(name, style, points)],
            "most attribute words an image",
            metric,
            [point[0] for point in points],
            whiskers=ends,
        )
        note = (
            "The same model, cut when searching: the most relevant attributes stay, at 0 the subject alone. "
            "A model trained with so few might do better."
        )
        drawn.append(Figure(title, plot, note))
    return drawn


def _latent(summary: dict[str, Any]) -> Figure | None:
    if not summary["latent"]:
        return None
    metric = summary["compared_by"]
    points = [(float(one["num_latent"]), one["metrics"][metric]) for one in summary["latent"]]
    ends = [tuple(one["intervals"][metric]) for one in summary["latent"]]
    title = f"{metric} by latent attributes"
    ticks = sorted({point[0] for point in points})
    method = summary["latent"][0]["method"]
    style = [one["method"] for one in summary["evaluations"]].index(method) % plots.STYLES
    plot = plots.lines(
        title, [Series(method, style, points)], "latent attributes K of the model", metric, ticks, whiskers=ends
    )
    return Figure(title, plot, "Each point is a model of its own, trained with so many.")


def breakdown(summary: dict[str, Any]) -> Breakdown | None:
    """The figures by the value of each query; None where there are not several values."""
    tables = [evaluation["by_value"] for evaluation in summary["evaluations"]]
    if len(tables[0]) < 2:
        return None
    metric = summary["compared_by"]
    values = sorted(tables[0], key=lambda value: -tables[0][value]["queries"])[:_VALUES]
    rows = [
        Bar(
            value,
            str(tables[0][value]["queries"]),
            [(place % plots.STYLES, table[value][metric]) for place, table in enumerate(tables)],
        )
        for value in sorted(values, key=lambda value: -tables[0][value][metric])
    ]
    left_out = len(tables[0]) - len(values)
    note = "The number after a value is the number of its queries; with few queries a figure says little."
    if left_out:
        note += f" The {left_out} rarest values are left out; report.json has them."
    first, *others = summary["labels"]
    if others:
        note += f" The bar is {first}, the marks on it are {', '.join(others)}."
    title = f"{metric} by value"
    half = (len(rows) + 1) // 2 if len(rows) > 8 else len(rows)
    top = max(value for row in rows for _, value in row.values)
    letters = min(_LETTERS, max(len(row.name) + len(row.note) for row in rows))
    parts = [plots.bars(title, part, metric, top, letters) for part in (rows[:half], rows[half:]) if part]
    return Breakdown(title, note, parts)
