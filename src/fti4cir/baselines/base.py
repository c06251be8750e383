"""What every method of composed retrieval is, and what it may ask of a model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from ..backbones.base import VisionFeatures


class Model(Protocol):
    """What methods use of a model."""

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """B texts to unit-length features (B, D)."""
        ...

    def compose_features(self, features: VisionFeatures, texts: Sequence[str]) -> Tensor:
        """B pictures, each with its modification, to unit-length features (B, D)."""
        ...


class Method(Protocol):
    """Puts a picture and a modification into one feature, to be compared with pictures by cosine."""

    @property
    def name(self) -> str:
        """What a user types to choose it."""
        ...

    def compose(self, features: VisionFeatures, texts: Sequence[str]) -> Tensor:
        """B pictures, each with its modification, to unit-length features (B, D).

        Each row depends on its own picture and text only.
        """
        ...
