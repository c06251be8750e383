"""From an upright RGB picture to a square one: the "target pad" preprocessing of CIR."""

from __future__ import annotations

from PIL import Image, ImageOps

RATIO = 1.25


def padded_size(width: int, height: int, ratio: float = RATIO) -> tuple[int, int]:
    """What `target_pad` makes of a picture's size."""
    short = round(max(width, height) / ratio)
    return max(width, short), max(height, short)


def target_pad(image: Image.Image, ratio: float = RATIO) -> Image.Image:
    """Pad the short side with black until the aspect ratio is at most `ratio` (Baldrati et al., 2022)."""
    width, height = image.size
    wide, high = padded_size(width, height, ratio)
    left, top = (wide - width) // 2, (high - height) // 2
    return ImageOps.expand(image, (left, top, wide - width - left, high - height - top))


def square(image: Image.Image, size: int, ratio: float = RATIO) -> Image.Image:
    """Target pad, resize the short side to `size` (bicubic), crop the centre: an image of (size, size)."""
    width, height = image.size
    excess = min(padded_size(width, height, ratio)) / (4 * size)
    if excess > 1:
        # Padding a panorama of 20000 x 2 at its full size would take a gigabyte.
        shrunk = max(1, round(width / excess)), max(1, round(height / excess))
        image = image.resize(shrunk, Image.Resampling.BICUBIC, reducing_gap=3.0)
    image = target_pad(image, ratio)
    width, height = image.size
    if width < height:
        width, height = size, int(size * height / width)
    else:
        width, height = int(size * width / height), size
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - size) // 2, (height - size) // 2
    return image.crop((left, top, left + size, top + size))
