"""The authors' released checkpoint to a saved model."""

from __future__ import annotations

from pathlib import Path

from ..backbones.base import DualEncoder
from .authors_pickle import read_released
from .model import Model
from .saved import build_inversion, save_model


def convert_checkpoint(checkpoint: Path, encoder: DualEncoder, *, output: Path, source: str) -> Path:
    """Convert a checkpoint for an encoder that is loaded already; returns the folder of the saved model.

    Args:
        checkpoint: the file that the release saved.
        encoder: the CLIP it was trained on.
        output: the folder to write.
        source: where the checkpoint came from, for the config's `trained`.

    Raises:
        ModelError: if the checkpoint is unsafe, damaged or of another kind, or does not fit the encoder.

    """
    released = read_released(checkpoint)
    inversion = build_inversion(released.config, released.state, source=str(checkpoint))
    Model(encoder, inversion, str(checkpoint))  # refuses widths that do not fit
    trained = {
        "by": "the authors' release",
        "converted_from": source,
        "settings": released.recorded,
        "assumed": released.assumed,
    }
    return save_model(output, inversion, encoder=encoder, trained=trained)
