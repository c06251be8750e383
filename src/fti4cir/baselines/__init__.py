"""Methods of composed retrieval, by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from .base import Learner, Method, Model
from .inversion import FTI4CIR, Inversion
from .lincir import LINCIR
from .pic2word import PIC2WORD
from .searle import SEARLE, OptimizedInversion
from .simple import Captioned, ImageOnly, TextOnly, WeightedSum


class Captions(NamedTuple):
    """Captions of the pictures in a folder."""

    images: Path
    table: Path
    """As `datasets.captioned` reads it."""


LEARNED: Mapping[str, Learner] = {
    "fti4cir": FTI4CIR,
    "pic2word": PIC2WORD,
    "searle": SEARLE,
    "lincir": LINCIR,
}
"""Name -> how a method learns that has a network of its own."""

METHODS = (*LEARNED, "searle-oti", "image", "text", "sum", "caption")


def create(name: str, model: Model, image_weight: float = 0.5, captions: Captions | None = None) -> Method:
    """The method of that name, on a model.

    Args:
        name: one of `METHODS`.
        model: what encodes texts and composes.
        image_weight: the picture's share in `sum`, from 0 to 1.
        captions: for `caption`.

    Raises:
        InputError: if no such method is known, the weight is out of range, or there are no captions.
        ModelError: if the model has no weights for it.
    """
    if name in LEARNED:
        return Inversion(name, model)
    match name:
        case "searle-oti":
            return OptimizedInversion(model)
        case "image":
            return ImageOnly()
        case "text":
            return TextOnly(model)
        case "sum":
            return WeightedSum(model, image_weight)
        case "caption":
            if captions is None:
                raise InputError("The method caption needs captions of the pictures; give them with --captions FILE.")
            return Captioned.read(model, captions.images, captions.table)
    raise _unknown(name)


def learner(name: str) -> Learner:
    """How the method of that name learns; InputError if it is not known or learns nothing."""
    if name not in METHODS:
        raise _unknown(name)
    if name not in LEARNED:
        raise InputError(f"The method {name!r} has nothing to train; these have: {', '.join(LEARNED)}.")
    return LEARNED[name]


def _unknown(name: str) -> InputError:
    return InputError(f"There is no method {name!r}; available are: {', '.join(METHODS)}.")
