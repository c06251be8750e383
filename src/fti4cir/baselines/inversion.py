"""The method of this package, FTI4CIR, in the form in which it is compared with the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..backbones.base import VisionFeatures
from .base import Model


class Fti4cir:
    """Pseudo-words for the picture's subject and attributes, in one sentence with the modification."""

    name = "fti4cir"

    def __init__(self, model: Model) -> None:
        self._model = model

    def compose(self, features: VisionFeatures, texts: Sequence[str]) -> Tensor:
        """B pictures, each with its modification, to unit-length features (B, D)."""
        return self._model.compose_features(features, texts)
