"""FTI4CIR against image, text and their weighted sum on held-out images whose attributes are known.

    python research/train_mini_inversion.py prepare --data DATA --work WORK
    python research/attributes.py --work WORK [--model mini --model DIR ...] [--limit 3000]

The weight of the sum is the best of a grid on images that were trained on. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import fti4cir
from fti4cir.benchmarks import attributes
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.evaluation.results import compare
from fti4cir.methods.registry import create

# name: table, changed column, kept columns, template
TASKS = {
    "colour": ("shop", "baseColour", ["articleType"], "in {value}"),
    "colour, same audience": ("shop", "baseColour", ["articleType", "gender"], "in {value}"),
    "audience": ("shop", "gender", ["articleType", "baseColour"], "for {value}"),
    "kind": ("shop", "articleType", ["baseColour", "gender"], "{value}"),
    "domain": ("art", "domain", ["class"], "as a {value}"),
}
WEIGHTS = [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]


def load(work: Path, part: str, task: str, limit: int) -> Any:
    table, change, keep, template = TASKS[task]
    root = work / ("pictures" if part == "train" else "held_out")
    return attributes.load(root, work / f"{part}_{table}.csv", "path", change, keep, template, limit=limit)


def best_weight(work: Path, task: str, model: fti4cir.Model, limit: int) -> float:
    benchmark = load(work, "train", task, limit)
    methods = [create("sum", model, image_weight=weight) for weight in WEIGHTS]
    scores = [
        result.metrics()["mAP@10"] for result in evaluate(benchmark, model.encoder, methods=methods, model=model.name)
    ]
    return WEIGHTS[scores.index(max(scores))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", action="append", help="default mini; several must share one encoder")
    parser.add_argument("--task", action="append", choices=list(TASKS))
    parser.add_argument("--limit", type=int, default=3000)
    parser.add_argument("--weight", type=float, help="of the sum, instead of the best one on training images")
    options = parser.parse_args()
    models = [fti4cir.load(name) for name in options.model or ["mini"]]
    first = models[0]
    report: dict[str, Any] = {}
    for task in options.task or TASKS:
        started = time.monotonic()
        weight = options.weight if options.weight is not None else best_weight(options.work, task, first, 1500)
        benchmark = load(options.work, "held_out", task, options.limit)
        methods = [create("image", first), create("text", first), create("sum", first, image_weight=weight)]
        methods += [create("fti4cir", model) for model in models]
        results = evaluate(benchmark, first.encoder, methods=methods, model=first.name)
        names = ["image", "text", "sum", *(f"fti4cir {model.name}" for model in models)]
        table: dict[str, Any] = {"protocol": benchmark.protocol, "image weight of sum": weight}
        for name, result in zip(names, results, strict=True):
            table[name] = {"mAP@10": result.metrics()["mAP@10"], "interval": result.intervals()["mAP@10"]}
        for name, result in zip(names[3:], results[3:], strict=True):
            margin = compare(result, results[2], metric="mAP@10")
            table[f"{name} - sum"] = {"mAP@10": margin.mean, "interval": [margin.low, margin.high]}
        report[task] = table
        line = ", ".join(f"{name} {table[name]['mAP@10']:.3f}" for name in names)
        print(f"{task}: {line} ({time.monotonic() - started:.0f} s)", file=sys.stderr)
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
