"""A picture has the same feature alone, in any batch and at any position in it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import fti4cir
from fti4cir.backbones.base import DualEncoder
from tinyclip import clip_folder, encoder, picture

__all__ = ["clip_folder", "encoder"]

TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2e-2}
"""The most by which an entry of a unit-length feature may differ, by the precision that the tower runs in.

Kernels are chosen by the size of a batch, and each adds in its own order. Measured over this test's batches: see
`docs/search.md`.
"""


def precision(encoder: DualEncoder) -> torch.dtype:
    fast = encoder.name == "mini" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return torch.bfloat16 if fast else torch.float32


def most(encoder: DualEncoder, pixels: torch.Tensor, seed: int, rounds: int) -> float:
    """The greatest difference of any entry, over batches drawn at random."""
    random = np.random.default_rng(seed)
    alone = [F.normalize(encoder.encode_pixels(one[None]).image, dim=-1)[0] for one in pixels]
    greatest = 0.0
    for _ in range(rounds):
        rows = random.integers(0, len(pixels), int(random.integers(2, 41)))  # repeated ones too
        together = F.normalize(encoder.encode_pixels(pixels[rows]).image, dim=-1)
        greatest = max(greatest, float((together - torch.stack([alone[row] for row in rows])).abs().max()))
    return greatest


@pytest.fixture(scope="module")
def mini() -> DualEncoder:
    return fti4cir.load("mini", device="cpu").encoder


@pytest.mark.parametrize("name", ["mini", "tiny CLIP"])
def test_batch_and_position_make_no_difference(name: str, mini: DualEncoder, encoder: DualEncoder) -> None:
    tried = mini if name == "mini" else encoder
    images = [picture(seed, (60 + 7 * seed, 50)) for seed in range(5)] + [Image.new("RGB", (50, 40), "teal")]
    pixels = torch.stack([tried.preprocess(image) for image in images])
    rounds = 3 if name == "mini" else 40
    assert most(tried, pixels, 0, rounds) <= TOLERANCE[precision(tried)]
