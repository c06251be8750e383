"""A model whose features can be followed by eye: colours. It stands in for real weights in fast tests."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from fti4cir.backbones.base import VisionFeatures
from fti4cir.images.decode import open_image
from fti4cir.inversion.steering import ComposedQueries

COLOURS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "white": (1, 1, 1)}


class ColourEncoder:
    """The feature of an image: the mean colours of its upper and its lower half, (6,)."""

    joint_width = 6
    input_size = 32
    decode_at_least = 32

    def __init__(self, seconds_a_batch: float = 0.0) -> None:
        self.seconds_a_batch = seconds_a_batch
        self.encoded = 0

    def preprocess(self, image: Image.Image) -> Tensor:
        assert image.mode == "RGB"
        return torch.from_numpy(np.array(image.resize((32, 32)), dtype=np.float32)).permute(2, 0, 1) / 255 - 0.5

    def encode_pixels(self, pixels: Tensor) -> VisionFeatures:
        time.sleep(self.seconds_a_batch)
        self.encoded += len(pixels)
        halves = torch.stack([pixels[:, :, :16].mean((2, 3)), pixels[:, :, 16:].mean((2, 3))], dim=1)  # (B, 2, 3)
        return VisionFeatures(halves.flatten(1) * 7, halves)


class ColourModel:
    """Words are colours; "this image, but red" is the image with red light added."""

    def __init__(self, name: str = "mini", fingerprint: str = "colours-1", seconds_a_batch: float = 0.0) -> None:
        self.name = name
        self.fingerprint = fingerprint
        self.encoder = ColourEncoder(seconds_a_batch)

    def encode_images(self, images: Sequence[str | Path | Image.Image]) -> Tensor:
        pixels = torch.stack([self.encoder.preprocess(open_image(image)) for image in images])
        return F.normalize(self.encoder.encode_pixels(pixels).image, dim=-1)

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        return F.normalize(self._light(texts) - 0.5, dim=-1)

    def compose(
        self,
        images: Sequence[str | Path | Image.Image],
        texts: Sequence[str],
        *,
        strength: float = 1.0,
        balance: float = 0.0,
    ) -> Tensor:
        image = self.encode_images(images)
        composed = F.normalize(image + F.normalize(self._light(texts), dim=-1), dim=-1)
        queries = ComposedQueries(image=image, plain=image, composed=composed)
        return queries.at(strength=strength, balance=balance)

    def require_inversion(self) -> None:
        """It can compose."""

    def _light(self, texts: Sequence[str]) -> Tensor:
        rows = []
        for text in texts:
            colours = [COLOURS[word] for word in text.split() if word in COLOURS] or [(0.6, 0.6, 0.6)]
            rows.append(torch.tensor(colours, dtype=torch.float32).mean(0).repeat(2))
        return torch.stack(rows)  # (B, 6)


def save_colour(path: Path, colour: str | tuple[int, int, int], size: tuple[int, int] = (48, 40)) -> Path:
    """A file with an image of one colour, of the kind that the name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path
