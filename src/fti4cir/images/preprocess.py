"""Make an upright RGB image square, with exactly the pixels of the method's release and torchvision."""

from __future__ import annotations

from PIL import Image

RATIO = 1.25

# Rows that are padded and resized together.
_ROWS = 256


def padding(width: int, height: int, *, ratio: float = RATIO) -> tuple[int, int]:
    """How many pixels the target pad puts at the left and at the right, and how many above and below.

    If the aspect ratio is at least `ratio`, the short side is padded until the aspect ratio is about `ratio`. Both ends
    get the same padding, so the result may be one pixel short of it.
    """
    if max(width, height) / min(width, height) < ratio:
        return 0, 0
    scaled = max(width, height) / ratio
    return max(int((scaled - width) / 2), 0), max(int((scaled - height) / 2), 0)


def square(image: Image.Image, size: int, *, ratio: float = RATIO) -> Image.Image:
    """Target pad with black, resize the short side to `size` (bicubic), crop the centre: an image of (size, size).

    Padding a panorama at its full size would take gigabytes. Pillow resizes all rows first and then all columns, so the
    rows can be padded and resized a few at a time, with the same result.
    """
    across, down = padding(*image.size, ratio=ratio)
    width, height = image.width + 2 * across, image.height + 2 * down
    if width <= height:
        wide, high = size, int(size * height / width)
    else:
        wide, high = int(size * width / height), size
    rows = Image.new("RGB", (wide, height))
    for top in range(0, image.height, _ROWS):
        bottom = min(top + _ROWS, image.height)
        band = image.crop((-across, top, image.width + across, bottom))
        rows.paste(band.resize((wide, bottom - top), Image.Resampling.BICUBIC), (0, down + top))
    resized = rows.resize((wide, high), Image.Resampling.BICUBIC)
    left, top = round((wide - size) / 2.0), round((high - size) / 2.0)
    return resized.crop((left, top, left + size, top + size))
