"""Every method on one encoder and held-out real images, with several seeds: the proof behind docs/results.md.

    python research/train_mini_inversion.py prepare --data DATA --work WORK
    python research/methods.py train --work WORK --models MODELS [--jobs fti4cir,pic2word,...]
    python research/methods.py measure --data DATA --work WORK --models MODELS > results.json
    python research/methods.py table results.json > table.md

MODELS holds a folder a trained model, NAME_sSEED. The figures of a NAME are means over its seeds; the interval is a
bootstrap over the queries of that mean, and every comparison is paired by query. The held-out images ask in two
parts: recipes are chosen on `--part validation`, a quarter, and published figures are those of `--part test`. The
weight of the sum is the best of a grid on images that were trained on; for captions, on the part `validation`, where
those are the very queries that are scored.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fti4cir
import mini_data
from edits import edit
from fti4cir.backbones.base import VisionFeatures
from fti4cir.benchmarks import attributes
from fti4cir.benchmarks.base import Benchmark
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.evaluation.metrics import average_precision_at, bootstrap_interval, paired_bootstrap, rank, recall_at
from fti4cir.inversion.compose import encode_sentences
from fti4cir.methods import registry
from fti4cir.methods.base import Method
from fti4cir.methods.caption import Captioned
from fti4cir.methods.registry import create
from fti4cir.methods.searle_oti import OptimizedInversion
from fti4cir.models.queries import Queries

# name: table, changed column, kept columns, template
TASKS = {
    "colour": ("shop", "baseColour", ["articleType"], "in {value}"),
    "audience": ("shop", "gender", ["articleType", "baseColour"], "for {value}"),
    "kind": ("shop", "articleType", ["baseColour", "gender"], "{value}"),
    "domain": ("art", "domain", ["class"], "as a {value}"),
    "sketch": ("art", "domain", ["class"], "as a {value}"),
}
BASELINES = ("image", "text", "sum", "caption", "pic2word", "searle-oti", "searle", "lincir")
WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SEEDS = (0, 1, 2)

# name: preset, changes. One pass over the images with our presets; what costs less a step gets as much time. The
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


def train(work: Path, models: Path, jobs: Iterable[str], seeds: Iterable[int]) -> None:
    """Train what is not there yet; resumable."""
    for seed in seeds:
        for name in jobs:
            preset, changes = JOBS[name]
            registry.train(
                registry.preset(preset, **changes, seed=seed), work / "pictures", work / "captions.jsonl", "mini",
                models / f"{name}_s{seed}", resume=True, features=work / "features",
            )  # fmt: skip


def belongs(picture: str, part: str) -> bool:
    """Whether a held-out image asks in the part `validation`, on which recipes are chosen, or in `test`."""
    return (hashlib.sha256(picture.encode()).digest()[0] < 64) == (part == "validation")


def load_task(work: Path, part: str, task: str, limit: int) -> Benchmark:
    """A task's queries among the images that were trained on (`train`), or among those that were not.

    The two other parts, `validation` and `test`, share a gallery, but no query's image.
    """
    table, change, keep, template = TASKS[task]
    folder, prefix = ("pictures", "train") if part == "train" else ("held_out", "held_out")
    root = work / folder
    whole = attributes.load(root, work / f"{prefix}_{table}.csv", "path", change, keep, template)
    names = [path.relative_to(root).as_posix() for path in whole.gallery.paths]
    chosen = [
        number
        for number, query in enumerate(whole.queries)
        if (task != "sketch" or query.texts == ("as a sketch",))
        and (part == "train" or belongs(names[query.reference], part))
    ]
    whole = replace(
        whole,
        queries=tuple(whole.queries[number] for number in chosen),
        values=tuple(whole.values[number] for number in chosen),
    )
    return whole.sample(limit)


def best_weight(work: Path, task: str, model: fti4cir.Model, cache: Path) -> float:
    """The image weight of the sum that is best on images that were trained on."""
    benchmark = load_task(work, "train", task, 1000)
    methods = [create("sum", model, image_weight=weight) for weight in WEIGHTS]
    found = evaluate(
        benchmark, model.encoder, methods=methods, model=model.name, cache=cache / f"train-{TASKS[task][0]}"
    )
    scores = [result.metrics()["mAP@10"] for result in found]
    return WEIGHTS[scores.index(max(scores))]


def describe(facts: Mapping[str, str]) -> str:
    """A caption that says all that a table tells of an image."""
    thing = mini_data.article(f"{facts.get('colour', '')} {facts['kind']}".strip())
    if "domain" in facts:
        return f"{mini_data.article(facts['domain'])} of {thing}"
    return f"{thing} for {facts['audience']}" if "audience" in facts else thing


def table_captions(data: Path, work: Path) -> dict[Path, str]:
    """For each held-out image whose facts a table tells, a caption that says them all: as good as captions get."""
    captions = {}
    for picture in mini_data.load(data):
        facts = picture.facts
        if not picture.held_out or not facts:
            continue
        captions[(work / "held_out" / picture.name).absolute()] = describe(facts)
    return captions


def measure_attributes(
    work: Path, part: str, task: str, models: dict[str, list[fti4cir.Model]], limit: int, captions: dict[Path, str]
) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.int64], dict[str, Any]]:
    """mAP@10 of each method (seeds, queries), what groups the queries, and what else to say."""
    first = next(iter(models.values()))[0]
    cache = work / "evaluation"
    benchmark = load_task(work, part, task, limit)
    weight = best_weight(work, task, first, cache)
    methods: list[Method] = [create("image", first), create("text", first), create("sum", first, image_weight=weight)]
    methods.append(Captioned(first, captions))
    names = ["image", "text", "sum", "caption"]
    for name, group in models.items():
        for model in group:
            methods.append(create(model.method, model))
            names.append(name)
    if "searle" in models:
        # As many steps as the words had that the network learned from.
        methods.append(OptimizedInversion(models["searle"][0], JOBS["searle"][1]["inversion.steps"]))
        names.append("searle-oti")
    found = evaluate(
        benchmark, first.encoder, methods=methods, model=first.name, cache=cache / f"held_out-{TASKS[task][0]}"
    )
    figures: dict[str, list[NDArray[np.float64]]] = defaultdict(list)
    for name, result in zip(names, found, strict=True):
        figures[name].append(result.per_query["mAP@10"])
    return (
        {name: np.stack(rows) for name, rows in figures.items()},
        np.array([query.reference for query in benchmark.queries]),
        {"protocol": benchmark.protocol, "image weight of sum": weight, "queries": len(benchmark.queries)},
    )


class _Asking(NamedTuple):
    """An image of Flickr8k that asks for an edited caption."""

    place: int
    """Of the edited caption in the gallery."""
    picture: Path
    modification: str
    caption: str
    """What the caption method is given for the image."""


def measure_captions(
    data: Path, work: Path, part: str, models: dict[str, list[fti4cir.Model]], limit: int
) -> dict[str, tuple[dict[str, NDArray[np.float64]], NDArray[np.int64], dict[str, Any]]]:
    """The two tasks on Flickr8k whose gallery are captions.

    `edited captions`: an image and a modification find the edited caption, AP@10, among those of all images, edited
    and not. `descriptions`: pseudo-words without a modification find a caption of their image, R@10.
    """
    random_ = random.Random(0)
    first = next(iter(models.values()))[0]
    asking: list[_Asking] = []
    own: list[str] = []  # the captions of all images, and
    owner: list[int] = []  # whose they are
    edited: list[str] = []
    for picture in mini_data.load(data):
        if picture.set != "flickr8k" or not picture.held_out:
            continue
        # The caption method is given another caption than the one that was edited, for else it would know the answer.
        before, other = random_.sample(picture.captions, 2)
        found = edit(before.lower(), random_)
        if found is not None:
            owner += [len(asking)] * len(picture.captions)
            own += [text.lower() for text in picture.captions]
            edited.append(found.caption)
            asking.append(_Asking(len(asking), work / "held_out" / picture.name, found.modification, other.lower()))
    with torch.inference_mode():
        own_features = first.encode_texts(own).numpy()
        gallery = np.concatenate([first.encode_texts(edited).numpy(), own_features])

    def score_edit(method: Method, group: Sequence[_Asking], features: VisionFeatures) -> NDArray[np.float64]:
        texts, paths = [one.modification for one in group], [one.picture for one in group]
        query = method.compose(Queries(features, texts, paths=paths))
        relevant = np.arange(len(gallery)) == np.array([[one.place] for one in group])
        return average_precision_at(rank(query.numpy() @ gallery.T, 10, None), relevant, 10)

    def score_own(query: Tensor, group: Sequence[_Asking]) -> NDArray[np.float64]:
        relevant = np.array(owner) == np.array([[one.place] for one in group])
        return recall_at(rank(query.numpy() @ own_features.T, 10, None), relevant, 10)

    def chosen(part: str) -> tuple[list[_Asking], VisionFeatures]:
        group = [one for one in asking if belongs(one.picture.relative_to(work / "held_out").as_posix(), part)][:limit]
        return group, first.features([one.picture for one in group])

    tuning = chosen("validation")
    means = [score_edit(create("sum", first, image_weight=weight), *tuning).mean() for weight in WEIGHTS]
    weight = WEIGHTS[int(np.argmax(means))]
    group, features = chosen(part)
    with_caption = Captioned(first, {one.picture.absolute(): one.caption for one in group})
    simple: dict[str, Method] = {
        "image": create("image", first),
        "text": create("text", first),
        "sum": create("sum", first, image_weight=weight),
        "caption": with_caption,
    }
    with_edit = {name: [score_edit(method, group, features)] for name, method in simple.items()}
    described = {"image": [score_own(torch.nn.functional.normalize(features.image, dim=-1), group)]}
    for name, seeds in models.items():
        with_edit[name], described[name] = [], []
        for model in seeds:
            with_edit[name].append(score_edit(create(model.method, model), group, features))
            with torch.inference_mode():
                inversion = model.require_inversion()
                words = inversion(features.image, features.local)
                sentence = [inversion.config.sentence()] * len(group)
                whole = torch.nn.functional.normalize(encode_sentences(model.encoder, sentence, words), dim=-1)
            described[name].append(score_own(whole, group))
    groups = np.arange(len(group))
    told = {"queries": len(group), "gallery": len(gallery), "image weight of sum": weight}
    return {
        "edited captions": ({name: np.stack(rows) for name, rows in with_edit.items()}, groups, told),
        "descriptions": (
            {name: np.stack(rows) for name, rows in described.items()}, groups,
            {"queries": len(group), "gallery": len(own)},
        ),
    }  # fmt: skip


def summary(figures: dict[str, NDArray[np.float64]], groups: NDArray[np.int64], ours: str) -> dict[str, Any]:
    """Mean over seeds and queries with its interval, the spread of the seeds, and what `ours` is better by."""
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
    data: Path, work: Path, models_folder: Path, part: str, limit: int, only: Sequence[str], ours: str
) -> dict[str, Any]:
    """All tasks, or `only` some, for all models that were trained."""
    models: dict[str, list[fti4cir.Model]] = defaultdict(list)
    for folder in sorted(models_folder.iterdir()):
        found = re.fullmatch(r"(.+)_s(\d+)", folder.name)
        if found and (folder / "model.safetensors").exists():
            models[found[1]].append(fti4cir.load(folder))
    report: dict[str, Any] = {}
    captions = table_captions(data, work)
    for task in TASKS:
        if only and task not in only:
            continue
        started = time.monotonic()
        figures, groups, told = measure_attributes(work, part, task, models, limit, captions)
        report[task] = {**told, "metric": "mAP@10", "methods": summary(figures, groups, ours)}
        _tell(task, report[task], time.monotonic() - started)
    if not only or {"edited captions", "descriptions"} & set(only):
        for task, (figures, groups, told) in measure_captions(data, work, part, models, limit).items():
            metric = "R@10" if task == "descriptions" else "mAP@10"
            report[task] = {**told, "metric": metric, "methods": summary(figures, groups, ours)}
            _tell(task, report[task], 0.0)
    return report


def _tell(task: str, entry: dict[str, Any], seconds: float) -> None:
    line = ", ".join(f"{name} {figures['mean']:.3f}" for name, figures in entry["methods"].items())
    _note(f"{task}: {line} ({seconds:.0f} s)")


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def table(report: dict[str, Any]) -> str:
    """The report as Markdown: a row a method, a column a task.

    Each figure with half the width of its interval over the queries, and the range of its seeds, which the interval
    leaves out.
    """
    names = list(dict.fromkeys(name for entry in report.values() for name in entry["methods"]))
    lines = [
        "| method | seeds | " + " | ".join(f"{task}, {entry['metric']}" for task, entry in report.items()) + " |",
        "|---|--:|" + "--:|" * len(report),
    ]
    for name in names:
        cells, seeds = [], 1
        for entry in report.values():
            figures = entry["methods"].get(name)
            if figures is None:
                cells.append("")
                continue
            seeds = max(seeds, len(figures["seeds"]))
            low, high = figures["interval"]
            cell = f"{100 * figures['mean']:.1f} ± {50 * (high - low):.1f}"
            if len(figures["seeds"]) > 1:
                cell += f" ({100 * min(figures['seeds']):.1f} to {100 * max(figures['seeds']):.1f})"
            cells.append(cell)
        lines.append(f"| {name} | {seeds} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def margins(report: dict[str, Any], ours: str) -> str:
    """What `ours` is better by than the best baseline of each task, as Markdown."""
    lines = ["| task | best baseline | " + ours + " | more | difference (95 %) |", "|---|---|---|--:|---|"]
    for task, entry in report.items():
        methods = entry["methods"]
        # The image's own feature composes nothing, and for descriptions it is what words can hope to come near to.
        known = [name for name in BASELINES if name in methods and name != "image"]
        best = max(known, key=lambda name: float(methods[name]["mean"]))
        theirs, own = methods[best]["mean"], methods[ours]["mean"]
        lines.append(
            f"| {task} | {best} {100 * theirs:.1f} | {100 * own:.1f} | {100 * (own / theirs - 1):+.0f} % | "
            f"{_points(methods[best])} |"
        )
    return "\n".join(lines)


def worth(report: dict[str, Any], ours: str) -> str:
    """The points that `ours` is better by than its variants, most of which lack a part of it, as Markdown."""
    names = list(dict.fromkeys(name for entry in report.values() for name in entry["methods"]))
    lines = ["| | seeds | " + " | ".join(report) + " |", "|---|--:|" + "--:|" * len(report)]
    for name in names:
        if name in BASELINES or name == ours:
            continue
        found = [entry["methods"].get(name) for entry in report.values()]
        seeds = max(len(figures["seeds"]) for figures in found if figures)
        lines.append(f"| {name} | {seeds} | " + " | ".join(_points(one) if one else "" for one in found) + " |")
    return "\n".join(lines)


def _points(figures: dict[str, Any]) -> str:
    difference = figures["ours is better by"]
    low, high = difference["interval"]
    return f"{100 * difference['mean']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["train", "measure", "table"])
    parser.add_argument("results", type=Path, nargs="?")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--models", type=Path)
    parser.add_argument("--jobs", default=",".join(JOBS))
    parser.add_argument("--seed", type=int, action="append")
    parser.add_argument("--task", action="append", default=[])
    parser.add_argument("--part", choices=["validation", "test"], default="test", help="of the held-out images")
    parser.add_argument("--limit", type=int, default=1500)
    parser.add_argument("--ours", default="fti4cir")
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    if options.stage == "train":
        train(options.work, options.models, options.jobs.split(","), options.seed or SEEDS)
    elif options.stage == "measure":
        print(json.dumps(measure(
            options.data, options.work, options.models, options.part, options.limit, options.task, options.ours
        ), indent=1))  # fmt: skip
    else:
        report = json.loads(options.results.read_text(encoding="utf-8"))
        print(table(report), margins(report, options.ours), worth(report, options.ours), sep="\n\n")


if __name__ == "__main__":
    main()
