"""Plots as SVG inside a page: no library, no script; their colours come from the page's style.

Series differ by colour, by marker and by dash, so that neither a colour-blind reader nor a black and white
print loses anything. A plot is an image to a screen reader, with a title and a sentence that says what it shows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import NamedTuple

from markupsafe import Markup, escape

_WIDTH, _HEIGHT = 460, 300
_LEFT, _TOP, _BOTTOM = 64, 12, 48
_LETTER = 7.8  # room for a letter of a name, of the larger type that small screens get
_LETTERS = 24  # of a name beside curves and intervals; a longer one is cut, for the plot needs room as well
_LABEL = 14  # the least distance of two labels, in pixels
_MARKERS = (
    '<circle r="3.6"/>',
    '<rect x="-3.3" y="-3.3" width="6.6" height="6.6"/>',
    '<path d="M0-4.6 4.4 3.4H-4.4Z"/>',
    '<path d="M0-4.8 4.8 0 0 4.8-4.8 0Z"/>',
    '<path d="M0 4.6 4.4-3.4H-4.4Z"/>',
    '<path d="M-4-4 4 4M-4 4 4-4" fill="none"/>',
    '<path d="M0-4.6V4.6M-4.6 0H4.6" fill="none"/>',
    '<circle r="3.4" fill="none"/>',
)
STYLES = len(_MARKERS)
"""How many series look different."""


class Series(NamedTuple):
    """Points (x, y) under a name."""

    name: str
    style: int
    """Which colour, marker and dash, 0 to `STYLES` - 1."""
    points: Sequence[tuple[float, float]]


class Bar(NamedTuple):
    """A value with an interval, or a bar with other values on it."""

    name: str
    note: str
    """Behind the name, such as how many queries stand behind it."""
    values: Sequence[tuple[int, float]]
    """(style, value); in `bars` the first is the bar."""
    ends: tuple[float, float] | None = None


def swatch(style: int) -> Markup:
    """A short piece of a series' line with its marker, for a legend."""
    return Markup(
        f'<svg class="swatch" viewBox="0 0 34 12" width="34" height="12" aria-hidden="true"><g class="s{style}">'
        f'<path class="line" d="M1 6H33"/>{_marker(style, 17, 6)}</g></svg>'
    )


