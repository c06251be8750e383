"""Methods of composed retrieval, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import InputError, ModelError
from .base import Method, Model
from .inversion import Fti4cir
from .simple import ImageOnly, TextOnly, WeightedSum

METHODS: Mapping[str, Callable[[Model, float], Method]] = {
    "fti4cir": lambda model, image_weight: Fti4cir(model),
    "image": lambda model, image_weight: ImageOnly(),
    "text": lambda model, image_weight: TextOnly(model),
    "sum": WeightedSum,
}
"""Name -> what makes the method, from a model and the image weight that `sum` goes by."""

_PLANNED = {
    "caption": "it needs a captioner, which this version does not include",
    "pic2word": "its weights have to be learned, and this version trains fti4cir only",
    "searle": "its weights have to be learned, and this version trains fti4cir only",
    "lincir": "its weights have to be learned, and this version trains fti4cir only",
}


def create(name: str, model: Model, image_weight: float = 0.5) -> Method:
    """The method of that name, on a model.

    Args:
        name: a key of `METHODS`.
        model: what encodes texts and composes.
        image_weight: the picture's share in `sum`, from 0 to 1; the other methods have no use for it.

    Raises:
        InputError: if no such method is known, or the weight is out of range.
        ModelError: if the method is known but cannot be had yet, or the model has no weights for it.
    """
    _require_available(name)
    return METHODS[name](model, image_weight)


def require_trainable(name: str) -> None:
    """Refuse a method that cannot be trained.

    Raises:
        InputError: if no such method is known, or it learns nothing.
        ModelError: if the method is known but cannot be had yet.
    """
    _require_available(name)
    if name != "fti4cir":
        raise InputError(f"The method {name!r} learns nothing, so there is nothing to train; fti4cir can be trained.")


def _require_available(name: str) -> None:
    available = ", ".join(METHODS)
    if name in _PLANNED:
        raise ModelError(f"The method {name!r} is not available yet: {_PLANNED[name]}; available are: {available}.")
    if name not in METHODS:
        raise InputError(f"There is no method {name!r}; available are: {available}.")
