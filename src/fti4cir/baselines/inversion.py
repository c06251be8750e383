"""The method of this package, FTI4CIR, in the form in which it is compared with the others."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..backbones.base import VisionFeatures
from .base import Model


class Fti4cir:
    """Pseudo-words for the picture's subject and attributes, in one sentence with the modification.

    Raises:
        ModelError: if the model has no inversion weights.
    """

    name = "fti4cir"

    def __init__(self, model: Model) -> None:
        model.require_inversion()  # now, not after the first thousand pictures
        self._model = model

    def compose(self, features: VisionFeatures, texts: Sequence[str], owner: Sequence[int] | None = None) -> Tensor:
        """Features of R pictures and B modifications, each of the picture `owner` says, to (B, D)."""
        return self._model.compose_features(features, texts, owner)
