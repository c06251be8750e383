"""The figures of a report: as JSON, and as one table over the methods in Markdown and CSV."""

from __future__ import annotations

import csv
import io
import platform
from collections import Counter
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..evaluation.averages import differences
from ..evaluation.metrics import average_precision_at, recall_at
from ..evaluation.results import Evaluation, labels
from .study import Question, Study

_CURVE_POINTS = 40


def figures(study: Study) -> dict[str, Any]:
    """Everything that a report says in numbers, ready for `json.dumps`."""
    first = study.evaluations[0]
    names = labels(study.evaluations)
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            "fti4cir": version("fti4cir"),
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
        "benchmark": first.benchmark,
        "split": first.split,
        "protocol": first.protocol,
        "model": first.model,
        "queries": first.queries,
        "gallery": first.gallery,
        "missing": first.missing,
        "compared_by": study.compared_by,
        "labels": names,
        "shown": [name for name in first.per_query if name in {*first.shown, study.compared_by}],
        "evaluations": [evaluation.to_json() for evaluation in study.evaluations],
        "differences": differences(study.evaluations, list(first.per_query)),
        "curves": {name: curves(study, one) for name, one in zip(names, study.evaluations, strict=True)},
        "ceiling": _ceiling(study),
        "words": _words(study),
        "latent": [{"num_latent": count, **_short(evaluation)} for count, evaluation in study.latent],
    }


def _short(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "method": evaluation.method,
        "model": evaluation.model,
        "metrics": evaluation.metrics(),
        "intervals": {name: list(ends) for name, ends in evaluation.intervals().items()},
    }


def _words(study: Study) -> dict[str, Any] | None:
    if study.words is None:
        return None
    counted = Counter(study.words.counts.tolist())
    return {
        "method": study.words.evaluation.method,
        "model": study.words.evaluation.model,
        "most": study.words.most,
        "threshold": study.words.threshold,
        "pictures": len(study.words.counts),
        "histogram": {str(count): counted[count] for count in sorted(counted)},
        "limited": [{"most": most, **_short(evaluation)} for most, evaluation in study.words.limited],
    }


# -- curves -------------------------------------------------------------------------------------------------


def hits(questions: tuple[Question, ...], ranking: NDArray[np.int64], counted: bool = False) -> NDArray[np.bool_]:
    """Which ranks of a ranking (Q, depth) hold a right answer, or one that R@k counts."""
    found = np.zeros(ranking.shape, dtype=bool)
    for row, question in enumerate(questions):
        found[row] = np.isin(ranking[row], question.counted if counted else question.targets)
    return found


def curves(study: Study, evaluation: Evaluation) -> dict[str, list[float]]:
    """R@k, and mAP@k where the benchmark has it, at some k from 1 to the depth of the ranking."""
    cuts = _cuts(evaluation)
    ranks, relevant = _by_rank(study.questions, evaluation.ranking, counted=True)
    recalls = [recall_at(ranks, relevant, k) for k in cuts]
    if study.one_is_enough:
        recalls = [np.ceil(recall) for recall in recalls]
    drawn: dict[str, list[float]] = {"k": [float(k) for k in cuts]}
    drawn["R"] = [float(np.mean(recall)) for recall in recalls]
    if any(metric.startswith("mAP@") for metric in evaluation.per_query):
        ranks, relevant = _by_rank(study.questions, evaluation.ranking, counted=False)
        drawn["mAP"] = [float(average_precision_at(ranks, relevant, k).mean()) for k in cuts]
    return drawn


def _cuts(evaluation: Evaluation) -> list[int]:
    depth = evaluation.ranking.shape[1]
    return sorted({round(k) for k in np.geomspace(1, depth, _CURVE_POINTS)})


