"""What a model sees in an image: its pseudo-words, the real words nearest to them, and where each one looked."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from ..backbones.base import DualEncoder, VisionFeatures
from ..inversion.network import FineGrainedInversion
from .real_words import NearWord, nearest_words


@dataclass(frozen=True)
class Attribute:
    """An attribute-oriented pseudo-word of an image."""

    latent: int
    """Which of the K latent attributes it is."""
    relevance: float
    nearest: tuple[NearWord, ...]
    """The nearest real words, by falling similarity."""
    heat: npt.NDArray[np.float32]
    """(g, g): the shares of attention that the g x g patches of the image got. They sum to one.

    The class token's share is left out.
    """


@dataclass(frozen=True)
class Explanation:
    """What a model sees in one image."""

    model: str
    source: str
    """The image's file name, or empty."""
    image: Image.Image
    """Upright, in RGB."""
    subject: tuple[NearWord, ...]
    """The real words nearest to the subject-oriented pseudo-word, by falling similarity."""
    attributes: tuple[Attribute, ...]
    """In the order in which they stand in the sentence."""
    relevance: tuple[float, ...]
    """Of all K latent attributes, kept or not. They sum to one."""
    threshold: float | None
    """Attributes of a higher relevance are kept, but at least one and at most M. None: the M most relevant are kept."""

    def to_json(self) -> dict[str, Any]:
        """Everything but the image, ready for `json.dumps`."""
        return {
            "model": self.model,
            "source": self.source,
            "subject": {"nearest": _words_to_json(self.subject)},
            "attributes": [
                {
                    "latent": attribute.latent,
                    "relevance": round(attribute.relevance, 4),
                    "nearest": _words_to_json(attribute.nearest),
                    "heat": [[round(float(value), 5) for value in row] for row in attribute.heat],
                }
                for attribute in self.attributes
            ],
            "relevance": [round(value, 4) for value in self.relevance],
            "threshold": self.threshold,
        }

    def summary(self) -> str:
        """How many pseudo-words the image gets, in one sentence."""
        count, available = len(self.attributes), len(self.relevance)
        if not available:
            return f"{self.model} makes one pseudo-word of the image, for its subject."
        kept = "its most relevant attribute" if count == 1 else "its most relevant attributes"
        return (
            f"{self.model} makes {count + 1} pseudo-words of the image: one for its subject, and {count} for {kept} "
            f"of {available}."
        )

    def __str__(self) -> str:
        """The summary, then a line for each pseudo-word with its nearest real words."""
        lines = [self.summary(), f"  subject       near {_listed(self.subject)}"]
        lines += [
            f"  attribute {one.latent:>2}  near {_listed(one.nearest)}  (relevance {one.relevance:.2f})"
            for one in self.attributes
        ]
        return "\n".join(lines)


@torch.no_grad()
def explain(
    encoder: DualEncoder,
    inversion: FineGrainedInversion,
    *,
    features: VisionFeatures,
    image: Image.Image,
    model: str,
    source: str,
) -> Explanation:
    """Explain what a model sees in one image.

    Args:
        encoder: the model's image and text tower.
        inversion: the model's inversion network, on the encoder's device.
        features: the encoder's features of the image alone: (1, D) and (1, P, V).
        image: upright, in RGB.
        model: the model's name.
        source: the image's file name, or empty.

    """
    local = features.local.to(encoder.device)
    words = inversion(features.image.to(encoder.device), local)
    subject, nearest = nearest_words(encoder, words)
    kept: list[int] = words.indices[0, : int(words.counts[0])].tolist()
    relevance: list[float] = words.relevance[0].tolist()
    return Explanation(
        model=model,
        source=source,
        image=image,
        subject=subject,
        attributes=tuple(
            Attribute(latent, relevance[latent], near, heat)
            for latent, near, heat in zip(kept, nearest, _heat(inversion, local, kept), strict=True)
        ),
        relevance=tuple(relevance),
        threshold=inversion.config.threshold,
    )


def _heat(inversion: FineGrainedInversion, local: Tensor, kept: list[int]) -> npt.NDArray[np.float32]:
    """Where each kept attribute looked, (n, g, g), from one image's local features (1, P, V)."""
    if inversion.latent is None:
        return np.zeros((0, 0, 0), dtype=np.float32)
    patches = inversion.latent.attention(local)[0, kept, 1:]  # (n, g * g), without the class token
    patches = patches / patches.sum(dim=-1, keepdim=True)
    side = math.isqrt(patches.shape[1])
    return patches.view(-1, side, side).float().cpu().numpy()


def _words_to_json(words: tuple[NearWord, ...]) -> list[dict[str, Any]]:
    return [{"word": near.word, "similarity": round(near.similarity, 4)} for near in words]


def _listed(words: tuple[NearWord, ...]) -> str:
    return ", ".join(f"{near.word} {near.similarity:.2f}" for near in words) or "no real word"
