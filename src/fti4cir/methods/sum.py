"""The weighted sum of the reference image's feature and the modification text's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..errors import InputError
from ..models.queries import Queries
from .base import Entry, TextEncoder
from .image import ImageOnly
from .text import TextOnly


class WeightedSum:
    """`image_weight` of the image's unit-length feature and the rest of the text's; 0.5 is their mean.

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

    def compose(self, queries: Queries) -> Tensor:
        """B queries to unit-length features (B, D)."""
        image, text = self._image.compose(queries), self._text.compose(queries)
        return F.normalize(self._weight * image + (1 - self._weight) * text, dim=-1)


METHOD = Entry(create=lambda model, options: WeightedSum(model, options.image_weight))
