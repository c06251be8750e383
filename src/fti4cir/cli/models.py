"""Models as a user names them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from .terminal import note

if TYPE_CHECKING:
    from ..model import Model

DEFAULT_MODEL = "mini"
BETTER_MODEL = "vit-l-14"

_MODELS = f"{DEFAULT_MODEL}, {BETTER_MODEL}, a CLIP's hub name or folder, or a folder made by train or convert."
ModelOption = Annotated[str, typer.Option("--model", metavar="NAME_OR_DIR", help=_MODELS)]
StoreModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME_OR_DIR",
        help=f"{_MODELS} By default the store's own model, for a new store {DEFAULT_MODEL}.",
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
    import fti4cir

    return fti4cir.load(announce(name, "model"))


def load_models(names: Sequence[str]) -> list[Model]:
    """Load one or several models, each once, and say which."""
    if len(names) == 1:
        return [load_model(names[0])]
    from ..checkpoint import load_all

    located = list(dict.fromkeys(map(_located, names)))
    for name in located:
        # No hint at a better one, for it would not stand on the encoder of those that are compared.
        note(f"model: {name}")
    return load_all(located)


def announce(name: str, option: str) -> str:
    """Say which model is used and which option asks for a better one; gives its name from wherever one is."""
    name = _located(name)
    if name == DEFAULT_MODEL:
        note(f"{option}: {name} (bundled, small); for better results: --{option} {BETTER_MODEL}")
    elif name == BETTER_MODEL:
        note(f"{option}: {name}")
    else:
        note(f"{option}: {name}; the best that is ready-made: --{option} {BETTER_MODEL}")
    return name


def _located(name: str) -> str:
    """The name of a model from wherever one is."""
    # A store notes its model's name, and is searched from other folders; a trained model that of its backbone.
    return os.path.abspath(name) if name not in (DEFAULT_MODEL, BETTER_MODEL) and os.path.isdir(name) else name
