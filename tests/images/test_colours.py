"""Colour profiles: what is converted, what is passed over. The profiles are made here, byte by byte."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from fti4cir.images.decode import decode_image, open_image

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# Red, green and blue in XYZ under D50, and the exponent of the values, as each space defines them.
SPACES = {
    "Adobe RGB": (((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)), 2.2),
    "Display P3": (((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407)), 2.2),
    "ProPhoto": (((0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.0), (0.03134, 0.00009, 0.82491)), 1.8),
}


def fixed(value: float) -> bytes:
    return struct.pack(">i", round(value * 65536))


def profile(kind: bytes, tags: dict[bytes, bytes]) -> bytes:
    """An ICC profile, version 2, of a display."""
    table, content = b"", b""
    for name, body in tags.items():
        table += struct.pack(">4sII", name, 132 + 12 * len(tags) + len(content), len(body))
        content += body + b"\0" * (-len(body) % 4)
    header = struct.pack(">I4sI4s4s4s", 132 + len(table) + len(content), b"lcms", 0x02100000, b"mntr", kind, b"XYZ ")
    header += b"\0" * 12 + b"acsp" + b"\0" * 28 + fixed(0.9642) + fixed(1.0) + fixed(0.8249)
    return header.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + content


def curve(exponent: float) -> bytes:
    return b"curv" + b"\0" * 4 + struct.pack(">IH", 1, round(exponent * 256))


def xyz(*values: float) -> bytes:
    return b"XYZ " + b"\0" * 4 + b"".join(map(fixed, values))


def rgb_profile(space: str) -> bytes:
    primaries, exponent = SPACES[space]
    tags = {b"wtpt": xyz(0.9642, 1.0, 0.8249)}
    for letter, primary in zip("rgb", primaries, strict=True):
        tags[f"{letter}XYZ".encode()] = xyz(*primary)
        tags[f"{letter}TRC".encode()] = curve(exponent)
    return profile(b"RGB ", tags)


def grey_profile(exponent: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": xyz(0.9642, 1.0, 0.8249), b"kTRC": curve(exponent)})


def saved(image: Image.Image, kind: str, icc: bytes, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, icc_profile=icc, **options)
    return buffer.getvalue()


def colours() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(40, 200, (24, 24, 3), dtype=np.uint8))


def expected(values: np.ndarray, space: str) -> np.ndarray:
    """To sRGB by the formulas of the two spaces, clipped."""
    primaries, exponent = SPACES[space]
    to_xyz = np.array(primaries).T
    srgb = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    linear = ((values / 255.0) ** exponent) @ (np.linalg.inv(srgb) @ to_xyz).T
    linear = linear.clip(0, 1)
    return 255 * np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "AVIF", "JPEG", "HEIF"])
def test_wide_colours_become_srgb(space: str, kind: str) -> None:
    flat = Image.new("RGB", (32, 32), (180, 120, 90))
    if kind == "HEIF":
        pillow_heif = pytest.importorskip("pillow_heif")
        buffer = io.BytesIO()
        pillow_heif.from_pillow(flat).save(buffer, quality=100, icc_profile=rgb_profile(space))
        data = buffer.getvalue()
    else:
        data = saved(flat, kind, rgb_profile(space), **({"lossless": True} if kind == "WEBP" else {}))
    found = np.asarray(decode_image(data, "x").image, dtype=float)
    assert np.abs(found - expected(np.asarray(flat, dtype=float), space)).max() < 5
    assert np.abs(found - np.asarray(flat)).max() > 8  # so it was not like this without


def test_every_colour(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(saved(colours(), "PNG", rgb_profile("Adobe RGB")))
    found = np.asarray(open_image(tmp_path / "x.png"), dtype=float)
    assert np.abs(found - expected(np.asarray(colours(), dtype=float), "Adobe RGB")).max() < 3


def test_a_pil_image_with_a_profile_is_converted_once() -> None:
    data = saved(colours(), "PNG", rgb_profile("ProPhoto"))
    once = open_image(Image.open(io.BytesIO(data)))
    assert once.tobytes() == decode_image(data, "x").image.tobytes() != colours().tobytes()
    assert open_image(once).tobytes() == once.tobytes()
    # Pillow keeps the profile where it changes the mode.
    assert open_image(Image.open(io.BytesIO(data)).convert("RGBA")).tobytes() == once.tobytes()


def test_srgb_changes_no_pixel() -> None:
    for kind in ("PNG", "TIFF"):
        assert decode_image(saved(colours(), kind, SRGB), "x").image.tobytes() == colours().tobytes()


@pytest.mark.parametrize(
    "broken", [b"garbage", SRGB[:200], b"\0" * 5000, SRGB[:128] + b"\xff" * (len(SRGB) - 128)], ids=len
)
def test_a_broken_profile_is_passed_over(broken: bytes) -> None:
    for kind in ("PNG", "TIFF", "JPEG"):
        plain = saved(colours(), kind, b"")
        assert (
            decode_image(saved(colours(), kind, broken), "x").image.tobytes()
            == decode_image(plain, "x").image.tobytes()
        )
    assert open_image(_with_profile(colours(), "not even bytes")).tobytes() == colours().tobytes()


def test_a_profile_for_other_colours_is_passed_over() -> None:
    assert open_image(_with_profile(colours(), grey_profile(1.0))).tobytes() == colours().tobytes()
    cmyk = colours().convert("CMYK")
    plain = cmyk.convert("RGB").tobytes()
    assert open_image(_with_profile(cmyk, rgb_profile("ProPhoto"))).tobytes() == plain


def test_grey_with_a_profile_for_grey_or_for_colours() -> None:
    grey = Image.new("L", (8, 8), 128)
    linear = open_image(_with_profile(grey, grey_profile(1.0))).getpixel((0, 0))
    assert abs(linear[0] - 188) <= 1  # half of the light
    assert linear[0] == linear[1] == linear[2]
    lighter = open_image(_with_profile(grey, rgb_profile("ProPhoto"))).getpixel((0, 0))
    assert abs(lighter[0] - expected(np.full((1, 3), 128.0), "ProPhoto")[0, 0]) < 3


def test_deep_grey_and_palettes() -> None:
    deep = Image.fromarray(np.full((8, 8), 32896, dtype=np.uint16))
    assert abs(open_image(_with_profile(deep, grey_profile(1.0))).getpixel((0, 0))[0] - 188) <= 1
    palette = Image.new("RGB", (8, 8), (180, 120, 90)).quantize(4)
    found = open_image(_with_profile(palette, rgb_profile("ProPhoto"))).getpixel((0, 0))
    assert np.abs(np.array(found) - expected(np.array([[180.0, 120, 90]]), "ProPhoto")[0]).max() < 3


def test_transparency_stays_white_and_the_rest_is_converted() -> None:
    image = Image.new("RGBA", (8, 8), (180, 120, 90, 255))
    image.putpixel((0, 0), (10, 20, 30, 0))
    found = open_image(_with_profile(image, rgb_profile("ProPhoto")))
    assert found.getpixel((0, 0)) == (255, 255, 255)
    assert np.abs(np.array(found.getpixel((5, 5))) - expected(np.array([[180.0, 120, 90]]), "ProPhoto")[0]).max() < 3


def test_lab() -> None:
    neutral = saved(Image.new("LAB", (8, 8), (128, 128, 128)), "TIFF", b"")
    red, green, blue = decode_image(neutral, "x").image.getpixel((0, 0))
    assert abs(red - 119) < 4
    assert max(red, green, blue) - min(red, green, blue) < 4


def _with_profile(image: Image.Image, icc: object) -> Image.Image:
    image.info["icc_profile"] = icc
    return image
