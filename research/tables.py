"""The report of `methods.py measure` as the Markdown tables of docs/results.md."""

from __future__ import annotations

from typing import Any

BASELINES = ("image", "text", "sum", "caption", "pic2word", "searle-oti", "searle", "lincir")


def figures_table(report: dict[str, Any]) -> str:
    """A row for each method, a column for each task.

    Each figure comes with half the width of its interval over the queries, and with the range of its seeds, which
    the interval leaves out.
    """
    lines = [
        "| method | seeds | " + " | ".join(f"{task}, {entry['metric']}" for task, entry in report.items()) + " |",
        "|---|--:|" + "--:|" * len(report),
    ]
    for name in _methods(report):
        found = [entry["methods"].get(name) for entry in report.values()]
        cells = " | ".join(_figure(figures) if figures else "" for figures in found)
        lines.append(f"| {name} | {_seeds(found)} | {cells} |")
    return "\n".join(lines)


def margins_table(report: dict[str, Any], ours: str) -> str:
    """What `ours` is better by than the best baseline of each task."""
    lines = ["| task | best baseline | " + ours + " | more | difference (95 %) |", "|---|---|---|--:|---|"]
    for task, entry in report.items():
        methods = entry["methods"]
        # The image's own feature composes nothing. For descriptions it is the limit that words can hope to approach.
        known = [name for name in BASELINES if name in methods and name != "image"]
        best = max(known, key=lambda name: float(methods[name]["mean"]))
        theirs, own = methods[best]["mean"], methods[ours]["mean"]
        lines.append(
            f"| {task} | {best} {100 * theirs:.1f} | {100 * own:.1f} | {100 * (own / theirs - 1):+.0f} % | "
            f"{_points(methods[best])} |"
        )
    return "\n".join(lines)


def variants_table(report: dict[str, Any], ours: str) -> str:
    """The points that `ours` is better by than its variants, most of which lack a part of it."""
    lines = ["| | seeds | " + " | ".join(report) + " |", "|---|--:|" + "--:|" * len(report)]
    for name in _methods(report):
        if name in BASELINES or name == ours:
            continue
        found = [entry["methods"].get(name) for entry in report.values()]
        cells = " | ".join(_points(figures) if figures else "" for figures in found)
        lines.append(f"| {name} | {_seeds(found)} | {cells} |")
    return "\n".join(lines)


def _methods(report: dict[str, Any]) -> list[str]:
    return list(dict.fromkeys(name for entry in report.values() for name in entry["methods"]))


def _seeds(found: list[dict[str, Any] | None]) -> int:
    """The most seeds of a method in any task."""
    return max(len(figures["seeds"]) for figures in found if figures)


def _figure(figures: dict[str, Any]) -> str:
    low, high = figures["interval"]
    cell = f"{100 * figures['mean']:.1f} ± {50 * (high - low):.1f}"
    if len(figures["seeds"]) > 1:
        cell += f" ({100 * min(figures['seeds']):.1f} to {100 * max(figures['seeds']):.1f})"
    return cell


def _points(figures: dict[str, Any]) -> str:
    difference = figures["ours is better by"]
    low, high = difference["interval"]
    return f"{100 * difference['mean']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
