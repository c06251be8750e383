"""The limits of an encoder on the tasks of methods.py: what its features contain, and what its texts find.

    python research/train_mini_inversion.py prepare --data DATA --work WORK
    python research/ceilings.py --data DATA --work WORK > ceilings.json

`probes`: how well a linear classifier, trained on the training images, reads a fact of a held-out one from the
global feature, from the local features (the class token, the mean and the maximum of the others), and from both.
`tasks`: mAP@10 of a sentence that says in plain words what is sought ("a red t-shirt for men"), with the reference's
other facts as they are in the table, and as the probe reads them from the global feature. The first is what perfect
pseudo-words might reach, the second what this encoder's images allow. Prints JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

import fti4cir
import mini_data
import script
from attribute_tasks import TASKS, describe, feature_cache, load_task
from fti4cir.benchmarks.base import Benchmark
from fti4cir.captions.table import load_captioned_images
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.features.cache import compute
from fti4cir.methods.registry import create
from mini_data import LabelledImage

# set: the facts that its captions state
FACTS = {"fashion_products": ("kind", "colour", "audience"), "art_domains": ("kind", "domain")}
Facts = Mapping[str, str]


def views(image: NDArray[np.float32], local: NDArray[Any]) -> dict[str, torch.Tensor]:
    """Features (N, D) and (N, P, V) as the probes see them."""
    unit = F.normalize(torch.from_numpy(np.array(image, np.float32)), dim=-1)
    tokens = torch.from_numpy(np.array(local, np.float32))
    pooled = torch.cat([tokens[:, 0], tokens[:, 1:].mean(dim=1), tokens[:, 1:].amax(dim=1)], dim=1)
    return {"global": unit, "local": pooled, "both": torch.cat([unit, pooled], dim=1)}


def probe(known: torch.Tensor, values: Sequence[str], *, asked: torch.Tensor, epochs: int = 25) -> list[str]:
    """The value of each row of `asked`, by a linear classifier of standardised features (cross-entropy)."""
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


def _accuracy(predicted: Sequence[str], true: Sequence[str]) -> float:
    return float(np.mean([one == other for one, other in zip(predicted, true, strict=True)]))


def measure_probes(
    work: Path, model: fti4cir.Model, images: Sequence[LabelledImage]
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, str]]]:
    """The accuracy of each view for each fact, and the facts of held-out images as read from the global feature."""
    source = load_captioned_images(work / "images", work / "captions.jsonl")
    features = compute(work / "features", model.encoder, source)
    assert features.local is not None
    row_of = {name: row for row, name in enumerate(source.names)}
    facts = {image.name: image.facts for image in images}
    scores: dict[str, dict[str, float]] = {}
    read: dict[str, dict[str, str]] = {}
    for set_name, stated in FACTS.items():
        known = [image.name for image in images if image.set == set_name and image.name in row_of]
        asked = [image.name for image in images if image.set == set_name and image.held_out]
        rows = [row_of[name] for name in known]
        training = views(features.image[rows], features.local[rows])
        held_out = model.features([work / "held_out" / name for name in asked])
        testing = views(held_out.image.numpy(), held_out.local.numpy())
        for fact in stated:
            values, true = [facts[name][fact] for name in known], [facts[name][fact] for name in asked]
            found = {view: probe(training[view], values, asked=testing[view]) for view in training}
            for name, value in zip(asked, found["global"], strict=True):
                read.setdefault(name, {})[fact] = value
            accuracy = {view: _accuracy(predicted, true) for view, predicted in found.items()}
            scores[f"{set_name}, {fact}"] = accuracy
            script.progress.info(f"{set_name}, {fact}: {accuracy}")
    return scores, read


def with_sentences(
    benchmark: Benchmark,
    task: str,
    *,
    names: Sequence[str],
    facts: Mapping[str, Facts],
    reference_facts: Mapping[str, Facts],
) -> Benchmark:
    """The benchmark with a sentence that states what is sought in place of each modification.

    The changed fact is the target's, from `facts`; the others are the reference image's, from `reference_facts`.
    """
    changed = "domain" if task == "sketch" else task  # the other tasks are called by the fact that they change
    queries = []
    for query in benchmark.queries:
        target = facts[names[query.targets[0]]]
        sought = {**reference_facts[names[query.reference]], changed: target[changed]}
        queries.append(replace(query, texts=(describe(sought),)))
    return replace(benchmark, queries=tuple(queries))


def measure_task(
    work: Path, task: str, *, model: fti4cir.Model, facts: Mapping[str, Facts], read: Mapping[str, Facts], limit: int
) -> dict[str, float]:
    """mAP@10 of sentences with the true facts, and with those that the probe read."""
    benchmark = load_task(work, task, part="test", limit=limit)
    names = [path.relative_to(work / "held_out").as_posix() for path in benchmark.gallery.paths]
    scores = {}
    for words, reference_facts in (("true words", facts), ("words read", read)):
        stated = with_sentences(benchmark, task, names=names, facts=facts, reference_facts=reference_facts)
        cache = feature_cache(work, task, part="held_out")
        [result] = evaluate(stated, model.encoder, methods=[create("text", model)], model=model.name, cache=cache)
        scores[words] = result.metrics()["mAP@10"]
    script.progress.info(f"{task}: {scores}")
    return {**scores, "queries": len(benchmark.queries)}


def main() -> None:
    """Measure and print."""
    parser = script.parser(__doc__)
    script.add_data(parser)
    script.add_work(parser)
    parser.add_argument("--limit", type=int, default=1500, help="queries of each task at most (default %(default)s)")
    options = parser.parse_args()
    script.log_progress()
    model = fti4cir.load("mini")
    images = mini_data.load(options.data)
    facts = {image.name: image.facts for image in images}
    probes, read = measure_probes(options.work, model, images)
    tasks = {
        task: measure_task(options.work, task, model=model, facts=facts, read=read, limit=options.limit)
        for task in TASKS
    }
    print(json.dumps({"probes": probes, "tasks": tasks}, indent=1))


if __name__ == "__main__":
    main()
