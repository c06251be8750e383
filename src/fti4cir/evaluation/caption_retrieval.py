"""Pseudo-to-real description retrieval: find an image's real captions by its pseudo-words.

How well do pseudo-words say what is in an image? Each image becomes the sentence `a photo of [s] with
[a_1] ... [a_n]`, without any modification, and ranks the captions of all images, each read as `a photo of
{caption}`. The image's own feature ranks them too: what an encoder can tell at most of an image in words.
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
from ..methods.registry import LEARNED, create
from ..models.model import Model, require_one_encoder
from ..progress import Progress
from .evaluate import Evaluation, share_first
from .metrics import first_equal, rank, recall_at, similarities

CUTS = (1, 5, 10)
"""The k of R@k."""
COMPARED_BY = "R@10"
"""The metric by which methods are compared with each other."""
_BATCH = 32  # images at a time
_CANDIDATE = "a photo of {}"


@dataclass(frozen=True)
class Descriptions:
    """P images and all their captions, each text once."""

    protocol: str
    """One line that says which images and captions these are."""
    names: tuple[str, ...]
    paths: tuple[Path, ...]
    captions: tuple[str, ...]
    """What is searched."""
    targets: tuple[tuple[int, ...], ...]
    """For each image, which captions are its own."""
    missing: tuple[str, ...]
    """Images that have captions but are not there; these captions are left out, too."""


def load(
    root: str | Path,
    table: str | Path,
    *,
    limit: int | None = None,
    seed: int = 0,
    allow_missing: bool = False,
) -> Descriptions:
    """Images and captions, in the form that training reads (`captions.table.load`).

    Args:
        root: the folder with the images.
        table: the captions; any number an image.
        limit: at most so many images, drawn evenly; the captions of all stay candidates.
        seed: of that draw.
        allow_missing: go on with the images that are there.

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
            f"{found.missing[0]} for one; scores without them are not comparable with others; to go on without them, "
            "give --allow-missing."
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
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Rank captions for images.

    R@k is 1 for an image that finds any of its captions among the first k, else 0, as is usual where texts are
    retrieved: each caption describes the whole image.

    Args:
        descriptions: the images, P of them, and the captions.
        methods: `image`, the image's own feature; `fti4cir`, or what else a model was trained as, the sentence of
            pseudo-words; each with its model. The models stand on one encoder.
        progress: told after each batch of images.

    Returns:
        One evaluation a method, in the order of the methods. Its gallery is the captions.

    Raises:
        InputError: if a method is not known or cannot describe an image.
        ImageError: if an image cannot be read; none is dropped silently.
        ModelError: if a model has no weights of its method, or gives features that are not finite, or if the models'
            encoders differ.
    """
    require_one_encoder([model for _, model in methods])
    described = [_described(name, model) for name, model in methods]
    first = methods[0][1]
    sentences = [_CANDIDATE.format(text) for text in descriptions.captions]
    candidates = first.encode_texts(sentences).numpy()  # (C, D)
    # Captions that differ in what the encoder does not read, such as capital letters, tie exactly.
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
    """From features of B images to their descriptions' unit-length features (B, D) on the CPU."""
    if method == "image":
        return lambda features: F.normalize(features.image, dim=-1).cpu()
    if method not in LEARNED:
        available = ", ".join(("image", *LEARNED))
        raise InputError(f"The method {method!r} describes no image; available for descriptions are: {available}.")
    create(method, model)  # refuses a model without weights of this method
    inversion, encoder = model.require_inversion(), model.encoder

    @torch.no_grad()
    def describe(features: VisionFeatures) -> Tensor:
        words = inversion(features.image.to(encoder.device), features.local.float().to(encoder.device))
        sentences = [inversion.config.sentence()] * len(features.image)
        return F.normalize(encode_sentences(encoder, sentences, words), dim=-1).cpu()

    return describe
