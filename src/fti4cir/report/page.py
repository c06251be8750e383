"""A report as one HTML page that needs nothing else, neither network nor JavaScript."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

from ..evaluation.results import labels
from . import plots
from .examples import Thumbnails, choose
from .plots import Bar, Series
from .study import Item, Question, Study
from .style import STYLE
from .table import answers, differences_in, hits, left_out, models

_SHOWN = 8  # results of each method in an example
_SHOWN_TEXTS = 5
_SHOWN_TARGETS = 4
_LETTERS = 20  # of a value's name and its number of queries
_VALUES = 24  # rows of the breakdown; a longer one shows those with the most queries


def page(study: Study, told: dict[str, Any]) -> str:
    """The page, from a study and its figures (`table.figures`).

    Raises:
        ImageError: if an image that is shown cannot be read.
    """
    thumbnails = Thumbnails()
    sections = [_figures(told), _plots(told), _breakdown(told), _examples(study, thumbnails)]
    title = f"{told['benchmark']} with {models(told)[1]}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>fti4cir evaluation: {html.escape(title)}</title>
<style>{STYLE}{thumbnails.style()}</style>
</head>
<body>
{_header(told)}
<main>
{"".join(sections)}
</main>
{_footer(told)}
</body>
</html>
"""


# -- above and below ----------------------------------------------------------------------------------------


def _header(told: dict[str, Any]) -> str:
    first = told["evaluations"][0]
    metric = told["compared_by"]
    low, high = first["intervals"][metric]
    lead = f"<p>{_compared(told)}</p>" if told["differences"] else ""
    missing = (
        f'<p class="warning"><strong>{told["missing"]} images are missing.</strong> These figures are not '
        "comparable with those of the whole benchmark.</p>"
        if told["missing"]
        else ""
    )
    facts = [
        ("benchmark", f"{told['benchmark']}, {told['split']}"),
        models(told),
        ("queries", f"{told['queries']:,}"),
        (answers(told), f"{told['gallery']:,}"),
        ("date", told["date"][:10]),
    ]
    listed = "".join(f"<div><dt>{name}</dt><dd>{html.escape(value)}</dd></div>" for name, value in facts)
    return f"""<header>
<p class="over">fti4cir evaluation</p>
<h1>{html.escape(told["labels"][0])} reaches {metric} {first["metrics"][metric]:.3f}</h1>
<p class="lead">95 % interval {low:.3f} to {high:.3f}. {html.escape(told["protocol"])}.</p>
{lead}{missing}
<dl class="facts">{listed}</dl>
</header>"""


def _compared(told: dict[str, Any]) -> str:
    """How the first method stands to the others, in words."""
    said = []
    for name, one in zip(told["labels"][1:], differences_in(told, told["compared_by"]), strict=True):
        low, high = sorted(-end for end in one["interval"])
        much = f"{abs(one['difference']):.3f} {'more' if one['difference'] < 0 else 'less'} than {name}"
        if one["significant"]:
            said.append(f"{much} ({_signed(low)} to {_signed(high)})")
        else:
            said.append(f"{much}, which may be chance ({_signed(low)} to {_signed(high)})")
    return html.escape(f"Paired by query, that is {'; '.join(said)}.")


