"""How far words can take an encoder on the tasks of methods.py: what its features hold, and what its texts find.

    python research/train_mini_inversion.py prepare --data DATA --work WORK
    python research/ceilings.py --data DATA --work WORK > ceilings.json

`probes`: how well a linear classifier, trained on the training images, reads a fact of a held-out one from the
global feature, from the local features (the class token, the mean and the maximum of the others), and from both.
`tasks`: mAP@10 of a sentence that says in plain words what is sought ("a red t-shirt for men"), with the reference's
other facts as they are in the table, and as the probe reads them from the global feature. The first is what perfect
pseudo-words might reach, the second what one may hope for from this encoder's images. Prints JSON.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

import fti4cir
import mini_data
from fti4cir.benchmarks.base import Benchmark
from fti4cir.captions.table import load_captioned_images
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.features.cache import compute
from fti4cir.methods.registry import create
from methods import TASKS, describe, load_task

# set: the facts that its captions tell
FACTS = {"fashion_products": ("kind", "colour", "audience"), "art_domains": ("kind", "domain")}
Facts = Mapping[str, str]


def views(image: NDArray[np.float32], local: NDArray[Any]) -> dict[str, torch.Tensor]:
    """Features (N, D) and (N, P, V) as the probes see them."""
    unit = F.normalize(torch.from_numpy(np.array(image, np.float32)), dim=-1)
    tokens = torch.from_numpy(np.array(local, np.float32))
    pooled = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1), tokens[:, 1:].amax(dim=1)], dim=1)
    return {"global": unit, "local": pooled, "both": torch.cat([unit, pooled], dim=1)}


def probe(known: torch.Tensor, values: Sequence[str], asked: torch.Tensor, epochs: int = 25) -> list[str]:
    """A linear classifier of standardised features, trained with cross-entropy: the value of each asked row."""
    classes = sorted(set(values))
    targets = torch.tensor([classes.index(value) for value in values])
    mean, deviation = known.mean(dim=0), known.std(dim=0) + 1e-6
    known, asked = (known - mean) / deviation, (asked - mean) / deviation
    torch.manual_seed(0)
    classifier = torch.nn.Linear(known.shape[1], len(classes))
    optimizer = torch.optim.AdamW(classifier.parameters(), 2e-3, weight_decay=0.05)
    for _ in range(epochs):
        for rows in torch.randperm(len(known)).split(256):
            optimizer.zero_grad()
            F.cross_entropy(classifier(known[rows]), targets[rows]).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        return [classes[number] for number in classifier(asked).argmax(dim=1).tolist()]


def said(
    benchmark: Benchmark, task: str, names: Sequence[str], facts: Mapping[str, Facts], shown: Callable[[str], Facts]
) -> Benchmark:
    """The benchmark with a sentence in the place of each modification: what is sought, in plain words.

    Of what is sought, the changed fact is as `facts` tell it, the others as `shown` tells them of the reference.
    """
    changed = "domain" if task == "sketch" else task  # the other tasks are called by the fact that they change
    queries = []
    for query in benchmark.queries:
        sought = {**shown(names[query.reference]), changed: facts[names[query.targets[0]]][changed]}
        queries.append(replace(query, texts=(describe(sought),)))
    return replace(benchmark, queries=tuple(queries))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=1500)
    options = parser.parse_args()
    logging.basicConfig(format="%(message)s", level=logging.INFO)
    work = options.work
    model = fti4cir.load("mini")
    source = load_captioned_images(work / "pictures", work / "captions.jsonl")
    features = compute(work / "features", model.encoder, source)
    assert features.local is not None
    row_of = {name: row for row, name in enumerate(source.names)}
    pictures = mini_data.load(options.data)
    facts = {picture.name: picture.facts for picture in pictures}
    read: dict[str, dict[str, str]] = {}
    report: dict[str, Any] = {"probes": {}, "tasks": {}}
    for set_name, told in FACTS.items():
        known = [picture.name for picture in pictures if picture.set == set_name and picture.name in row_of]
        asked = [picture.name for picture in pictures if picture.set == set_name and picture.held_out]
        rows = [row_of[name] for name in known]
        own = views(features.image[rows], features.local[rows])
        held_out = model.features([work / "held_out" / name for name in asked])
        other = views(held_out.image.numpy(), held_out.local.numpy())
        for fact in told:
            scores = {}
            for view in own:
                found = probe(own[view], [facts[name][fact] for name in known], other[view])
                scores[view] = float(
                    np.mean([value == facts[name][fact] for name, value in zip(asked, found, strict=True)])
                )
                if view == "global":
                    for name, value in zip(asked, found, strict=True):
                        read.setdefault(name, {})[fact] = value
            report["probes"][f"{set_name}, {fact}"] = scores
            _note(f"{set_name}, {fact}: {scores}")
    for task in TASKS:
        benchmark = load_task(work, "test", task, options.limit)
        names = [path.relative_to(work / "held_out").as_posix() for path in benchmark.gallery.paths]
        scores = {}
        for words, shown in (("true words", facts.__getitem__), ("words read", read.__getitem__)):
            asked_for = said(benchmark, task, names, facts, shown)
            cache = work / "evaluation" / f"held_out-{TASKS[task][0]}"
            result = evaluate(asked_for, model.encoder, methods=[create("text", model)], model=model.name, cache=cache)[
                0
            ]
            scores[words] = result.metrics()["mAP@10"]
        report["tasks"][task] = {**scores, "queries": len(benchmark.queries)}
        _note(f"{task}: {scores}")
    print(json.dumps(report, indent=1))


def _note(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
