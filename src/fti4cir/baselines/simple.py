"""Methods that learn nothing: the picture alone, the text alone, their weighted sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import VisionFeatures
from ..errors import InputError


class TextEncoder(Protocol):
    """What these methods need of a model."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B texts to unit-length features (B, D)."""
        ...


class ImageOnly:
    """The reference's own feature: what a search finds that does not read the text.

    >>> import torch
    >>> features = VisionFeatures(image=torch.tensor([[3.0, 4.0]]), local=torch.zeros(1, 1, 1))
    >>> ImageOnly().compose(features, ["in red"])
    tensor([[0.6000, 0.8000]])
    """

    name = "image"

    def compose(self, features: VisionFeatures, texts: Sequence[str], owner: Sequence[int] | None = None) -> Tensor:
        """Picture features (R, D), not normalised, to unit length, that of each text's owner (B, D)."""
        unit = F.normalize(features.image, dim=-1)
        return unit if owner is None else unit[list(owner)]


class TextOnly:
    """The modification's feature: what a search finds that does not look at the picture."""

    name = "text"

    def __init__(self, model: TextEncoder) -> None:
        self._model = model

    def compose(self, features: VisionFeatures, texts: Sequence[str], owner: Sequence[int] | None = None) -> Tensor:
        """B texts to unit-length features (B, D); the pictures make no difference."""
        # A block of queries repeats a few texts many times: encode each once.
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        encoded = self._model.encode_texts(list(distinct)).to(features.image.device)
        return encoded[[distinct[text] for text in texts]]


class WeightedSum:
    """`image_weight` of the picture's unit-length feature and the rest of the text's; 0.5 is their mean.

    Where the two cancel each other out exactly, the sum has no direction and the feature is zero.

    Raises:
        InputError: if the weight is not within [0, 1].
    """

    name = "sum"

    def __init__(self, model: TextEncoder, image_weight: float = 0.5) -> None:
        if not 0 <= image_weight <= 1:
            raise InputError(f"The image weight must be from 0 to 1, not {image_weight}.")
        self._image, self._text = ImageOnly(), TextOnly(model)
        self._weight = image_weight

    def compose(self, features: VisionFeatures, texts: Sequence[str], owner: Sequence[int] | None = None) -> Tensor:
        """Features of R pictures and B texts, each of the picture that `owner` says, to (B, D)."""
        image, text = self._image.compose(features, texts, owner), self._text.compose(features, texts)
        return F.normalize(self._weight * image + (1 - self._weight) * text, dim=-1)