def _footer(told: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    return f"""<footer>
<p>All figures are fractions; intervals are 95 % bootstrap intervals, for which queries that start from one image are
drawn together. Beside this page: <code>report.json</code> with every figure, <code>table.md</code> and
<code>table.csv</code>.</p>
<p>{html.escape(versions)}; {html.escape(told["date"])}</p>
</footer>"""


# -- tables -------------------------------------------------------------------------------------------------


def _figures(told: dict[str, Any]) -> str:
    evaluations = told["evaluations"]
    metrics = told["shown"]
    names = told["labels"]
    rows = []
    for metric in metrics:
        best = max(evaluation["metrics"][metric] for evaluation in evaluations)
        cells = []
        for evaluation in evaluations:
            value = evaluation["metrics"][metric]
            shown = f"<strong>{value:.3f}</strong>" if value == best and len(evaluations) > 1 else f"{value:.3f}"
            cells.append(f"{shown}<small>{_range(evaluation['intervals'][metric])}</small>")
        rows.append((metric, cells))
    parts = [_table("Figures of each method, with 95 % intervals", names, rows)]
    if metrics != list(evaluations[0]["metrics"]):
        parts.append(f'<p class="note">{html.escape(left_out(told))}</p>')
    if told["differences"]:
        rows = [(metric, [_difference(one) for one in differences_in(told, metric)]) for metric in metrics]
        caption = f"Difference to {names[0]}, paired by query"
        parts.append(
            f"<details><summary>{html.escape(caption)}</summary>{_table(caption, names[1:], rows, offset=1)}"
            '<p class="note">Whether two methods differ, the interval of their difference tells: it leaves out zero, '
            "or the difference may be chance. Overlap of the methods' own intervals does not tell.</p></details>"
        )
    return f'<section aria-labelledby="figures"><h2 id="figures">Figures</h2>{"".join(parts)}</section>\n'


def _table(caption: str, names: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]], offset: int = 0) -> str:
    """A metric a row and a method a column; on a narrow screen a line for each method under each metric.

    There the style makes blocks of rows and cells, which would take their meaning for a screen reader from them: hence
    the roles.
    """
    whose = [
        f"{plots.swatch(place % plots.STYLES)}<span>{html.escape(name)}</span>"
        for place, name in enumerate(names, start=offset)
    ]
    head = "".join(f'<th scope="col" role="columnheader">{who}</th>' for who in whose)
    body = "\n".join(
        f'<tr role="row"><th scope="row" role="rowheader">{metric}</th>'
        + "".join(
            f'<td role="cell"><span class="who" aria-hidden="true">{who}</span><span class="figure">{cell}</span></td>'
            for who, cell in zip(whose, cells, strict=True)
        )
        + "</tr>"
        for metric, cells in rows
    )
    label = html.escape(caption)
    return (
        f'<div class="wide" role="region" aria-label="{label}" tabindex="0"><table role="table">'
        f'<caption>{label}</caption><thead role="rowgroup"><tr role="row"><td role="cell"></td>{head}</tr></thead>\n'
        f'<tbody role="rowgroup">{body}</tbody></table></div>'
    )


def _difference(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    chance = "" if one["significant"] else '<small class="chance">may be chance</small>'
    return f"{_signed(one['difference'])}<small>{_signed(low)} to&nbsp;{_signed(high)}</small>{chance}"


def _range(ends: Sequence[float]) -> str:
    return f"{ends[0]:.3f} to&nbsp;{ends[1]:.3f}"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")


# -- plots --------------------------------------------------------------------------------------------------


def _plots(told: dict[str, Any]) -> str:
    drawn = [_main_figure(told), _paired(told), *_curves(told), *_word_plots(told), _latent(told)]
    shown = "\n".join(figure for figure in drawn if figure)
    return (
        f'<section aria-labelledby="plots"><h2 id="plots">Plots</h2>{_legend(told)}'
        f'<div class="plots">{shown}</div></section>\n'
    )


def _legend(told: dict[str, Any]) -> str:
    entries = "".join(
        f"<li>{plots.swatch(place % plots.STYLES)}{html.escape(name)}</li>" for place, name in enumerate(told["labels"])
    )
    return f'<ul class="legend" aria-label="Methods">{entries}</ul>'


def _figure(title: str, plot: str, note: str = "") -> str:
    about = f'<p class="note">{note}</p>' if note else ""
    return f"<figure><figcaption><h3>{html.escape(title)}</h3>{about}</figcaption>{plot}</figure>"


def _main_figure(told: dict[str, Any]) -> str:
    metric = told["compared_by"]
    rows = [
        Bar(name, "", [(place % plots.STYLES, one["metrics"][metric])], tuple(one["intervals"][metric]))
        for place, (name, one) in enumerate(zip(told["labels"], told["evaluations"], strict=True))
    ]
    title = f"{metric} of each method"
    return _figure(title, plots.intervals(title, rows, f"{metric}, with 95 % interval"))


def _paired(told: dict[str, Any]) -> str:
    if not told["differences"]:
        return ""
    metric = told["compared_by"]
    first, *others = told["labels"]
    rows = [
        Bar(name, "", [(place % plots.STYLES, one["difference"])], tuple(one["interval"]))
        for place, (name, one) in enumerate(zip(others, differences_in(told, metric), strict=True), start=1)
    ]
    title = f"Difference to {first}, paired by query"
    return _figure(title, plots.intervals(title, rows, f"difference in {metric}, with 95 % interval", zero=True))


def _curves(told: dict[str, Any]) -> list[str]:
    cuts = next(iter(told["curves"].values()))["k"]
    ticks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000) if k <= cuts[-1]]
    drawn = []
    for kind, name in (("R", "Recall"), ("mAP", "Mean average precision")):
        series = [
            Series(label, place % plots.STYLES, list(zip(curve["k"], curve[kind], strict=True)))
            for place, (label, curve) in enumerate(told["curves"].items())
            if kind in curve
        ]
        if not series:
            continue
        ceiling = list(zip(cuts, told["ceiling"], strict=True)) if kind == "R" and told["ceiling"][0] < 1 else []
        title = f"{name} among the first k"
        note = "A query with several right answers cannot have them all among the first few." if ceiling else ""
        drawn.append(
            _figure(
                title,
                plots.lines(title, series, "k", f"{kind}@k", ticks, logarithmic=True, ceiling=ceiling),
                note,
            )
        )
    return drawn


