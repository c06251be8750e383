"""Convert any image to sRGB on white: colour profiles, bit depths, transparency."""

from __future__ import annotations

import io
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import PHOTOMETRIC_INTERPRETATION, SAMPLEFORMAT, TiffImageFile

from .file import MOST_PROFILE

# A profile that differs from sRGB by no more grey levels than this is not applied: that is rounding.
_SAME = 2
_GREYS = ("1", "L", "LA", "La")
_WHITE_IS_ZERO = 0
_UNSIGNED = 1


def to_srgb(image: Image.Image) -> Image.Image:
    """A loaded image as RGB in sRGB: its colour profile applied, transparent places white, without metadata.

    Values of more than 8 bit are scaled to 8 bit. A profile that is broken, or made for a different kind of colours,
    is ignored.
    """
    profile = image.info.get("icc_profile")
    alpha: Image.Image | None = None
    if image.mode.startswith("I") or image.mode == "F":
        image, alpha = _eight_bit(image)
    elif image.has_transparency_data:
        image, alpha = _without_alpha(image)
    rgb = _apply(profile if isinstance(profile, bytes) else b"", image)
    if alpha is not None:
        rgb.putalpha(alpha)
        rgb = Image.alpha_composite(Image.new("RGBA", rgb.size, "white"), rgb).convert("RGB")
    # Otherwise code that uses the result could apply the profile or the orientation a second time.
    rgb.info.clear()
    return rgb


def _without_alpha(image: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The colours (grey for a grey image) and the opacity of each pixel, both 8 bit."""
    rgba = image.convert("RGBA")
    colours = rgba.convert("L" if image.mode in _GREYS else "RGB")
    return colours, rgba.getchannel("A")


# -- colour profiles ------------------------------------------------------------------------------------------
def _apply(profile: bytes, image: Image.Image) -> Image.Image:
    """Convert an image without transparency, in any 8-bit mode, to RGB in sRGB."""
    transform: ImageCms.ImageCmsTransform | None = None
    if image.mode == "LAB":
        transform = _transform_of_lab()
    elif 0 < len(profile) <= MOST_PROFILE:
        colours = "L" if image.mode in _GREYS else "CMYK" if image.mode == "CMYK" else "RGB"
        transform = _transform(profile, colours)
    if transform is None:
        return image.convert("RGB")
    return transform.apply(image if image.mode == transform.input_mode else image.convert(transform.input_mode))


@lru_cache(maxsize=16)
def _transform(profile: bytes, colours: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile to sRGB, for grey (L), RGB or CMYK; None if it changes nothing or cannot be used.

    Grey images with an RGB profile are common. The profile then defines how light their greys are.
    """
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        space = source.profile.xcolor_space.strip()
        if (colours, space) not in (("L", "GRAY"), ("L", "RGB"), ("RGB", "RGB"), ("CMYK", "CMYK")):
            return None
        mode = {"GRAY": "L"}.get(space, space)
        transform = _build(source, mode)
        return None if mode != "CMYK" and _changes_nothing(transform) else transform
    except Exception:  # which errors a broken profile raises is not documented, and its image is fine
        return None


@lru_cache(maxsize=1)
def _transform_of_lab() -> ImageCms.ImageCmsTransform:
    return _build(ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")), "LAB")


def _build(source: ImageCms.ImageCmsProfile, mode: str) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(
        source,
        ImageCms.createProfile("sRGB"),
        mode,
        "RGB",
        ImageCms.Intent.RELATIVE_COLORIMETRIC,
        ImageCms.Flags.BLACKPOINTCOMPENSATION,
    )


def _changes_nothing(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform of grey or RGB leaves a sample of all colours unchanged."""
    levels = np.arange(0, 256, 17, dtype=np.uint8)
    if transform.input_mode == "L":
        probe = Image.fromarray(levels[None])
    else:
        probe = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))
    before, after = (np.asarray(one, dtype=np.int16) for one in (probe.convert("RGB"), transform.apply(probe)))
    return int(np.abs(before - after).max()) <= _SAME


# -- depths ---------------------------------------------------------------------------------------------------
def _eight_bit(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Convert grey values of 16 bit, 32 bit or float to 8 bit; also the opacity, if any pixel is transparent.

    Pillow's own conversion would clip the values at 255. Values of 16 bit use their full range. The wider types do
    not define white: the smallest usual range that holds all values is used (0 to 1 for floats, then 0 to 255,
    0 to 65,535), otherwise the range from the least to the greatest value.
    """
    values = _values(image)  # (H, W)
    if image.mode.startswith("I;16"):
        black, white = 0.0, 65535.0
    else:
        finite = values[np.isfinite(values)]
        black, white = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        for usual in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0):
            if black >= 0.0 and white <= usual:
                black, white = 0.0, usual
                break
    shown = np.nan_to_num(values, nan=black, posinf=white, neginf=black)
    scale = 255.0 / (white - black) if white > black else 0.0
    grey = np.round((shown - black) * scale).astype(np.uint8)
    if isinstance(image, TiffImageFile) and image.tag_v2.get(PHOTOMETRIC_INTERPRETATION) == _WHITE_IS_ZERO:
        grey = 255 - grey
    transparent = image.info.get("transparency")
    if not isinstance(transparent, int):
        return Image.fromarray(grey), None
    return Image.fromarray(grey), Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8))


def _values(image: Image.Image) -> NDArray[np.floating]:
    """The values of a grey image of more than 8 bit, (H, W). Unsigned 32-bit values stay unsigned."""
    values = np.asarray(image)
    if image.mode in ("I", "F") and isinstance(image, TiffImageFile):
        if image.tag_v2.prefix == b"MM" and image.info.get("compression") != "raw":
            values = values.byteswap()  # libtiff uses this machine's byte order, and Pillow swaps it again
        if image.mode == "I" and image.tag_v2.get(SAMPLEFORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
            values = values.view(np.uint32)
    # Integers of 32 bit need a float64; for the others it would only take more memory.
    return values.astype(np.float64 if image.mode == "I" else np.float32)
