"""Load models as `transformers` saves them, safely.

Weights are read as safetensors only, and no code from a folder is run.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from ..errors import ModelError
from .base import Precision
from .folder import has_tokenizer, has_weights, read_json


def read_processor(folder: Path, name: str) -> dict[str, Any]:
    """How images are brought to a model, once it is certain that the folder has all other files, too.

    Raises:
        ModelError: if weights as safetensors, the mean and deviation of pixels, or the tokeniser are missing.

    """
    if not has_weights(folder):
        raise ModelError(f"{name} has no weights as safetensors; others, such as pytorch_model.bin, are not read.")
    processor = read_json(folder / "preprocessor_config.json")
    for key in ("image_mean", "image_std"):
        if not isinstance(processor.get(key), list) or len(processor[key]) != 3:
            raise ModelError(f"The preprocessor_config.json of {name} lacks image_mean and image_std.")
    if not has_tokenizer(folder):
        raise ModelError(f"{name} has no tokeniser (tokenizer.json, or vocab.json and merges.txt).")
    return processor


def load_model_and_tokenizer(
    folder: Path, name: str, *, model_class: Any, tokenizer_class: Any, dtype: Precision
) -> tuple[Any, Any]:
    """The model and the tokeniser of a folder, on the CPU.

    Args:
        folder: as `transformers` saves it.
        name: what an error calls the model.
        model_class: of transformers.
        tokenizer_class: of transformers.
        dtype: of the weights.

    Raises:
        ModelError: if a file is damaged, or some of the model's weights are missing.

    """
    try:
        with quiet_transformers():
            model, info = model_class.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            tokenizer = tokenizer_class.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # For damaged files, transformers, tokenizers and safetensors raise errors of almost any class. The message
        # says which file it was.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"The model in {folder} cannot be loaded, its files may be damaged ({reason}).") from error
    # transformers fills what is missing with random numbers.
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ModelError(f"The weights of {name} are not complete: {sorted(info['missing_keys'])[:3]} ... are missing.")
    return model, tokenizer


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar and no advice on stderr while a model loads."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
