"""The frozen encoder's features of the captions, as far as an objective reads them."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..backbones.base import DualEncoder
from ..errors import CutWarning
from ..features.matrix import compute_texts
from ..inversion.prompts import Template
from .data import TrainingData
from .objective import Needs

_logger = logging.getLogger(__name__)


class Texts:
    """The features of texts, by text."""

    def __init__(self, cache: Path, encoder: DualEncoder, *, texts: Iterable[str], label: str) -> None:
        ordered = sorted(set(texts))
        self._rows = {text: row for row, text in enumerate(ordered)}
        self._features = compute_texts(cache, encoder, ordered, label=label)

    def take(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Their features, (N, D), not normalised."""
        rows: NDArray[np.float32] = np.asarray(self._features[[self._rows[text] for text in texts]])
        return rows


@dataclass(frozen=True)
class CaptionFeatures:
    """Text features of the captions; None where the objective does not read them."""

    real: Texts | None
    """Of the captions in the template."""
    written: Texts | None
    """Of the captions as written."""


def caption_features(
    cache: Path, encoder: DualEncoder, *, data: TrainingData, needs: Needs, template: Template
) -> CaptionFeatures:
    """Compute what the objective needs, or read it from the cache. Captions that are too long are reported once."""
    used = [caption for row in (*data.training, *data.validation) for caption in data.captions[row]]
    real = written = None
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CutWarning)
        if needs.real:
            texts = [template.real(*caption) for caption in used]
            real = Texts(cache, encoder, texts=texts, label="features of captions in the template")
    if caught:
        _logger.warning(f"{len(caught)} captions are longer than {encoder.name} reads; their ends are left out")
    if needs.written:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutWarning)  # reported above
            texts = list(map(str, used))
            written = Texts(cache, encoder, texts=texts, label="features of captions as written")
    return CaptionFeatures(real, written)
