"""Models as a user names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from ..backbones import registry
from ..models import names as known
from .terminal import note

if TYPE_CHECKING:
    from ..models.model import Model

DEFAULT_MODEL = known.DEFAULT
BETTER_MODEL = known.RELEASED

_KINDS = " or ".join(registry.kinds())
BACKBONES = f"{DEFAULT_MODEL}, or the hub name or folder of a {_KINDS}"
"""How a user can name an encoder, for help."""
_MODELS = (
    f"{DEFAULT_MODEL}, {BETTER_MODEL}, the hub name or folder of a {_KINDS}, or a folder made by train or convert."
)
ModelOption = Annotated[str, typer.Option("--model", metavar="NAME_OR_DIR", help=_MODELS)]
StoreModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME_OR_DIR",
        help=f"{_MODELS} A folder keeps one index for each model. The default is the model of the newest index, "
        f"and {DEFAULT_MODEL} for a folder without one.",
        show_default=False,
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME_OR_DIR",
        help=f"{_MODELS} Given several times, models on one encoder are compared in one pass.",
        show_default=DEFAULT_MODEL,
    ),
]


def load_model(name: str) -> Model:
    """Load a model, and say which."""
    name = require(name)
    import fti4cir

    loaded = fti4cir.load(name)
    note(f"model: {name}")
    return loaded


def load_models(names: Sequence[str]) -> list[Model]:
    """Load one or several models, each once, and say which."""
    if len(names) == 1:
        return [load_model(names[0])]
    required = list(dict.fromkeys(map(require, names)))
    from ..models.loading import load_all

    loaded = load_all(required)
    for name in required:
        note(f"model: {name}")
    return loaded


def require(name: str) -> str:
    """A model's name that is valid from any folder, once its files are here; ModelError if they cannot be downloaded.

    The model's libraries are not imported, so that a mistake is reported quickly.
    """
    name = check(name)
    known.fetch(name)
    return name


def check(name: str) -> str:
    """A model's name that is valid from any folder; ModelError if no model can have it. Nothing is downloaded."""
    name = located(name)
    known.check(name)
    return name


def hint(name: str) -> None:
    """Say how to get better results than with the default model."""
    if name == DEFAULT_MODEL:
        note(
            f"{name} is small and comes with the package; for better results, which take longer: --model {BETTER_MODEL}"
        )


def located(name: str) -> str:
    """A model's name that is valid from any folder."""
    # An index keeps the name of its model, and a trained model that of its backbone. Both are used from other folders.
    return os.path.abspath(name) if name not in (DEFAULT_MODEL, BETTER_MODEL) and os.path.isdir(name) else name
