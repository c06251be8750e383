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

    def compose_features(
        self, features: VisionFeatures, texts: Sequence[str], owner: Sequence[int] | None = None
    ) -> Tensor:
        """As `Method.compose`, by the inversion network."""
        ...

    def require_inversion(self) -> object:
        """The inversion network; ModelError if there is none."""
        ...


class Method(Protocol):
    """Puts a picture and a modification into one feature, to be compared with pictures by cosine."""

    @property
    def name(self) -> str:
        """What a user types to choose it."""
        ...

    def compose(self, features: VisionFeatures, texts: Sequence[str], owner: Sequence[int] | None = None) -> Tensor:
        """Modifications of pictures to unit-length features, each of which depends on its own picture and text only.

        Args:
            features: of R pictures, image (R, D) and local (R, P, V).
            texts: B modifications.
            owner: the row of each text's picture; None: text i belongs to picture i.

        Returns:
            (B, D).

        """
        ...
