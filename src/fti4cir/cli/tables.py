"""Figures and findings as they are printed for people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .terminal import print_json, say

if TYPE_CHECKING:
    from ..benchmarks.verify import Verification
    from ..evaluation.averages import Average
    from ..evaluation.results import Evaluation

_LISTED = 10  # images of each kind that verify names without --json


def print_figures(evaluations: Sequence[Evaluation | Average], compared_by: str, *, as_json: bool) -> None:
    """Evaluations of the same queries: one, or several that are compared with the first by a metric."""
    if not as_json:
        _print_evaluations(evaluations, compared_by)
    elif len(evaluations) == 1:
        print_json(evaluations[0].to_json())
    else:
        print_json(_compared(evaluations, compared_by))


def _compared(evaluations: Sequence[Evaluation | Average], metric: str) -> dict[str, Any]:
    """Several evaluations of the same queries as JSON, each but the first with its difference from the first."""
    from ..evaluation.averages import differences

    return {
        "evaluations": [evaluation.to_json() for evaluation in evaluations],
        "differences": differences(evaluations, [metric]),
    }


def _print_evaluations(evaluations: Sequence[Evaluation | Average], compared_by: str) -> None:
    """A table for people: a metric a line, a method a column, each figure with its interval."""
    from ..evaluation.averages import differences
    from ..evaluation.results import labels

    first = evaluations[0]
    say(f"{first.benchmark}, {first.split}: {first.protocol}")
    models = list(dict.fromkeys(one.model for one in evaluations if one.model))
    by = f", {'models' if len(models) > 1 else 'model'} {', '.join(models)}" if models else ""
    searched = "captions" if first.benchmark == "descriptions" else "images"
    say(f"{first.queries} queries over {first.gallery} {searched}{by}")
    if first.missing:
        say(f"{first.missing} images are missing: these figures are not comparable with others")
    metrics = [evaluation.metrics() for evaluation in evaluations]
    if not metrics[0]:
        say("the answers are hidden: the benchmark's server scores these predictions")
        return
    say()
    shown = first.shown
    width = max([8, *(len(name) + 2 for name in shown)])
    names = labels(evaluations)
    columns = [max(24, len(name) + 2) for name in names]
    say("".join([" " * width, *map(str.ljust, names, columns)]).rstrip())
    intervals = [evaluation.intervals() for evaluation in evaluations]
    for name in shown:
        figures = [
            f"{means[name]:.3f} [{ends[name][0]:.3f}, {ends[name][1]:.3f}]"
            for means, ends in zip(metrics, intervals, strict=True)
        ]
        say("".join([f"{name:{width}}", *map(str.ljust, figures, columns)]).rstrip())
    if left_out := [name for name in metrics[0] if name not in shown]:
        ceilings = ", ".join(f"{first.ceilings[name]:.3f}" for name in left_out)
        say()
        say(
            f"not shown: {', '.join(left_out)}; queries have so many right answers that a perfect ranking would "
            f"reach {ceilings} only"
        )
    if len(evaluations) > 1:
        say()
        say(f"{compared_by}, paired by query:")
        for name, one in zip(names[1:], differences(evaluations, [compared_by]), strict=True):
            low, high = one["interval"]
            say(f"  {name} - {names[0]}: {one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")


def print_predictions(evaluation: Evaluation, compared_by: str, *, count: int) -> None:
    """How a file of predictions scores, if that is known, and that it is valid."""
    _print_evaluations([evaluation], compared_by)
    if evaluation.per_query and evaluation.values:
        say()
        say(f"{compared_by} of the queries with:")
        for value, row in evaluation.by_value().items():
            say(f"  {value:32}{row[compared_by]:.3f}  ({row['queries']})")
    say()
    say(f"valid: {evaluation.queries} queries with {count} predictions each")


def print_verification(verification: Verification) -> None:
    """What it comes to, and then what is wrong: the first images of each kind, one a line."""
    say(
        f"{verification.needed:,} images needed: {verification.absent:,} missing, "
        f"{len(verification.unreadable):,} unreadable, {len(verification.suspicious):,} suspicious"
    )
    for part in verification.parts:
        say(f"{part.benchmark.name}, {verification.split}: {part.meaning}")
    _print_some("missing", verification.missing)
    _print_some("unreadable", [f"{fault.id}: {fault.reason}" for fault in verification.unreadable])
    _print_some("suspicious", [f"{fault.id}: {fault.reason}" for fault in verification.suspicious])


def _print_some(kind: str, found: Sequence[str]) -> None:
    """The first of a list, and how many more there are."""
    if found:
        say()
    for one in found[:_LISTED]:
        say(f"{kind}: {one}")
    if len(found) > _LISTED:
        say(f"... and {len(found) - _LISTED:,} more {kind}; all of them with --json")
