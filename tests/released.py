"""Figures of the authors' release on a small random CLIP, which travel with the tests: `reference/README.md`."""

import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RELEASED = Path(__file__).parent / "reference"
_TABLE = "text_model.embeddings.token_embedding.weight"


def write_clip(folder: Path) -> Path:
    """Write the small CLIP as a folder that `transformers` reads.

    Only the token embeddings that the tests use are kept with them. The others are filled in with not-a-number, so that
    a test that needs another one fails.
    """
    shutil.copytree(RELEASED / "clip-tiny", folder)
    weights = load_file(folder / "weights.safetensors")
    (folder / "weights.safetensors").unlink()
    kept = weights.pop(f"{_TABLE}.rows").long()
    table = torch.full((49408, weights[_TABLE].shape[1]), torch.nan)
    table[kept] = weights[_TABLE]
    save_file({**weights, _TABLE: table}, folder / "model.safetensors", {"format": "pt"})
    return folder
