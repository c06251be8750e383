"""Pseudo-to-real description retrieval: find an image's real captions by its pseudo-words.

How well do pseudo-words describe an image? Each image becomes the sentence `a photo of [s] with [a_1] ... [a_n]`,
without a modification. It ranks the captions of all images, each read as `a photo of {caption}`. The image's own
feature ranks them too; it shows the most that this encoder can express.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import VisionFeatures
from ..captions.table import load_captioned_images
from ..errors import InputError, ModelError
from ..inversion.compose import encode_sentences
from ..methods import registry
from ..models.model import Model, require_one_encoder
from ..progress import Progress
from .gallery import share_first
from .metrics import first_equal, rank, recall_at, similarities
from .results import Evaluation

CUTS = (1, 5, 10)
"""The k of R@k."""
COMPARED_BY = "R@10"
"""The metric that compares the methods with each other."""
_BATCH = 32  # images at a time
_CANDIDATE = "a photo of {}"


@dataclass(frozen=True)
class Descriptions:
    """P images and all their captions, each text once."""

    protocol: str
    """One line that names the images and captions."""
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    captions: tuple[str, ...]
    """The texts that are searched."""
    targets: tuple[tuple[int, ...], ...]
    """For each image, the positions of its captions."""
    missing: tuple[str, ...]
    """Images that have captions but do not exist; their captions are left out too."""


def load(
    root: str | Path,
    table: str | Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    allow_missing: bool = False,
) -> Descriptions:
    """Images and captions, in the form that training reads (`captions.table.load_captioned_images`).

    Args:
        root: the folder with the images.
        table: the captions; an image may have any number.
        limit: at most this many images, drawn evenly; the captions of all images stay candidates.
        seed: for that draw.
        allow_missing: continue with the images that exist.

    Raises:
        InputError: if the folder or the captions cannot be read, or images are missing.
    """
    root, table = Path(root), Path(table)
    if not root.is_dir():
        raise InputError(f"The root {root} is not a folder.")
    found = load_captioned_images(root, table)
    if found.missing and not allow_missing:
        raise InputError(
            f"{len(found.missing)} of the {len(found.missing) + len(found)} images in {table} are not under {root}, "
            f"for example {found.missing[0]}; scores without them are not comparable with others; to continue without "
            "them, give --allow-missing."
        )
    place = {text: number for number, text in enumerate(dict.fromkeys(c.text for own in found.captions for c in own))}
    drawn = list(range(len(found)))
    protocol = f"{table.name}: '{_CANDIDATE.format('{caption}')}' found by its image, any of its captions is right"
    if limit is not None:
        drawn = sorted(np.random.default_rng(seed).permutation(len(found))[:limit].tolist())
        protocol += f", at most {limit} images drawn with seed {seed}"
    return Descriptions(
        protocol=protocol,
        names=tuple(found.names[number] for number in drawn),
        paths=tuple(root / found.names[number] for number in drawn),
        captions=tuple(place),
        targets=tuple(tuple(sorted({place[own.text] for own in found.captions[number]})) for number in drawn),
        missing=found.missing,
    )


def describe_retrieval(
    descriptions: Descriptions,
    methods: Sequence[tuple[str, Model]],
    *,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Rank captions for images.

    R@k is 1 for an image that finds any of its captions among the first k, else 0. This is usual in text retrieval,
    because each caption describes the whole image.

    Args:
        descriptions: the images, P of them, and the captions.
        methods: names, each with its model. `image` is the image's own feature. `fti4cir`, or the method that the
            model was trained with, is the sentence of pseudo-words. All models use the same encoder.
        progress: called after each batch of images.

    Returns:
        One evaluation for each method, in the order of the methods. The gallery is the captions.

    Raises:
        InputError: if a method is unknown or cannot describe an image.
        ImageError: if an image cannot be read; none is dropped silently.
        ModelError: if a model has no weights of its method, or gives features that are not finite, or if the models'
            encoders differ.
    """
    require_one_encoder([model for _, model in methods])
    described = [_described(name, model) for name, model in methods]
    first = methods[0][1]
    sentences = [_CANDIDATE.format(text) for text in descriptions.captions]
    candidates = first.encode_texts(sentences).numpy()  # (C, D)
    # The encoder ignores some differences, such as capital letters. Captions that differ only in these tie exactly.
    share_first(candidates, [tuple(first.encoder.tokenize(sentence)) for sentence in sentences])
    equal = first_equal(candidates)
    rankings: list[list[NDArray[np.int64]]] = [[] for _ in methods]
    recalls: list[list[NDArray[np.float64]]] = [[] for _ in methods]
    total = len(descriptions.paths)
    for start in range(0, total, _BATCH):
        features = first.features(descriptions.paths[start : start + _BATCH])
        relevant = np.zeros((len(features.image), len(candidates)), dtype=bool)
        for row, targets in enumerate(descriptions.targets[start : start + _BATCH]):
            relevant[row, list(targets)] = True
        for number, describe in enumerate(described):
            scores = similarities(describe(features).numpy(), candidates, equal)  # (B, C)
            if not np.isfinite(scores).all():
                name, model = methods[number]
                raise ModelError(f"The method {name!r} on the model {model.name} gives features that are not finite.")
            ranking = rank(scores, max(CUTS))
            rankings[number].append(ranking)
            found = [recall_at(ranking, relevant, cut) > 0 for cut in CUTS]
            recalls[number].append(np.stack(found, axis=1).astype(np.float64))
        if progress is not None:
            progress(start + len(features.image), total)
    return [
        Evaluation(
            benchmark="descriptions",
            split="all",
            protocol=descriptions.protocol,
            method=method,
            model=model.name,
            gallery=len(candidates),
            missing=len(descriptions.missing),
            per_query={f"R@{cut}": np.concatenate(recall)[:, column] for column, cut in enumerate(CUTS)},
            references=np.arange(total),
            values=(),
            ranking=np.concatenate(ranking),
        )
        for (method, model), ranking, recall in zip(methods, rankings, recalls, strict=True)
    ]


def _described(method: str, model: Model) -> Callable[[VisionFeatures], Tensor]:
    """A function from the features of B images to their descriptions' unit-length features (B, D), on the CPU."""
    if method == "image":
        return lambda features: F.normalize(features.image, dim=-1).cpu()
    if method not in registry.trainable():
        available = ", ".join(("image", *registry.trainable()))
        raise InputError(f"The method {method!r} describes no image; the methods for descriptions are: {available}.")
    registry.create(method, model)  # refuses a model without weights of this method
    inversion, encoder = model.require_inversion(), model.encoder

    @torch.no_grad()
    def describe(features: VisionFeatures) -> Tensor:
        words = inversion(features.image.to(encoder.device), features.local.float().to(encoder.device))
        sentences = [inversion.config.sentence()] * len(features.image)
        return F.normalize(encode_sentences(encoder, sentences, words), dim=-1).cpu()

    return describe