def lines(
    title: str,
    series: Sequence[Series],
    x_label: str,
    y_label: str,
    x_ticks: Sequence[float],
    *,
    logarithmic: bool = False,
    whiskers: Sequence[tuple[float, float]] = (),
    ceiling: Sequence[tuple[float, float]] = (),
) -> Markup:
    """Curves, each with its name at its end. The vertical axis begins at zero, but near the whiskers where there are.

    Args:
        title: what it shows, for those who do not see it.
        series: the curves, by rising x; positive if logarithmic.
        x_label: of the horizontal axis.
        y_label: of the vertical one.
        x_ticks: none of them before or behind all points.
        logarithmic: whether equal factors of x are equally far apart.
        whiskers: the interval at each point of the first series; none for no intervals.
        ceiling: the best that can be had, drawn thin and dotted.
    """
    right = 22 + _LETTER * max(len(_cut(one.name)) for one in series)
    heights = [y for one in series for _, y in one.points] + [end for pair in whiskers for end in pair]
    levels = _ticks(min(heights) if whiskers else 0.0, max(heights))
    low, high = levels[0], levels[-1]
    along = math.log if logarithmic else float
    first, last = (along(end(x for one in series for x, _ in one.points)) for end in (min, max))

    def x_at(x: float) -> float:
        return _LEFT + 6 + (along(x) - first) / ((last - first) or 1) * (_WIDTH - _LEFT - 6 - right)

    def y_at(y: float) -> float:
        return _TOP + (high - y) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    def path(points: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join(f"{x_at(x):.1f} {y_at(y):.1f}" for x, y in points)

    parts = [_vertical_axis(levels, y_at, y_label, _WIDTH - right + 6)]
    parts += [_tick_below(x_at(tick), _number(tick)) for tick in x_ticks]
    parts.append(_x_title(x_label, right))
    inside = [(x, y) for x, y in ceiling if y <= high]
    if inside:
        x, y = inside[len(inside) // 2]
        parts.append(
            f'<path class="ceiling" d="{path(inside)}"/><text class="faint" x="{x_at(x) - 8:.1f}" '
            f'y="{y_at(y) - 4:.1f}" text-anchor="end">best possible</text>'
        )
    for (x, _), (below, above) in zip(series[0].points, whiskers, strict=False):
        parts.append(
            f'<path class="s{series[0].style} whisker" d="M{x_at(x):.1f} {y_at(below):.1f}V{y_at(above):.1f}"/>'
        )
    for one in series:
        marked = [point for point in one.points if len(one.points) <= len(x_ticks) or point[0] in x_ticks]
        markers = "".join(
            _marker(one.style, x_at(x), y_at(y), f"{one.name}: {y:.3f} at {_number(x)}") for x, y in marked
        )
        parts.append(f'<g class="s{one.style}"><path class="line" d="{path(one.points)}"/>{markers}</g>')
    ends = _apart([y_at(one.points[-1][1]) for one in series])
    for one, y in zip(series, ends, strict=True):
        parts.append(_name(x_at(one.points[-1][0]) + 10, y, one.name))
    description = "; ".join(
        f"{one.name} from {one.points[0][1]:.3f} at {_number(one.points[0][0])} "
        f"to {one.points[-1][1]:.3f} at {_number(one.points[-1][0])}"
        for one in series
    )
    return _svg(title, f"{y_label} over {x_label}: {description}.", parts, _HEIGHT)


def columns(title: str, shares: Sequence[tuple[int, float]], x_label: str, y_label: str, style: int) -> Markup:
    """A histogram over whole numbers: (number, share), by rising number, none left out between them."""
    levels = _ticks(0.0, max(share for _, share in shares))
    step = (_WIDTH - _LEFT - 12) / len(shares)

    def y_at(y: float) -> float:
        return _TOP + (1 - y / levels[-1]) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [_vertical_axis(levels, y_at, y_label, _WIDTH - 12, percent=True)]
    base = y_at(0)
    for place, (number, share) in enumerate(shares):
        middle = _LEFT + (place + 0.5) * step
        width = min(0.78 * step, 44)
        parts.append(
            f'<rect class="s{style} bar" x="{middle - width / 2:.1f}" y="{y_at(share):.1f}" width="{width:.1f}" '
            f'height="{base - y_at(share):.1f}" rx="2"><title>{number}: {100 * share:.1f} %</title></rect>'
        )
        if len(shares) <= 16 or number % 4 == 0:
            parts.append(_tick_below(middle, str(number), mark=False))
    parts.append(_x_title(x_label, 12))
    description = ", ".join(f"{number}: {100 * share:.1f} %" for number, share in shares if share)
    return _svg(title, f"{y_label} by {x_label}: {description}.", parts, _HEIGHT)


def intervals(title: str, rows: Sequence[Bar], x_label: str, *, zero: bool = False) -> Markup:
    """A value with its interval a row, one below the other; with `zero`, a line there to be left out or not."""
    ends = [end for row in rows for end in row.ends or ()] + [value for row in rows for _, value in row.values]
    low, high = (min(0.0, *ends), max(0.0, *ends)) if zero else (0.0, max(ends))
    names = 20 + _LETTER * max(len(_cut(row.name)) for row in rows)
    ticks = _ticks(low, high)
    low, high = min(low, ticks[0]), max(high, ticks[-1])
    height = 34 * len(rows) + _BOTTOM + 8

    def x_at(x: float) -> float:
        return names + (x - low) / (high - low) * (_WIDTH - names - 68)

    parts = [_grid_across(ticks, x_at, height, signed=zero)]
    if zero:
        parts.append(f'<path class="zero" d="M{x_at(0):.1f} 4V{height - _BOTTOM + 4}"/>')
    for place, row in enumerate(rows):
        y = 8 + 34 * (place + 0.5)
        style, value = row.values[0]
        from_, to = row.ends or (value, value)
        shown = f"{value:+.3f}".replace("-", "−") if zero else f"{value:.3f}"
        parts.append(
            f"{_name(0, y, row.name)}"
            f'<g class="s{style}"><path class="whisker" d="M{x_at(from_):.1f} {y:.1f}H{x_at(to):.1f}"/>'
            f"{_marker(style, x_at(value), y)}</g>"
            f'<text class="value" x="{_WIDTH - 4}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>'
        )
    parts.append(_x_title(x_label, 68, height, names))
    description = "; ".join(f"{row.name} {row.values[0][1]:.3f}" + _between(row.ends) for row in rows)
    return _svg(title, f"{x_label}: {description}.", parts, height)


def bars(title: str, rows: Sequence[Bar], x_label: str, highest: float, letters: int) -> Markup:
    """A horizontal bar a row for the first series, and markers on it for the others.

    Bars of several plots compare if these agree in `highest`, the greatest value that there is room for, and in
    `letters`, the room for names and notes; a longer name is cut.
    """
    ticks = _ticks(0.0, highest)
    high = ticks[-1]
    names = 24 + _LETTER * letters
    height = 24 * len(rows) + _BOTTOM + 8

    def x_at(x: float) -> float:
        return names + x / high * (_WIDTH - names - 14)

    parts = [_grid_across(ticks, x_at, height)]
    for place, row in enumerate(rows):
        y = 8 + 24 * (place + 0.5)
        (style, value), *others = row.values
        parts.append(
            f"{_name(0, y, row.name, letters, row.note)}"
            f'<rect class="s{style} bar" x="{x_at(0):.1f}" y="{y - 8:.1f}" width="{x_at(value) - x_at(0):.1f}" '
            f'height="16" rx="2"><title>{escape(row.name)}: {value:.3f}</title></rect>'
        )
        parts += [
            f'<g class="s{other}">{_marker(other, x_at(at), y, f"{row.name}: {at:.3f}")}</g>' for other, at in others
        ]
    parts.append(_x_title(x_label, 14, height, names))
    description = "; ".join(f"{row.name} " + ", ".join(f"{value:.3f}" for _, value in row.values) for row in rows)
    return _svg(title, f"{x_label}: {description}.", parts, height)


# -- pieces -------------------------------------------------------------------------------------------------


def _svg(title: str, description: str, parts: Sequence[str], height: float) -> Markup:
    """The whole plot, from parts in which all text is escaped."""
    inside = "\n".join(parts)
    return Markup(
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {height:.0f}" role="img" '
        f'aria-label="{escape(f"{title}. {description}")}">\n{inside}\n</svg>'
    )


def _cut(name: str, letters: int = _LETTERS) -> str:
    return name if len(name) <= letters else f"{name[: letters - 1]}…"


def _name(x: float, y: float, name: str, letters: int = _LETTERS, note: str = "") -> str:
    """A name and a note behind it, in so many letters; cut, it is whole where the pointer rests on it."""
    behind = f'<tspan class="faint" dx="5">{escape(note)}</tspan>' if note else ""
    return (
        f'<text class="name" x="{x:.1f}" y="{y + 4:.1f}">{escape(_cut(name, letters - len(note)))}{behind}'
        f"<title>{escape(name)}</title></text>"
    )


def _marker(style: int, x: float, y: float, tooltip: str = "") -> str:
    title = f"<title>{escape(tooltip)}</title>" if tooltip else ""
    return f'<g class="marker" transform="translate({x:.1f} {y:.1f})">{title}{_MARKERS[style]}</g>'


def _vertical_axis(
    levels: Sequence[float], y_at: Callable[[float], float], label: str, right: float, percent: bool = False
) -> str:
    parts = []
    for level in levels:
        y = y_at(level)
        shown = f"{100 * level:.0f} %" if percent else _number(level)
        parts.append(
            f'<path class="{"axis" if level == levels[0] else "grid"}" d="M{_LEFT} {y:.1f}H{right:.1f}"/>'
            f'<text class="tick" x="{_LEFT - 7}" y="{y + 4:.1f}" text-anchor="end">{shown}</text>'
        )
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(
        f'<text class="label" transform="translate(11 {middle:.0f}) rotate(-90)" text-anchor="middle">'
        f"{escape(label)}</text>"
    )
    return "".join(parts)


def _grid_across(ticks: Sequence[float], x_at: Callable[[float], float], height: float, signed: bool = False) -> str:
    return "".join(
        f'<path class="grid" d="M{x_at(tick):.1f} 4V{height - _BOTTOM + 4:.1f}"/>'
        f'<text class="tick" x="{x_at(tick):.1f}" y="{height - _BOTTOM + 20:.1f}" text-anchor="middle">'
        f"{'+' if signed and tick > 0 else ''}{_number(tick)}</text>"
        for tick in ticks
    )


def _tick_below(x: float, text: str, mark: bool = True) -> str:
    base = _HEIGHT - _BOTTOM
    line = f'<path class="axis" d="M{x:.1f} {base}v4"/>' if mark else ""
    return f'{line}<text class="tick" x="{x:.1f}" y="{base + 18}" text-anchor="middle">{text}</text>'


def _x_title(text: str, right: float, height: float = _HEIGHT, left: float = _LEFT) -> str:
    middle = (left + _WIDTH - right) / 2
    return f'<text class="label" x="{middle:.0f}" y="{height - 6:.0f}" text-anchor="middle">{escape(text)}</text>'


def _between(ends: tuple[float, float] | None) -> str:
    return f" ({ends[0]:.3f} to {ends[1]:.3f})" if ends else ""


def _number(value: float) -> str:
    """A tick's number: no more decimals than it has, and a real minus."""
    return f"{value:.3f}".rstrip("0").rstrip(".").replace("-", "−") or "0"


def _ticks(low: float, high: float) -> list[float]:
    """Four to seven round numbers, equally far apart, that enclose what lies between `low` and `high`."""
    span = max(high - low, 0.01)
    power = 10.0 ** math.floor(math.log10(span / 5))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if span / (factor * power) <= 5.5)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(place * step, 10) for place in range(first, max(last, first + 1) + 1)]


def _apart(heights: Sequence[float]) -> list[float]:
    """Heights of labels, moved apart where they would overlap, and down or up as little as does it."""
    order = sorted(range(len(heights)), key=lambda place: heights[place])
    moved = list(heights)
    for before, place in pairwise(order):
        moved[place] = max(moved[place], moved[before] + _LABEL)
    excess = moved[order[-1]] - (_HEIGHT - _BOTTOM)
    if excess > 0:
        for place in reversed(order):
            moved[place] = min(moved[place], _HEIGHT - _BOTTOM - _LABEL * (len(order) - 1 - order.index(place)))
    return moved