def _by_rank(
    questions: tuple[Question, ...], ranking: NDArray[np.int64], counted: bool
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """A ranking and its right answers as metrics take them, of a gallery that holds only what matters.

    Each query's gallery is what it ranked, in that order, and behind it the right answers that it did not find:
    (Q, depth + most missed) instead of a table as wide as the real gallery.
    """
    found = hits(questions, ranking, counted)  # (Q, depth)
    targets = np.array([len(question.counted if counted else question.targets) for question in questions])
    missed = targets - found.sum(axis=1)
    behind = np.arange(missed.max(initial=0)) < missed[:, None]
    ranks = np.tile(np.arange(ranking.shape[1]), (len(ranking), 1))
    return ranks, np.concatenate([found, behind], axis=1)


def _ceiling(study: Study) -> list[float]:
    """What R@k a perfect ranking would have at the k of the curves."""
    if study.one_is_enough:
        return [1.0 for _ in _cuts(study.evaluations[0])]
    counts = np.array([len(question.counted) for question in study.questions])
    return [float((np.minimum(counts, k) / counts).mean()) for k in _cuts(study.evaluations[0])]


# -- tables -------------------------------------------------------------------------------------------------


def markdown(summary: dict[str, Any]) -> str:
    """The figures' table over the methods, to paste into a document."""
    evaluations = summary["evaluations"]
    metrics = summary["shown"]
    lines = [
        f"{summary['benchmark']}, {summary['split']}: {summary['protocol']}",
        "",
        f"{summary['queries']} queries over {summary['gallery']} {answers(summary)}, {' '.join(models(summary))}; "
        f"fractions with 95 % bootstrap intervals; fti4cir {summary['versions']['fti4cir']}, {summary['date'][:10]}.",
    ]
    if summary["missing"]:
        lines += ["", f"**{summary['missing']} images are missing: these figures are not comparable with others.**"]
    rows = [[name, *_cells(one, metrics)] for name, one in zip(summary["labels"], evaluations, strict=True)]
    lines += ["", *_grid(["method", *metrics], rows)]
    if summary["shown"] != list(evaluations[0]["metrics"]):
        lines += ["", left_out(summary)]
    if summary["differences"]:
        first, *others = summary["labels"]
        each = zip(*(differences_in(summary, metric) for metric in metrics), strict=True)
        rows = [[f"{other} - {first}", *map(_signed, own)] for other, own in zip(others, each, strict=True)]
        lines += ["", f"Difference to {first}, paired by query; * the interval leaves out zero.", ""]
        lines += _grid(["method", *metrics], rows)
    return "\n".join(lines) + "\n"


def left_out(summary: dict[str, Any]) -> str:
    """Which metrics the table leaves out, and why."""
    ceilings = summary["evaluations"][0]["ceilings"]
    names = [name for name in ceilings if name not in summary["shown"]]
    return (
        f"Not shown: {', '.join(names)}. Queries have so many right answers that a perfect ranking would reach "
        f"{', '.join(f'{ceilings[name]:.3f}' for name in names)} only."
    )


def answers(summary: dict[str, Any]) -> str:
    """What the gallery holds."""
    return "captions" if summary["benchmark"] == "descriptions" else "images"


def models(summary: dict[str, Any]) -> tuple[str, str]:
    """The word "model" or "models", and which."""
    names = list(dict.fromkeys(str(evaluation["model"]) for evaluation in summary["evaluations"]))
    return "model" if len(names) == 1 else "models", ", ".join(names)


def differences_in(summary: dict[str, Any], metric: str) -> list[dict[str, Any]]:
    """The differences in one metric, of each evaluation but the first."""
    return [one for one in summary["differences"] if one["metric"] == metric]


def _cells(evaluation: dict[str, Any], metrics: list[str]) -> list[str]:
    cells = []
    for metric in metrics:
        low, high = evaluation["intervals"][metric]
        cells.append(f"{evaluation['metrics'][metric]:.3f} [{low:.3f}, {high:.3f}]")
    return cells


def _signed(one: dict[str, Any]) -> str:
    low, high = one["interval"]
    return f"{one['difference']:+.3f}{'*' if one['significant'] else ''} [{low:+.3f}, {high:+.3f}]"


def _grid(header: list[str], rows: list[list[str]]) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (header, ["---", *("---:" for _ in header[1:])], *rows)]


def comma_separated(summary: dict[str, Any]) -> str:
    """The same table as CSV, one line for each method and metric."""
    compared = {(one["method"], one["model"], one["metric"]): one for one in summary["differences"]}
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([
        "benchmark", "split", "model", "method", "metric", "value", "low", "high",
        "difference", "difference_low", "difference_high", "significant",
    ])  # fmt: skip
    for evaluation in summary["evaluations"]:
        for metric, value in evaluation["metrics"].items():
            one = compared.get((evaluation["method"], evaluation["model"], metric))
            difference = [one["difference"], *one["interval"], one["significant"]] if one else [""] * 4
            about = [evaluation[name] for name in ("benchmark", "split", "model", "method")]
            writer.writerow([*about, metric, value, *evaluation["intervals"][metric], *difference])
    return file.getvalue()
