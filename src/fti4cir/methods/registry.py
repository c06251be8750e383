"""Methods of composed retrieval, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from ..errors import InputError, TrainingError
from ..training import trainer
from ..training.config import TrainingConfig
from .base import Learner, Method, Model
from .fti4cir import FTI4CIR, Inversion
from .lincir import LINCIR
from .pic2word import PIC2WORD
from .searle import SEARLE, OptimizedInversion
from .untrained import Captioned, ImageOnly, TextOnly, WeightedSum


class Captions(NamedTuple):
    """Captions of the images in a folder."""

    images: Path
    table: Path
    """As `captions.table` reads it."""


LEARNED: Mapping[str, Learner] = {
    "fti4cir": FTI4CIR,
    "pic2word": PIC2WORD,
    "searle": SEARLE,
    "lincir": LINCIR,
}
"""Name -> how a method learns that has a network of its own."""

PRESETS: Mapping[str, TrainingConfig] = {
    name: config for learner in LEARNED.values() for name, config in learner.presets.items()
}
"""The recipes of all methods, by their names."""

METHODS = (*LEARNED, "searle-oti", "image", "text", "sum", "caption")


def create(
    name: str,
    model: Model,
    image_weight: float = 0.5,
    captions: Captions | None = None,
    say: Callable[[str], object] | None = None,
) -> Method:
    """The method of that name, on a model.

    Args:
        name: one of `METHODS`.
        model: what encodes texts and composes.
        image_weight: the image's share in `sum`, from 0 to 1.
        captions: for `caption`.
        say: gets a line of progress now and then from a method that prepares for minutes, as `searle-oti` does.

    Raises:
        InputError: if no such method is known, the weight is out of range, or there are no captions.
        ModelError: if the model has no weights for it.
    """
    if name in LEARNED:
        return Inversion(name, model)
    match name:
        case "searle-oti":
            return OptimizedInversion(model, say=say)
        case "image":
            return ImageOnly()
        case "text":
            return TextOnly(model)
        case "sum":
            return WeightedSum(model, image_weight)
        case "caption":
            if captions is None:
                raise InputError("The method caption needs captions of the images; give them with --captions FILE.")
            return Captioned.read(model, captions.images, captions.table)
    raise _unknown(name)


AnyModel = TypeVar("AnyModel", bound=Model)


def assign(names: Sequence[str], models: Sequence[AnyModel]) -> list[tuple[str, AnyModel]]:
    """Which method stands on which of several models that are compared: a pair for each figure to be had.

    Args:
        names: of methods; none for those that the models were trained as.
        models: at least one, all on one encoder.

    Returns:
        For a learned method each model that was trained as it, in their order; for `searle-oti` the first that was
        trained as searle; for all others the first model. Where no model was trained as a method, it has the first,
        and `create` says what is missing.
    """
    trained: dict[str, list[AnyModel]] = {}
    for model in models:
        if model.inversion is not None:
            trained.setdefault(model.method, []).append(model)
    pairs = []
    for name in dict.fromkeys(names or trained or [models[0].method]):
        if name in LEARNED:
            suited = trained.get(name, models[:1])
        elif name == OptimizedInversion.name:
            suited = trained.get("searle", models)[:1]
        else:
            suited = models[:1]
        pairs += [(name, model) for model in suited]
    return pairs


def learner(name: str) -> Learner:
    """How the method of that name learns; InputError if it is not known or learns nothing."""
    if name not in LEARNED:
        reason = f"The method {name!r} has nothing to train" if name in METHODS else f"There is no method {name!r}"
        raise InputError(f"{reason}; what can be trained: {', '.join(LEARNED)}.")
    return LEARNED[name]


def preset(name: str, **changes: Any) -> TrainingConfig:
    """A preset with some settings changed, as by `TrainingConfig.with_settings`.

    `epochs` also replaces the `steps` that a preset may count instead. TrainingError if there is no such preset.
    """
    if name not in PRESETS:
        raise TrainingError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    if "epochs" in changes:
        changes = {"steps": None, **changes}
    return PRESETS[name].with_settings(changes)


def train(
    config: TrainingConfig,
    images: str | Path,
    captions: str | Path,
    backbone: str | Path,
    output: str | Path,
    **more: Any,
) -> Path:
    """Train the method that a configuration is for; arguments, result and errors as of `training.trainer.train`."""
    return trainer.train(config, learner(config.method).objective, images, captions, backbone, output, **more)


def check_methods(names: Sequence[str]) -> None:
    """InputError unless all the methods are known: before a model is loaded for them."""
    for name in names:
        if name not in METHODS:
            raise _unknown(name)


def _unknown(name: str) -> InputError:
    return InputError(f"There is no method {name!r}; available are: {', '.join(METHODS)}.")
