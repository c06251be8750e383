"""How well a network retrieves among the images that are held out of its training."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder
from ..features.cache import Features, StreamedFeatures
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion
from .objective import Batch

COLUMNS = ("val_image_R@1", "val_composed_R@1")
_BLOCK = 64


@torch.no_grad()
def validate(
    network: FineGrainedInversion, batch: Batch, *, encoder: DualEncoder, features: Features | StreamedFeatures
) -> dict[str, float]:
    """Two retrieval rates; nothing if there are no images.

    `val_image_R@1`: the share of pseudo-sentences whose nearest image is their own;
    `val_composed_R@1`: of composed sentences whose nearest caption is what the edit made of their own. It is left out
    if the batch has no edits.
    """
    count = len(batch.rows)
    if not count:
        return {}
    wholes, composed, edited, before = [], [], [], []
    for start in range(0, count, _BLOCK):
        part = batch.part(start, min(start + _BLOCK, count))
        local = part.image.new_zeros(len(part.rows), 0, 0)
        if network.config.max_attributes:
            local = features.take(part.rows, encoder.device).local
        words = network(part.image, local)
        wholes.append(encode_sentences(encoder, [network.config.sentence()] * len(part.rows), words))
        if part.edited:
            asked = [network.config.sentence(modification) for modification in part.modifications]
            composed.append(encode_sentences(encoder, asked, words))
            edited.append(encode_sentences(encoder, [(text,) for text in part.edited]))
            before.append(encode_sentences(encoder, [(str(caption),) for caption in part.captions]))
    image_column, composed_column = COLUMNS
    hits = sum(place == own for own, place in enumerate(_nearest(wholes, [batch.image])))
    figures = {image_column: hits / count}
    if batch.edited:
        texts = [*batch.edited, *map(str, batch.captions)]  # several may be equal
        nearest = _nearest(composed, [*edited, *before])
        hits = sum(texts[place] == texts[own] for own, place in enumerate(nearest))
        figures[composed_column] = hits / count
    return figures


def _nearest(queries: list[Tensor], keys: list[Tensor]) -> list[int]:
    """For each query the place of the key with the largest cosine."""
    scores = F.normalize(torch.cat(queries), dim=-1) @ F.normalize(torch.cat(keys), dim=-1).T
    found: list[int] = scores.argmax(dim=1).tolist()
    return found
