"""Where the heat lies on the image."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from fti4cir.images.preprocess import square
from fti4cir.report.heat import heat_overlay, seen_box
from tinyclip import picture


@pytest.mark.parametrize("size", [(100, 100), (120, 100), (100, 160), (300, 100), (90, 400)], ids=str)
def test_seen_box_is_what_the_model_sees(size: tuple[int, int]) -> None:
    """An image whose colours tell the place, through the real preprocessing and back."""
    width, height = size
    x, y = np.meshgrid(np.linspace(50, 250, width), np.linspace(50, 250, height))
    image = Image.fromarray(np.stack([x, y, np.full_like(x, 255)], axis=-1).round().astype(np.uint8))
    seen = np.asarray(square(image, 64), dtype=float)
    left, top, right, bottom = seen_box(image)
    inside = 0
    for row in range(4, 64, 8):
        for column in range(4, 64, 8):
            red, green, blue = seen[row, column]
            place_x = left + (column + 0.5) / 64 * (right - left)
            place_y = top + (row + 0.5) / 64 * (bottom - top)
            if blue < 128:  # padding
                assert not (2 < place_x < width - 2 and 2 < place_y < height - 2)
                continue
            if seen[row - 3 : row + 4, column - 3 : column + 4, 2].min() == 255:  # away from the padding's blurred edge
                inside += 1
                assert (red - 50) / 200 * (width - 1) == pytest.approx(place_x - 0.5, abs=1 + width / 64)
                assert (green - 50) / 200 * (height - 1) == pytest.approx(place_y - 0.5, abs=1 + height / 64)
    assert inside > 10


@pytest.mark.parametrize("size", [(40, 40), (80, 40), (30, 90)], ids=str)
def test_overlay_is_hot_where_the_heat_is(size: tuple[int, int]) -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[1, 2] = 1
    image = picture(size=size)
    overlay = heat_overlay(heat, image)
    assert overlay.mode == "RGBA"
    assert overlay.width / overlay.height == pytest.approx(size[0] / size[1], rel=0.02)
    left, top, right, bottom = seen_box(image)
    brightness = np.asarray(overlay)[:, :, :3].sum(axis=-1, dtype=int)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    scale = overlay.width / size[0]
    assert column / scale == pytest.approx(left + 2.5 / 4 * (right - left), abs=(right - left) / 8)
    assert row / scale == pytest.approx(top + 1.5 / 4 * (bottom - top), abs=(bottom - top) / 8)


def test_even_heat() -> None:
    overlay = np.asarray(heat_overlay(np.full((4, 4), 1 / 16, dtype=np.float32), picture(size=(40, 40))))
    assert (overlay == overlay[0, 0]).all()
