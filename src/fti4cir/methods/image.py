"""The reference image's own feature: what a search finds that does not read the modification text."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ..models.queries import Queries
from .base import Entry


class ImageOnly:
    """The feature of the reference image.

    >>> import torch
    >>> from fti4cir.backbones.base import VisionFeatures
    >>> features = VisionFeatures(image=torch.tensor([[3.0, 4.0]]), local=torch.zeros(1, 1, 1))
    >>> ImageOnly().compose(Queries(features, ["in red"]))
    tensor([[0.6000, 0.8000]])
    """

    name = "image"

    def compose(self, queries: Queries) -> Tensor:
        """B queries to the unit-length features of their reference images (B, D)."""
        return F.normalize(queries.features.image, dim=-1)[list(queries.reference_index)]


METHOD = Entry(create=lambda model, options: ImageOnly())