def _word_plots(told: dict[str, Any]) -> list[str]:
    words = told["words"]
    if words is None or not words["pictures"]:
        return []
    made_by = next(
        place
        for place, one in enumerate(told["evaluations"])
        if (one["method"], one["model"]) == (words["method"], words["model"])
    )
    name, style = told["labels"][made_by], made_by % plots.STYLES
    counts = {int(count): pictures for count, pictures in words["histogram"].items()}
    shares = [(count, counts.get(count, 0) / words["pictures"]) for count in range(words["most"] + 1)]
    title = "Attribute words an image"
    selection = (
        f"Those of relevance above {words['threshold']:g}, at least one" if words["threshold"] is not None else "All"
    )
    note = f"{selection}, at most {words['most']}; over {words['pictures']:,} images that queries start from."
    if len(told["labels"]) > 1:
        note += f" Made by {html.escape(name)}."
    drawn = [_figure(title, plots.columns(title, shares, "attribute words", "share of images", style), note)]
    if words["limited"]:
        metric = told["compared_by"]
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
        drawn.append(_figure(title, plot, note))
    return drawn


def _latent(told: dict[str, Any]) -> str:
    if not told["latent"]:
        return ""
    metric = told["compared_by"]
    points = [(float(one["num_latent"]), one["metrics"][metric]) for one in told["latent"]]
    ends = [tuple(one["intervals"][metric]) for one in told["latent"]]
    title = f"{metric} by latent attributes"
    ticks = sorted({point[0] for point in points})
    method = told["latent"][0]["method"]
    style = [one["method"] for one in told["evaluations"]].index(method) % plots.STYLES
    plot = plots.lines(
        title, [Series(method, style, points)], "latent attributes K of the model", metric, ticks, whiskers=ends
    )
    return _figure(title, plot, "Each point is a model of its own, trained with so many.")


