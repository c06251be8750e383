"""Which backbones there are: every module of this package that has a record `BACKBONE`.

A new backbone is one file in this folder. It needs two things:

    BACKBONE = Backbone(kind="CLIP", model_types=("clip",))

    def load_encoder(folder: Path, name: str, dtype: Precision) -> DualEncoder: ...

The record is read from the file's text, and its arguments are literals. So the command line can list all backbones
without importing torch. The module itself is imported when one of its models is loaded.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ..discovery import registered
from ..errors import ModelError

_PACKAGE = __package__
_WEIGHTS = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True, kw_only=True)
class Backbone:
    """What is known of a kind of dual encoder before its module is imported."""

    kind: str
    """What a person calls a model of this kind, such as `CLIP`."""
    model_types: tuple[str, ...] = ()
    """What the config.json of such a model says as its `model_type`. Empty for a bundled model."""
    bundled: bool = False
    """Whether the module's name is the name of one model, whose weights come with the package."""


def backbones() -> Mapping[str, Backbone]:
    """The module's name -> its record, in alphabetical order."""
    import fti4cir.backbones as package

    found = registered(package.__path__, "BACKBONE")
    return {
        module: Backbone(**{name: ast.literal_eval(value) for name, value in one.arguments.items()})
        for module, one in found.items()
    }


def bundled_folder(name: str) -> Path | None:
    """The folder of the weights of a bundled model; None if no bundled model has that name."""
    record = backbones().get(name)
    return _WEIGHTS / name if record is not None and record.bundled else None


def kinds() -> list[str]:
    """What a person may name by a hub name or a folder, such as `CLIP`."""
    return [record.kind for record in backbones().values() if record.model_types]


def model_types() -> list[str]:
    """All values of `model_type` that can be read."""
    return [model_type for record in backbones().values() for model_type in record.model_types]


def module_of(model_type: object, name: str) -> ModuleType:
    """The module that reads models of a type.

    Args:
        model_type: as the model's config.json says it; any JSON value.
        name: what the error calls the model.

    Raises:
        ModelError: if no backbone reads models of that type.

    """
    for module, record in backbones().items():
        if model_type in record.model_types:
            return import_module(module)
    raise ModelError(
        f"{name} is not a model that can be read: its config.json says {model_type!r}; known are "
        f"{', '.join(model_types())}."
    )


def import_module(name: str) -> ModuleType:
    """Import the module of a backbone."""
    return importlib.import_module(f"{_PACKAGE}.{name}")
