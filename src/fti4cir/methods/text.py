"""The modification text's feature: what a search finds that does not look at the reference image."""

from __future__ import annotations

from torch import Tensor

from ..models.queries import Queries
from .base import Entry, TextEncoder


class TextOnly:
    """The feature of the modification text."""

    name = "text"

    def __init__(self, model: TextEncoder) -> None:
        self._model = model

    def compose(self, queries: Queries) -> Tensor:
        """B queries to the unit-length features of their texts (B, D)."""
        # A block of queries repeats a few texts many times: encode each once.
        distinct = {text: row for row, text in enumerate(dict.fromkeys(queries.texts))}
        encoded = self._model.encode_texts(list(distinct), allow_blank=True).to(queries.features.image.device)
        return encoded[[distinct[text] for text in queries.texts]]


METHOD = Entry(create=lambda model, options: TextOnly(model))