def _breakdown(told: dict[str, Any]) -> str:
    tables = [evaluation["by_value"] for evaluation in told["evaluations"]]
    if len(tables[0]) < 2:
        return ""
    metric = told["compared_by"]
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
    note = "Behind each value, the number of its queries; with few of them a figure says little."
    if left_out:
        note += f" The {left_out} rarest values are left out; report.json has them."
    first, *others = map(html.escape, told["labels"])
    if others:
        note += f" The bar is {first}, the marks on it are {', '.join(others)}."
    title = f"{metric} by value"
    half = (len(rows) + 1) // 2 if len(rows) > 8 else len(rows)
    top = max(value for row in rows for _, value in row.values)
    letters = min(_LETTERS, max(len(row.name) + len(row.note) for row in rows))
    parts = [plots.bars(title, part, metric, top, letters) for part in (rows[:half], rows[half:]) if part]
    return (
        f'<section aria-labelledby="values"><h2 id="values">{title}</h2><p class="note">{note}</p>{_legend(told)}'
        f'<figure class="pair">{"".join(parts)}</figure></section>\n'
    )


# -- examples -----------------------------------------------------------------------------------------------


def _examples(study: Study, thumbnails: Thumbnails) -> str:
    names = labels(study.evaluations)
    found = [hits(study.questions, evaluation.ranking) for evaluation in study.evaluations]
    parts = []
    for group in choose(study):
        cards = "\n".join(
            _card(study, number, names, [of[number] for of in found], thumbnails) for number in group.queries
        )
        parts.append(
            f'<h3>{group.title}</h3><p class="note">{html.escape(group.why)}</p><div class="cards">{cards}</div>'
        )
    return (
        '<section aria-labelledby="examples"><h2 id="examples">Examples</h2>'
        '<p class="note">Right answers have a thick border and a tick.</p>'
        f"{''.join(parts)}</section>\n"
    )


def _card(study: Study, number: int, names: Sequence[str], found: Sequence[Any], thumbnails: Thumbnails) -> str:
    question = study.questions[number]
    rows = []
    for place, evaluation in enumerate(study.evaluations):
        ranking, right = evaluation.ranking[number], found[place]
        first = int(right.argmax()) + 1 if right.any() else None
        rank = f"first right one at rank {first}" if first else f"no right one among the first {len(ranking)}"
        shown = _SHOWN if study.gallery[0].path else _SHOWN_TEXTS
        items = "".join(
            f"<li{' class=right' if hit else ''}>{_shown(study.gallery[position], thumbnails, hit)}</li>"
            for position, hit in zip(ranking[:shown].tolist(), right[:shown].tolist(), strict=True)
            if position >= 0
        )
        if not study.one_is_enough:
            # What a mean average precision is the mean of has no mean in it.
            metric = study.compared_by.removeprefix("m")
            rank += f"; {metric} {evaluation.per_query[study.compared_by][number]:.3f}"
        rows.append(
            f'<div class="row"><h4>{plots.swatch(place % plots.STYLES)}{html.escape(names[place])}'
            f"<small>{rank}</small></h4>"
            f'<ol class="{"strip" if study.gallery[0].path else "texts"}">{items}</ol></div>'
        )
    asked = f'<p class="asked"><span>this, but</span> {html.escape(question.text)}</p>' if question.text else ""
    return f"""<article>
<div class="query">{_shown(question.picture, thumbnails)}{asked}
{_targets(study, question, thumbnails)}</div>
<div class="rows">{"".join(rows)}</div>
</article>"""


def _targets(study: Study, question: Question, thumbnails: Thumbnails) -> str:
    shown = question.targets[:_SHOWN_TARGETS]
    count = len(question.targets)
    some = f"{count} right answers" if count > 1 else "the right answer"
    if len(shown) < count:
        some += f", {len(shown)} of them"
    items = "".join(f"<li>{_shown(study.gallery[position], thumbnails)}</li>" for position in shown)
    kind = "strip" if study.gallery[0].path else "texts"
    return f'<div class="targets"><h4><small>{some}</small></h4><ol class="{kind}">{items}</ol></div>'


def _shown(item: Item, thumbnails: Thumbnails, right: bool = False) -> str:
    tick = '<b class="tick-mark" aria-label="right">✓</b>' if right else ""
    name = html.escape(item.name)
    if item.path is None:
        return f'<span class="text">{name}</span>{tick}'
    style = thumbnails.style_of(item.path)
    return f'<span class="image {style}" role="img" aria-label="{name}" title="{name}"></span>{tick}'
