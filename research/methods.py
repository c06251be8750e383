"""Every method on one encoder and held-out real images, with several seeds: the proof behind docs/results.md.

    python research/train_mini_inversion.py prepare --data DATA --work WORK
    python research/methods.py train --work WORK --models MODELS [--jobs fti4cir pic2word ...]
    python research/methods.py measure --data DATA --work WORK --models MODELS > results.json
    python research/methods.py table results.json > table.md

MODELS holds a folder for each trained model, NAME_sSEED. The figures of a NAME are means over its seeds. The interval
is a bootstrap over the queries of that mean, and every comparison is paired by query. The held-out images ask in two
parts: recipes are chosen on `--part validation`, a quarter, and published figures are those of `--part test`. The
weight of the sum is the best of a grid on images that were trained on. For captions it is the best on the part
`validation`, even when that part is the one that is scored.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import fti4cir
import script
from attribute_tasks import TASKS, best_weight, feature_cache, load_task, table_captions
from caption_tasks import Measured, Models, measure_captions
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.evaluation.metrics import bootstrap_interval, paired_bootstrap
from fti4cir.methods import registry
from fti4cir.methods.base import Method
from fti4cir.methods.caption import Captioned
from fti4cir.methods.registry import create
from fti4cir.methods.searle_oti import OptimizedInversion
from tables import figures_table, margins_table, variants_table

CAPTION_TASKS = {"edited captions": "mAP@10", "descriptions": "R@10"}
SEEDS = (0, 1, 2)

# name: preset, changes. One pass over the images with our presets; a method with cheaper steps gets as much time. The
# learning rates of pic2word and lincir are the best of 1e-4, 3e-4 and 1e-3 on the part `validation`; for searle 1e-3 is
# no better than its own 1e-4.
JOBS: dict[str, tuple[str, dict[str, Any]]] = {
    "fti4cir": ("composed", {"epochs": 1}),
    "fti4cir, paper": ("paper", {"epochs": 2, "bfloat16": True}),
    "pic2word": ("pic2word-quick", {"epochs": 5, "learning_rate": 1e-3}),
    "searle": ("searle-quick", {"epochs": 5, "inversion.steps": 8}),
    "lincir": ("lincir-quick", {"epochs": 2, "learning_rate": 1e-3}),
    "no composed losses": (
        "composed",
        {"epochs": 1, "weights.composed": 0.0, "weights.composed_image": 0.0},
    ),
    "no description loss": ("composed", {"epochs": 1, "weights.description": 0.0}),
    "no word lists": ("composed", {"epochs": 1, "word_edits": 0.0}),
    **{
        name.removeprefix("composed-").replace("-", " "): (name, {"epochs": 1})
        for name in registry.presets()
        if name.startswith("composed-")
    },
    **{
        f"K = {count}": (
            "composed",
            {"epochs": 1, "network.num_latent": count, "network.max_attributes": min(12, count)},
        )
        for count in (4, 8, 48)
    },
}


def train(work: Path, models: Path, *, jobs: Iterable[str], seeds: Iterable[int]) -> None:
    """Train what is missing; resumable."""
    for seed in seeds:
        for name in jobs:
            preset, changes = JOBS[name]
            registry.train(
                registry.preset(preset, **changes, seed=seed), work / "images", work / "captions.jsonl", "mini",
                models / f"{name}_s{seed}", resume=True, features=work / "features",
            )  # fmt: skip


def load_models(folder: Path) -> dict[str, list[fti4cir.Model]]:
    """The models that were trained, one for each seed, by the name of the job."""
    models: dict[str, list[fti4cir.Model]] = defaultdict(list)
    for path in sorted(folder.iterdir()):
        found = re.fullmatch(r"(.+)_s(\d+)", path.name)
        if found and (path / "model.safetensors").exists():
            models[found[1]].append(fti4cir.load(path))
    return models


def methods_of(models: Models, *, weight: float, captions: dict[Path, str]) -> list[tuple[str, Method]]:
    """Every method to measure, by name; a name comes once for each seed."""
    first = next(iter(models.values()))[0]
    methods: list[tuple[str, Method]] = [
        ("image", create("image", first)),
        ("text", create("text", first)),
        ("sum", create("sum", first, image_weight=weight)),
        ("caption", Captioned(first, captions)),
    ]
    methods += [(name, create(model.method, model)) for name, group in models.items() for model in group]
    if "searle" in models:
        # The words that the network learned from had as many steps.
        methods.append(("searle-oti", OptimizedInversion(models["searle"][0], JOBS["searle"][1]["inversion.steps"])))
    return methods


def measure_attributes(
    work: Path, task: str, *, part: str, models: Models, limit: int, captions: dict[Path, str]
) -> Measured:
    """mAP@10 of each method on one of TASKS."""
    first = next(iter(models.values()))[0]
    benchmark = load_task(work, task, part=part, limit=limit)
    training = load_task(work, task, part="train", limit=1000)
    weight = best_weight(training, first, cache=feature_cache(work, task, part="train"))
    methods = methods_of(models, weight=weight, captions=captions)
    found = evaluate(
        benchmark, first.encoder, methods=[method for _, method in methods], model=first.name,
        cache=feature_cache(work, task, part="held_out"),
    )  # fmt: skip
    figures: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for (name, _), result in zip(methods, found, strict=True):
        figures[name].append(result.per_query["mAP@10"])
    return Measured(
        {name: np.stack(rows) for name, rows in figures.items()},
        np.array([query.reference for query in benchmark.queries]),
        {"protocol": benchmark.protocol, "image weight of sum": weight, "queries": len(benchmark.queries)},
    )


def summarize(figures: dict[str, NDArray[np.float64]], groups: NDArray[np.int64], *, ours: str) -> dict[str, Any]:
    """Mean over seeds and queries with its interval, the figure of each seed, and what `ours` is better by."""
    report: dict[str, Any] = {}
    for name, rows in figures.items():
        mean = rows.mean(axis=0)
        low, high = bootstrap_interval(mean[:, None], groups)
        entry: dict[str, Any] = {
            "mean": float(mean.mean()),
            "interval": [float(low[0]), float(high[0])],
            "seeds": [float(row.mean()) for row in rows],
        }
        if ours in figures and name != ours:
            difference = paired_bootstrap(figures[ours].mean(axis=0), mean, groups)
            entry["ours is better by"] = {"mean": difference.mean, "interval": [difference.low, difference.high]}
        report[name] = entry
    return report


def measure(
    data: Path, work: Path, *, models: Models, part: str, limit: int, only: Sequence[str], ours: str
) -> dict[str, Any]:
    """All tasks, or `only` some, for all models."""
    report: dict[str, Any] = {}

    def add(task: str, measured: Measured, *, metric: str, seconds: float) -> None:
        methods = summarize(measured.figures, measured.groups, ours=ours)
        report[task] = {**measured.summary, "metric": metric, "methods": methods}
        line = ", ".join(f"{name} {figures['mean']:.3f}" for name, figures in methods.items())
        script.progress.info(f"{task}: {line} ({seconds:.0f} s)")

    captions = table_captions(data, work)
    for task in TASKS:
        if not only or task in only:
            started = time.monotonic()
            measured = measure_attributes(work, task, part=part, models=models, limit=limit, captions=captions)
            add(task, measured, metric="mAP@10", seconds=time.monotonic() - started)
    if not only or CAPTION_TASKS.keys() & set(only):
        started = time.monotonic()
        both = measure_captions(data, work, part=part, models=models, limit=limit)
        for task, measured in both.items():
            add(task, measured, metric=CAPTION_TASKS[task], seconds=time.monotonic() - started)
    return report


def parse() -> argparse.Namespace:
    """The stage and its options."""
    parser = script.parser(__doc__)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="train | measure | table")
    training = stages.add_parser("train", help="train the models that are missing")
    script.add_work(training)
    training.add_argument("--models", type=Path, required=True, help="folder for the models; made if missing")
    training.add_argument(
        "--jobs", nargs="+", default=list(JOBS), choices=list(JOBS), metavar="JOB", help="default all"
    )
    training.add_argument("--seed", type=int, action="append", help="may be repeated; by default 0, 1 and 2")
    measuring = stages.add_parser("measure", help="measure all models; prints JSON")
    script.add_data(measuring)
    script.add_work(measuring)
    measuring.add_argument("--models", type=script.existing_folder, required=True, help="folder that `train` filled")
    measuring.add_argument(
        "--task", action="append", default=[], choices=[*TASKS, *CAPTION_TASKS], help="may be repeated; by default all"
    )
    measuring.add_argument("--part", choices=["validation", "test"], default="test", help="of the held-out images")
    measuring.add_argument("--limit", type=int, default=1500, help="queries of each task at most (default %(default)s)")
    table = stages.add_parser("table", help="print the JSON of `measure` as Markdown tables")
    table.add_argument("results", type=Path, help="what `measure` printed")
    for stage in (measuring, table):
        stage.add_argument(
            "--ours", default="fti4cir", help="job that the others are compared with (default %(default)s)"
        )
    return parser.parse_args()


def main() -> None:
    """Run one stage."""
    options = parse()
    script.log_progress()
    if options.stage == "train":
        train(options.work, options.models, jobs=options.jobs, seeds=options.seed or SEEDS)
    elif options.stage == "measure":
        models = load_models(options.models)
        if not models:
            sys.exit(f"'{options.models}' has no trained model: run `python research/methods.py train` first.")
        report = measure(
            options.data, options.work, models=models, part=options.part, limit=options.limit, only=options.task,
            ours=options.ours,
        )  # fmt: skip
        print(json.dumps(report, indent=1))
    else:
        if not options.results.is_file():
            sys.exit(f"There is no file '{options.results}'.")
        report = json.loads(options.results.read_text(encoding="utf-8"))
        tables = figures_table(report), margins_table(report, options.ours), variants_table(report, options.ours)
        print(*tables, sep="\n\n")


if __name__ == "__main__":
    main()
