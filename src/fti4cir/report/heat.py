"""Heat maps: where an attribute looked, as an image to lay over the explained image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

from ..images.preprocess import padding

_SIZE = 320
# Inferno (van der Walt and Smith, 2015), perceptually uniform, at nine equal steps.
_INFERNO = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    dtype=np.float32,
)


def seen_box(image: Image.Image) -> tuple[float, float, float, float]:
    """The square that the image tower sees: left, top, right, bottom in the image's pixels.

    It reaches beyond the image where `images.preprocess.square` pads it, and leaves out what is cropped.
    """
    width, height = image.size
    across, down = padding(width, height)
    side = min(width + 2 * across, height + 2 * down)
    left = (width - side) / 2
    top = (height - side) / 2
    return left, top, left + side, top + side


def heat_overlay(heat: npt.NDArray[np.float32], image: Image.Image, *, size: int = _SIZE) -> Image.Image:
    """A heat map (g, g) as an RGBA image to lay over the whole image. Its long side has `size` pixels.

    Each map has its own scale, from its coldest place to its hottest. Parts that the model did not see are dark.
    """
    scale = size / max(image.size)
    width, height = (max(1, round(side * scale)) for side in image.size)
    left, top, right, bottom = (round(edge * scale) for edge in seen_box(image))
    spread = float(heat.max() - heat.min())
    even = (heat - heat.min()) / spread if spread > 0 else np.zeros_like(heat)
    smooth = Image.fromarray(even).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    values = np.asarray(smooth).clip(0, 1)
    position = values * (len(_INFERNO) - 1)
    lower = position.astype(np.int64).clip(0, len(_INFERNO) - 2)
    part = (position - lower)[..., None]
    colour = _INFERNO[lower] * (1 - part) + _INFERNO[lower + 1] * part
    alpha = 255 * (0.25 + 0.5 * values)[..., None]
    seen = Image.fromarray(np.concatenate([colour, alpha], axis=-1).round().astype(np.uint8), "RGBA")
    overlay = Image.new("RGBA", (width, height), (0, 0, 0, 190))
    overlay.paste(seen, (left, top))
    return overlay
