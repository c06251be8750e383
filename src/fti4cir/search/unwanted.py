"""What a search should avoid, as a direction to move the query away from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from ..models.model import Model

SHARE = 0.75
"""How much of the unwanted direction is subtracted from the query; both have unit length.

Measured by `research/without.py`: with less, more of the first results show what is unwanted; with more, fewer show
what is wanted.
"""
COMMON_THINGS = (
    "people", "a dog", "water", "grass", "the sky", "a building", "a room", "a car", "food", "clothes", "red", "text",
)  # fmt: skip
"""Things of many kinds. Whatever their texts have in common says nothing about any one of them."""


class Unwanted:
    """Makes directions with one model. What texts have in common is computed at the first use."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._common: NDArray[np.float32] | None = None

    def direction(self, text: str) -> NDArray[np.float32]:
        """The text's own direction: its feature without the part that all texts share. (D,), unit length.

        Subtracting that part, too, would move a query away from texts as a whole, and so also from what the query
        itself asks for.
        """
        if self._common is None:
            self._common = unit(self._encode(COMMON_THINGS).mean(axis=0))
        feature = self._encode([text])[0]
        return unit(feature - (feature @ self._common) * self._common)

    def _encode(self, texts: Sequence[str]) -> NDArray[np.float32]:
        features: NDArray[np.float32] = self._model.encode_texts(list(texts)).numpy()
        return features


def unit(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scaled to unit length along the last axis; zero vectors stay as they are."""
    lengths = np.linalg.norm(features, axis=-1, keepdims=True)
    scaled: NDArray[np.float32] = features / np.maximum(lengths, 1e-12)
    return scaled
