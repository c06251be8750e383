"""The two tasks of methods.py whose gallery is captions of Flickr8k.

`edited captions`: an image and a modification find the edited caption, AP@10, among those of all images, edited and
not. `descriptions`: pseudo-words without a modification find a caption of their image, R@10.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

import fti4cir
import mini_data
from attribute_tasks import WEIGHTS, belongs
from edits import edit
from fti4cir.backbones.base import VisionFeatures
from fti4cir.evaluation.metrics import average_precision_at, rank, recall_at
from fti4cir.inversion.compose import encode_sentences
from fti4cir.methods.base import Method
from fti4cir.methods.caption import Captioned
from fti4cir.methods.registry import create
from fti4cir.models.queries import Queries

Models = Mapping[str, Sequence[fti4cir.Model]]
"""A model for each seed, by the name of the job."""


class Measured(NamedTuple):
    """What was measured on one task."""

    figures: dict[str, NDArray[np.float64]]
    """The metric of each method (seeds, queries)."""
    groups: NDArray[np.int64]
    """(queries,) what groups the queries for the bootstrap."""
    summary: dict[str, Any]
    """What else the report says."""


class _Query(NamedTuple):
    """An image of Flickr8k, with the modification that leads to an edited caption."""

    position: int
    """Of the edited caption in the gallery."""
    image: Path
    modification: str
    caption: str
    """What the caption method is given for the image."""


@dataclass(frozen=True)
class _Captions:
    """All queries, and the captions of their images."""

    queries: list[_Query]
    edited: list[str]
    """One for each query."""
    original: list[str]
    image_index: list[int]
    """Of each original caption, the index of its query."""


def measure_captions(data: Path, work: Path, *, part: str, models: Models, limit: int) -> dict[str, Measured]:
    """Both tasks, for the methods without training and for all models, which share one encoder."""
    first = next(iter(models.values()))[0]
    captions = _read(data, work)
    scoring = _Scoring(captions, first)

    def chosen(part: str) -> tuple[list[_Query], VisionFeatures]:
        root = work / "held_out"
        group = [one for one in captions.queries if belongs(one.image.relative_to(root).as_posix(), part)][:limit]
        return group, first.features([one.image for one in group])

    tuning = chosen("validation")
    means = [scoring.edited(create("sum", first, image_weight=weight), *tuning).mean() for weight in WEIGHTS]
    weight = WEIGHTS[int(np.argmax(means))]
    group, features = chosen(part)
    edited, described = _measure(scoring, group, features, models=models, weight=weight)
    groups = np.arange(len(group))
    return {
        "edited captions": Measured(
            edited, groups, {"queries": len(group), "gallery": len(scoring.gallery), "image weight of sum": weight}
        ),
        "descriptions": Measured(described, groups, {"queries": len(group), "gallery": len(captions.original)}),
    }


def _read(data: Path, work: Path) -> _Captions:
    """A query for each held-out image of Flickr8k whose caption can be edited."""
    random_ = random.Random(0)
    captions = _Captions([], [], [], [])
    for image in mini_data.load(data):
        if image.set != "flickr8k" or not image.held_out:
            continue
        # The caption method gets another caption than the edited one. Otherwise it would know the answer.
        before, other = random_.sample(image.captions, 2)
        found = edit(before.lower(), random_)
        if found is not None:
            index = len(captions.queries)
            captions.image_index.extend([index] * len(image.captions))
            captions.original.extend(text.lower() for text in image.captions)
            captions.edited.append(found.caption)
            captions.queries.append(_Query(index, work / "held_out" / image.name, found.modification, other.lower()))
    return captions


class _Scoring:
    """The encoded captions, and the two metrics on them."""

    def __init__(self, captions: _Captions, model: fti4cir.Model) -> None:
        with torch.inference_mode():
            self._original = model.encode_texts(captions.original).numpy()
            self.gallery = np.concatenate([model.encode_texts(captions.edited).numpy(), self._original])
        self._image_index = np.array(captions.image_index)

    def edited(self, method: Method, group: Sequence[_Query], features: VisionFeatures) -> NDArray[np.float64]:
        """AP@10 of each query for its edited caption."""
        texts, paths = [one.modification for one in group], [one.image for one in group]
        query = method.compose(Queries(features, texts, paths=paths))
        relevant = np.arange(len(self.gallery)) == np.array([[one.position] for one in group])
        return average_precision_at(rank(query.numpy() @ self.gallery.T, 10, None), relevant, 10)

    def described(self, query: Tensor, group: Sequence[_Query]) -> NDArray[np.float64]:
        """R@10 of unit-length features (B, D) for the captions of their images."""
        relevant = self._image_index == np.array([[one.position] for one in group])
        return recall_at(rank(query.numpy() @ self._original.T, 10, None), relevant, 10)


def _measure(
    scoring: _Scoring, group: Sequence[_Query], features: VisionFeatures, *, models: Models, weight: float
) -> tuple[dict[str, NDArray[np.float64]], dict[str, NDArray[np.float64]]]:
    """The figures (seeds, queries) of each method, for edited captions and for descriptions."""
    first = next(iter(models.values()))[0]
    simple: dict[str, Method] = {
        "image": create("image", first),
        "text": create("text", first),
        "sum": create("sum", first, image_weight=weight),
        "caption": Captioned(first, {one.image.absolute(): one.caption for one in group}),
    }
    edited = {name: [scoring.edited(method, group, features)] for name, method in simple.items()}
    described = {"image": [scoring.described(F.normalize(features.image, dim=-1), group)]}
    for name, seeds in models.items():
        edited[name] = [scoring.edited(create(model.method, model), group, features) for model in seeds]
        described[name] = [scoring.described(_descriptions(model, features), group) for model in seeds]
    return (
        {name: np.stack(rows) for name, rows in edited.items()},
        {name: np.stack(rows) for name, rows in described.items()},
    )


@torch.inference_mode()
def _descriptions(model: fti4cir.Model, features: VisionFeatures) -> Tensor:
    """Unit-length features (B, D) of the sentences of images' pseudo-words alone."""
    inversion = model.require_inversion()
    words = inversion(features.image, features.local)
    sentences = [inversion.config.sentence()] * len(features.image)
    return F.normalize(encode_sentences(model.encoder, sentences, words), dim=-1)
