"""Plots as SVG: well formed, to scale, and with words for who does not see them."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from fti4cir.html import stylesheet
from fti4cir.report import plots
from fti4cir.report.plots import Bar, Series


def parsed(svg: str) -> ElementTree.Element:
    root = ElementTree.fromstring(svg)
    assert root.get("role") == "img"
    assert root.get("aria-label")
    return root


def places(root: ElementTree.Element, style: int) -> list[tuple[float, float]]:
    """Where a series' markers are."""
    group = next(one for one in root if one.tag == "g" and one.get("class") == f"s{style}")
    found = [one.get("transform", "") for one in group.iter("g") if one.get("class") == "marker"]
    return [tuple(map(float, re.findall(r"-?[\d.]+", place))) for place in found]  # type: ignore[misc]


def texts(root: ElementTree.Element, kind: str) -> list[str]:
    """What is seen; titles are not."""
    return [
        "".join([one.text or "", *("".join(part.itertext()) for part in one if part.tag != "title")])
        for one in root.iter("text")
        if kind in one.get("class", "").split()
    ]


def test_lines_are_to_scale() -> None:
    series = [Series("a <b>", 0, [(1, 0.1), (10, 0.5), (100, 0.4)]), Series("c", 1, [(1, 0.0), (100, 0.2)])]
    root = parsed(plots.lines("title", series, "k", "R@k", [1, 10, 100], logarithmic=True))
    (x1, y1), (x2, y2), (x3, y3) = places(root, 0)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)  # equal factors, equal steps
    assert (y1 - y2) / (y1 - y3) == pytest.approx(4 / 3, rel=0.01)
    assert y1 > y3 > y2  # upwards is more
    assert texts(root, "tick") == ["0", "0.1", "0.2", "0.3", "0.4", "0.5", "1", "10", "100"]
    assert texts(root, "label") == ["R@k", "k"]
    assert texts(root, "name") == ["a <b>", "c"]
    assert "a <b> from 0.100 at 1 to 0.400 at 100" in root.get("aria-label", "")


def test_whiskers_and_an_axis_near_them() -> None:
    series = [Series("a", 0, [(0, 0.42), (4, 0.48)])]
    root = parsed(plots.lines("title", series, "M", "mAP", [0, 4], whiskers=[(0.4, 0.44), (0.46, 0.5)]))
    assert [one.get("class") for one in root.iter("path")].count("s0 whisker") == 2
    assert texts(root, "tick")[0] == "0.4"


def test_ceiling_only_as_far_as_there_is_room() -> None:
    series = [Series("a", 0, [(1, 0.1), (2, 0.2)])]
    ceiling = [(1.0, 0.15), (2.0, 0.9)]
    root = parsed(plots.lines("title", series, "k", "R@k", [1, 2], ceiling=ceiling))
    (path,) = (one.get("d", "") for one in root.iter("path") if one.get("class") == "ceiling")
    assert path.count("L") == 0
    assert texts(root, "faint") == ["best possible"]
    root = parsed(plots.lines("title", series, "k", "R@k", [1, 2], ceiling=[(1.0, 0.8)]))
    assert texts(root, "faint") == []


def test_a_single_point() -> None:
    parsed(plots.lines("title", [Series("a", 0, [(1, 0.0)])], "k", "R@k", [1], logarithmic=True))


def test_columns() -> None:
    root = parsed(plots.columns("title", [(0, 0.0), (1, 0.75), (2, 0.25)], "words", "share", 3))
    bars = [float(one.get("height", "")) for one in root.iter("rect")]
    assert bars[0] == 0
    assert bars[1] == pytest.approx(3 * bars[2], rel=0.01)
    assert "1: 75.0 %, 2: 25.0 %" in root.get("aria-label", "")


def test_intervals() -> None:
    rows = [Bar("a", "", [(0, 0.4)], (0.3, 0.5)), Bar("b", "", [(1, -0.2)], (-0.3, -0.1))]
    root = parsed(plots.intervals("title", rows, "difference", zero=True))
    ((a, _),), ((b, _),) = places(root, 0), places(root, 1)
    zero = float(
        re.findall(r"M([\d.]+)", next(p.get("d", "") for p in root.iter("path") if p.get("class") == "zero"))[0]
    )
    assert (a - zero) / (zero - b) == pytest.approx(2, rel=0.01)
    assert texts(root, "value") == ["+0.400", "−0.200"]
    assert "b -0.200 (-0.300 to -0.100)" in root.get("aria-label", "")


def test_bars_of_two_plots_compare() -> None:
    first, second = (
        parsed(plots.bars("title", [Bar(name, "7", [(0, 0.4), (1, value)])], "mAP", 0.9, 12))
        for name, value in (("Red", 0.9), ("A very long name indeed", 0.1))
    )
    one, other = (next(root.iter("rect")) for root in (first, second))
    assert (one.get("x"), one.get("width")) == (other.get("x"), other.get("width"))
    assert len(places(first, 1)) == 1
    assert texts(second, "name")[0].startswith("A very lon…7")


def test_long_names_leave_room() -> None:
    long = "fti4cir (a model with a very long name)"
    curves = parsed(plots.lines("title", [Series(long, 0, [(1, 0.1), (9, 0.2)])], "k", "R@k", [1, 9]))
    rows = parsed(plots.intervals("title", [Bar(long, "", [(0, 0.1)], (0.0, 0.2))], "mAP"))
    for root in (curves, rows):
        assert texts(root, "name") == ["fti4cir (a model with a…"]
        assert long in [one.text for one in root.iter("title")]
    (left, _), (right, _) = places(curves, 0)
    assert right - left > 150
    grid = [
        float(re.findall(r"M([\d.]+)", one.get("d", ""))[0]) for one in rows.iter("path") if one.get("class") == "grid"
    ]
    assert grid[-1] - grid[0] > 150


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.51, [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]),
        (-0.3, 0.02, [-0.3, -0.2, -0.1, 0, 0.1]),
        (0.41, 0.48, [0.4, 0.42, 0.44, 0.46, 0.48]),
        (0, 0, [0, 0.002]),
    ],
)
def test_ticks(low: float, high: float, expected: list[float]) -> None:
    assert plots._ticks(low, high) == pytest.approx(expected)


def test_labels_do_not_overlap() -> None:
    moved = plots._apart([100, 101, 20, 250, 251, 252])
    assert all(abs(a - b) >= 14 for i, a in enumerate(moved) for b in moved[:i])
    assert moved[2] == 20
    assert max(moved) <= 252


def test_each_style_has_its_colours() -> None:
    for style in range(plots.STYLES):
        colours = re.findall(rf"--s{style}: (#\w+);", stylesheet())
        assert len(colours) == 2, "one for light and one for dark pages"
        assert f".s{style} {{ --c: var(--s{style}); }}" in stylesheet()
        parsed(str(plots.swatch(style)).replace('aria-hidden="true"', 'role="img" aria-label="-"'))
    assert f"--s{plots.STYLES}:" not in stylesheet()
