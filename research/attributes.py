"""FTI4CIR against image, text and their weighted sum on held-out images whose attributes are known.

    python research/train_mini_inversion.py prepare --data DATA --work WORK
    python research/attributes.py --work WORK [--model mini --model DIR ...] [--limit 3000]

The weight of the sum is the best of a grid on images that were trained on. Prints JSON.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import attribute_tasks
import fti4cir
import script
from attribute_tasks import Task, best_weight
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.evaluation.results import compare
from fti4cir.methods.base import Method
from fti4cir.methods.registry import create

TASKS = {
    "colour": attribute_tasks.TASKS["colour"],
    "colour, same audience": Task("shop", "baseColour", ("articleType", "gender"), "in {value}"),
    **{name: attribute_tasks.TASKS[name] for name in ("audience", "kind", "domain")},
}


def measure(work: Path, task: str, *, models: list[fti4cir.Model], weight: float | None, limit: int) -> dict[str, Any]:
    """mAP@10 of each method with its interval, and what each model is better by than the sum."""
    first = models[0]
    if weight is None:
        weight = best_weight(TASKS[task].load(work, part="train", limit=1500), first)
    benchmark = TASKS[task].load(work, part="held_out", limit=limit)
    methods: list[Method] = [create("image", first), create("text", first), create("sum", first, image_weight=weight)]
    methods += [create("fti4cir", model) for model in models]
    results = evaluate(benchmark, first.encoder, methods=methods, model=first.name)
    names = ["image", "text", "sum", *(f"fti4cir {model.name}" for model in models)]
    report: dict[str, Any] = {"protocol": benchmark.protocol, "image weight of sum": weight}
    for name, result in zip(names, results, strict=True):
        report[name] = {"mAP@10": result.metrics()["mAP@10"], "interval": result.intervals()["mAP@10"]}
    for name, result in zip(names[3:], results[3:], strict=True):
        margin = compare(result, results[2], metric="mAP@10")
        report[f"{name} - sum"] = {"mAP@10": margin.mean, "interval": [margin.low, margin.high]}
    return report


def main() -> None:
    """Measure and print."""
    parser = script.parser(__doc__)
    script.add_work(parser)
    parser.add_argument("--model", action="append", help="may be repeated if all share one encoder; default mini")
    parser.add_argument("--task", action="append", choices=list(TASKS), help="may be repeated; default all")
    parser.add_argument("--limit", type=int, default=3000, help="queries of each task at most (default %(default)s)")
    parser.add_argument("--weight", type=float, help="of the sum, instead of the best one on training images")
    options = parser.parse_args()
    script.log_progress()
    models = [script.load_model(name) for name in options.model or ["mini"]]
    report: dict[str, Any] = {}
    for task in options.task or TASKS:
        started = time.monotonic()
        report[task] = measure(options.work, task, models=models, weight=options.weight, limit=options.limit)
        scores = [f"{name} {entry['mAP@10']:.3f}" for name, entry in report[task].items() if isinstance(entry, dict)]
        script.progress.info(f"{task}: {', '.join(scores)} ({time.monotonic() - started:.0f} s)")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
