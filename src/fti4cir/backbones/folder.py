"""The folder of a dual encoder as `transformers` saves it: which files it has. Torch is not needed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..errors import ModelError

FILES = (
    "config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
)
"""Patterns of the files of a dual encoder. Pickled weights (pytorch_model.bin) are never read."""


def is_complete(folder: Path) -> bool:
    """Whether a folder holds a config, preprocessing, weights as safetensors and a tokeniser."""
    return (
        (folder / "config.json").exists()
        and (folder / "preprocessor_config.json").exists()
        and has_weights(folder)
        and has_tokenizer(folder)
    )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file of a model; ModelError if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); the folder is not a model's.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error}); copy or make the model again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object; copy or make the model again.")
    return value


def has_weights(folder: Path) -> bool:
    """Whether there are weights as safetensors, in one file or several."""
    return any(folder.glob("model*.safetensors"))


def has_tokenizer(folder: Path) -> bool:
    """Whether there is a tokeniser, in one file or in the two of the older form."""
    one_file = (folder / "tokenizer.json").exists()
    return one_file or ((folder / "vocab.json").exists() and (folder / "merges.txt").exists())
