"""Methods of composed retrieval, by name.

Each module of this package that has a record `METHOD` is a method. Its name is the module's, with `-` for `_`. Names
and summaries are read from the source, so that a command line can list them without importing PyTorch.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..discovery import Registered, registered
from ..errors import InputError, TrainingError
from .base import Captions, Entry, Learner, Method, Model, Options

if TYPE_CHECKING:
    from ..training.config import TrainingConfig

_PACKAGE = __name__.rpartition(".")[0]
_OWN = "fti4cir"
"""The method of this package, which is listed first."""


# -- which there are ------------------------------------------------------------------------------------------
def names() -> tuple[str, ...]:
    """The names of all methods: `fti4cir`, then those that learn, then the others, by the alphabet."""
    return tuple(_found())


def trainable() -> tuple[str, ...]:
    """The names of the methods that learn."""
    return tuple(name for name, method in _found().items() if _learns(method))


def find(name: str) -> Entry:
    """The method of that name; InputError if there is none."""
    check_methods([name])
    entry: Entry = importlib.import_module(_module(name)).METHOD
    return entry


def check_methods(chosen: Sequence[str]) -> None:
    """InputError unless all these methods are known: before a model is loaded for them."""
    for name in chosen:
        if name not in names():
            raise InputError(f"There is no method {name!r}; available are: {', '.join(names())}.")


def _found() -> Mapping[str, Registered]:
    """The methods by name, in the order of `names`."""
    modules = registered(importlib.import_module(_PACKAGE).__path__, "METHOD")
    found = {module.replace("_", "-"): source for module, source in modules.items()}
    return dict(sorted(found.items(), key=lambda item: (item[0] != _OWN, not _learns(item[1]), item[0])))


def _learns(method: Registered) -> bool:
    return "learner" in method.arguments


def _module(name: str) -> str:
    return f"{_PACKAGE}.{name.replace('-', '_')}"


# -- on models ------------------------------------------------------------------------------------------------
def create(name: str, model: Model, *, image_weight: float = 0.5, captions: Captions | None = None) -> Method:
    """The method of that name, on a model.

    Args:
        name: one of `names`.
        model: what encodes texts and composes.
        image_weight: the image's share in `sum`, from 0 to 1.
        captions: for `caption`.

    Raises:
        InputError: if no such method is known, the weight is out of range, or there are no captions.
        ModelError: if the model has no weights for it.
    """
    return find(name).create(model, Options(image_weight, captions))


AnyModel = TypeVar("AnyModel", bound=Model)


def assign(chosen: Sequence[str], models: Sequence[AnyModel]) -> list[tuple[str, AnyModel]]:
    """Which method stands on which of several models that are compared: a pair for each evaluation.

    Args:
        chosen: names of methods; none for those that the models were trained as.
        models: at least one, all on one encoder.

    Returns:
        For a method that learns, each model that was trained as it, in their order. For one that stands on another,
        as `searle-oti` on `searle`, the first model that was trained as that. For all others the first model. Where no
        model was trained as a method, it has the first, and `create` says what is missing.

    Raises:
        InputError: if a method is not known.
    """
    trained: dict[str, list[AnyModel]] = {}
    for model in models:
        if model.inversion is not None:
            trained.setdefault(model.method, []).append(model)
    pairs = []
    for name in dict.fromkeys(chosen or trained or [models[0].method]):
        entry = find(name)
        if entry.learner is not None:
            suited = trained.get(name, models[:1])
        elif entry.stands_on is not None:
            suited = trained.get(entry.stands_on, models)[:1]
        else:
            suited = models[:1]
        pairs += [(name, model) for model in suited]
    return pairs


# -- training -------------------------------------------------------------------------------------------------
def learner(name: str) -> Learner:
    """How the method of that name learns; InputError if it is not known or learns nothing."""
    if name not in trainable():
        reason = f"The method {name!r} has nothing to train" if name in names() else f"There is no method {name!r}"
        raise InputError(f"{reason}; what can be trained: {', '.join(trainable())}.")
    found = find(name).learner
    assert found is not None  # the source says so
    return found


def presets() -> dict[str, TrainingConfig]:
    """The recipes of all methods, by their names."""
    return {name: config for method in trainable() for name, config in learner(method).presets.items()}


def preset(name: str, **changes: Any) -> TrainingConfig:
    """A preset with some settings changed, as by `TrainingConfig.with_settings`.

    `epochs` also replaces the `steps` that a preset may count instead. TrainingError if there is no such preset.
    """
    known = presets()
    if name not in known:
        raise TrainingError(f"There is no preset {name!r}; there are {', '.join(known)}.")
    if "epochs" in changes:
        changes = {"steps": None, **changes}
    return known[name].with_settings(changes)


def train(
    config: TrainingConfig,
    images: str | Path,
    captions: str | Path,
    backbone: str | Path,
    output: str | Path,
    **more: Any,
) -> Path:
    """Train the method that a configuration is for; arguments, result and errors as of `training.trainer.train`."""
    from ..training import trainer

    return trainer.train(config, learner(config.method).objective, images, captions, backbone, output, **more)
