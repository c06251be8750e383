"""Decode the content of an image file: which formats are accepted, how much memory an image may take, what is repaired.

Pillow opens by content, not by name. The formats are listed here one by one: with Pillow's own list, an EPS file
called .jpg would start Ghostscript. No global setting of Pillow is changed, so other threads and other users of
Pillow in the process notice nothing.
"""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    Jpeg2KImagePlugin,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

# Importing a plugin registers its format.
_PLUGINS = (
    (JpegImagePlugin, "JPEG"),
    (PngImagePlugin, "PNG"),
    (WebPImagePlugin, "WEBP"),
    (GifImagePlugin, "GIF"),
    (BmpImagePlugin, "BMP"),
    (TiffImagePlugin, "TIFF"),
    (AvifImagePlugin, "AVIF"),
    (Jpeg2KImagePlugin, "JPEG2000"),
    (PpmImagePlugin, "PPM"),
)

MOST_MEMORY = 2**30
"""Bytes that a decoded image may take, at four bytes per pixel. A larger JPEG is decoded at a fraction of its size."""
MOST_COEFFICIENTS = 3 * 2**30
"""Bytes that the coefficients of a progressive JPEG may take: all of them are kept, at any decoded size."""
MOST_PROFILE = 2**22
"""Bytes of a colour profile; a larger one is ignored."""
MOST_MISSING = 0.5
"""The share of an image that may be missing. If more is missing, the file counts as unreadable."""

_BYTES_A_PIXEL = 4
# OpenJPEG keeps four bytes for each sample, beside Pillow's copy.
_BYTES_A_PIXEL_JPEG2000 = 16
# The most rows that a JPEG's row of blocks has.
_BLOCK = 32
# Images that take more bytes than this are decoded one at a time, for any number of threads.
_LARGE = 2**28
_one_large_at_a_time = threading.Lock()

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_END_OF_JPEG = b"\xff\xd9"
_SIGNATURES = (_JPEG, _PNG, b"GIF87a", b"GIF89a", b"RIFF")
# Bytes of junk before the image that are skipped at most. Further on could be the preview within a RAW file.
_MOST_JUNK = 128

# Greys that Pillow does not read, though it has a decoder for each: 16 bit with white as zero in big-endian files,
# 32 bit without sign where white is zero or the file is big-endian. Added for the whole process, replacing nothing.
for _key, _mode in {
    (b"MM", 0, (1,), 1, (16,), ()): ("I;16B", "I;16B"),
    (b"II", 0, (1,), 1, (32,), ()): ("I", "I;32N"),
    (b"MM", 0, (1,), 1, (32,), ()): ("I", "I;32B"),
    (b"MM", 1, (1,), 1, (32,), ()): ("I", "I;32B"),
}.items():
    TiffImagePlugin.OPEN_INFO.setdefault(_key, _mode)


class TooLargeError(Exception):
    """Decoding would take more memory than an image may; the message is the middle of a sentence."""


class Decoded(NamedTuple):
    """A decoded image, as its file has it: not upright, in any mode, with its metadata."""

    image: Image.Image
    width: int
    """In the file, in pixels; a JPEG may be decoded at a fraction of it."""
    height: int
    missing: Image.Image | None
    """Of the image's size and mode L: white where the file holds no pixel; None if it holds all of them."""


@contextlib.contextmanager
def decoded(data: bytes, at_least: int | None) -> Iterator[Decoded]:
    """Decode a file's content; large images one at a time, until the caller is done with this one.

    With `at_least`, a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides keep
    at least so many pixels.

    Raises:
        UnidentifiedImageError: if the content is not an image of an accepted format.
        TooLargeError: if decoding would take too much memory.
        Exception: of almost any class, from Pillow's decoders, for broken files.
    """
    data = _without_junk(data)
    large = False
    with contextlib.ExitStack() as held:
        try:
            image = _open(data)
            size = image.size
            large = _fit(image, data, at_least) > _LARGE
            if large:
                held.enter_context(_one_large_at_a_time)
            _make_room(image)
            image.load()
            found = Decoded(image, *_turned_like(image, size), None)
        except (UnidentifiedImageError, TooLargeError, MemoryError):
            raise
        except Exception as error:
            if not large:  # the repaired file may be large
                held.enter_context(_one_large_at_a_time)
            found = _salvage(_repaired(data), at_least, error)
        yield found


def _open(data: bytes) -> ImageFile.ImageFile:
    """Open a file's content: only its header is read."""
    prefix = data[:16]
    reason: Exception | None = None
    for _, name in _PLUGINS:
        factory, accept = Image.OPEN[name]
        if accept is None or accept(prefix) is not True:
            continue
        try:
            image = factory(io.BytesIO(data), "")
        except Exception as error:
            reason = reason or error
            continue
        if name == "PNG":
            _transparent_as_decoded(image)
        return image
    if prefix[4:8] == b"ftyp":
        # Imported here because few folders hold such files.
        from pi_heif import HeifImageFile, is_supported

        if is_supported(io.BytesIO(data)):
            heif: ImageFile.ImageFile = HeifImageFile(io.BytesIO(data), "")
            return heif
    raise reason or UnidentifiedImageError


def _without_junk(data: bytes) -> bytes:
    """The content without junk in front: servers and scripts put blank lines or printed text there."""
    starts = [place for mark in _SIGNATURES if (place := data.find(mark, 0, _MOST_JUNK + len(mark))) >= 0]
    known = any(accept is not None and accept(data[:16]) for _, accept in (Image.OPEN[name] for _, name in _PLUGINS))
    return data if known or not starts or data[4:8] == b"ftyp" else data[min(starts) :]


def _turned_like(image: Image.Image, size: tuple[int, int]) -> tuple[int, int]:
    """The size in the file, with sides swapped if Pillow has turned the image while decoding it (TIFF only)."""
    if image.format != "TIFF":
        return size
    return image.size


# -- memory ---------------------------------------------------------------------------------------------------
def _fit(image: ImageFile.ImageFile, data: bytes, at_least: int | None) -> int:
    """Choose the fraction at which a JPEG is decoded; returns the bytes that decoding takes, or TooLargeError."""
    width, height = image.size
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        coefficients = _coefficients(image, data)
        if coefficients > MOST_COEFFICIENTS:
            raise TooLargeError(
                f"it is a progressive JPEG of {width} by {height} pixels, which takes "
                f"{coefficients / 2**30:.1f} GiB of memory at any size ({MOST_COEFFICIENTS / 2**30:g} GiB are the "
                "limit); save it as a plain JPEG, or smaller"
            )
        needed = next(by for by in (1, 2, 4, 8) if by == 8 or _BYTES_A_PIXEL * width * height // by**2 <= MOST_MEMORY)
        sides = [max(1, side // needed) for side in (width, height)]
        if at_least is not None:
            sides = [min(at_least, side) for side in sides]
        if needed > 1 or at_least is not None:
            image.draft(None, (sides[0], sides[1]))
        return coefficients + _BYTES_A_PIXEL * image.width * image.height
    bytes_a_pixel = _BYTES_A_PIXEL_JPEG2000 if image.format == "JPEG2000" else _BYTES_A_PIXEL
    memory = bytes_a_pixel * width * height
    if memory > MOST_MEMORY:
        raise TooLargeError(
            f"it is {width} by {height} pixels, which takes {memory / 2**30:.1f} GiB of memory "
            f"({MOST_MEMORY / 2**30:g} GiB are the limit, except for JPEG); save it smaller, or as JPEG"
        )
    return memory


def _coefficients(image: JpegImagePlugin.JpegImageFile, data: bytes) -> int:
    """The bytes of the coefficients that libjpeg keeps: all of them, unless the first scan holds all colours."""
    layers = [(across, down) for _, across, down, _ in image.layer]
    place = image.fp.tell() if image.fp is not None else 0
    begin = place - (6 + 2 * len(layers)) - 2
    if not image.info.get("progressive") and data[begin : begin + 2] == b"\xff\xda":
        return 0
    most = max((across for across, _ in layers), default=1) * max((down for _, down in layers), default=1)
    samples = sum(across * down for across, down in layers) / max(1, most)
    return int(2 * samples * image.width * image.height)


def _make_room(image: ImageFile.ImageFile) -> None:
    """Allocate the memory of a TIFF. Pillow itself would apply a smaller limit than ours."""
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        image.im = Image.new(image.mode, image._tile_size).im


# -- broken files ---------------------------------------------------------------------------------------------
def _repaired(data: bytes) -> bytes:
    """The content, changed so that a decoder can read everything that is there."""
    if data.startswith(_JPEG):
        return data + _END_OF_JPEG
    if data.startswith(_PNG):
        return _clean_png(data)
    return data


def _salvage(data: bytes, at_least: int | None, error: Exception) -> Decoded:
    """Decode what the content holds, and find out what is missing; raise `error` if too much is missing.

    It is decoded twice, over zeros and over ones. Pixels that differ were not in the file.
    """
    try:
        (dark, size), (light, _) = (_decode_over(ink, data, at_least) for ink in (0, 255))
        missing = _differs(dark, light)
        if isinstance(dark, JpegImagePlugin.JpegImageFile):
            missing |= _grey_end(dark)
    except TooLargeError:
        raise
    except Exception:
        raise error from None
    # Pillow lays out a transparent GIF itself, so missing pixels do not show.
    if missing.all() or (dark.format == "GIF" and "transparency" in dark.info):
        raise error
    if missing.mean() > MOST_MISSING:
        raise ValueError(
            f"{100 * missing.mean():.0f} % of the image is missing because the file is cut short or damaged"
        )
    width, height = _turned_like(dark, size)
    mask = Image.fromarray(np.where(missing, 255, 0).astype(np.uint8)) if missing.any() else None
    return Decoded(dark, width, height, mask)


def _decode_over(ink: int, data: bytes, at_least: int | None) -> tuple[ImageFile.ImageFile, tuple[int, int]]:
    """Decode as much as possible onto an image filled with `ink`; also the size in the file."""
    image = _open(data)
    size = image.size
    _fit(image, data, at_least)
    bands = len(image.getbands())
    plain = Image.new(image.mode, getattr(image, "_tile_size", image.size), ink if bands == 1 else (ink,) * bands)
    image.im = plain.im
    with contextlib.suppress(Exception):
        image.load()
    image.tile = []  # nothing more is to be decoded
    if image.size != image.im.size:  # a TIFF that Pillow would have turned at the end
        image._size = image.im.size
    if data.startswith(_PNG):
        image.info["icc_profile"] = _png_profile(data)
    return image, size


def _differs(one: Image.Image, other: Image.Image) -> NDArray[np.bool_]:
    """Where two images differ, (H, W)."""
    differs: NDArray[np.bool_] = np.asarray(one) != np.asarray(other)
    return _of_pixels(differs)


def _grey_end(image: Image.Image) -> NDArray[np.bool_]:
    """Where the image ends in middle grey, (H, W), which libjpeg puts in place of missing blocks.

    These are rows over the whole width, and above them the last columns of one row of blocks.
    """
    values = np.asarray(image)
    coloured: Any = _of_pixels(np.abs(values.astype(np.int16) - 127.5) >= 1)  # (H, W)
    missing = np.zeros_like(coloured)
    whole = len(coloured) - _clear(coloured.any(axis=1)[::-1])
    missing[whole:] = True
    begin = whole - min(_clear(coloured[:whole, -1][::-1]), _BLOCK)
    if begin < whole:
        missing[begin:whole, coloured.shape[1] - _clear(coloured[begin:whole].any(axis=0)[::-1]) :] = True
    return missing


def _of_pixels(flags: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether any band of a pixel is flagged: (H, W) or (H, W, bands) -> (H, W)."""
    return np.asarray(flags.reshape(*flags.shape[:2], -1).any(axis=2))


def _clear(flags: Any) -> int:
    """How many flags are clear before the first one that is set."""
    return int(np.argmax(flags)) if flags.any() else len(flags)


# -- PNG ------------------------------------------------------------------------------------------------------
def _transparent_as_decoded(image: ImageFile.ImageFile) -> None:
    """Convert the transparent colour from the file's bit depth to the one that Pillow decodes to."""
    raw, key = str(image.tile[0].args) if image.tile else "", image.info.get("transparency")
    if isinstance(key, int) and raw in ("L;2", "L;4"):
        image.info["transparency"] = key * {"L;2": 85, "L;4": 17}[raw]
    elif isinstance(key, tuple) and raw == "RGB;16B":
        image.info["transparency"] = tuple(value >> 8 for value in key)


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Kind, content and checksum of a PNG's chunks; the last one may be cut short."""
    place = len(_PNG)
    while place + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        body = data[place + 8 : place + 8 + length]
        yield kind, body, data[place + 8 + length : place + 12 + length]
        place += 12 + length


def _clean_png(data: bytes) -> bytes:
    """A PNG with only the chunks that determine its pixels and its orientation.

    Wrong checksums of chunks without pixels are corrected, so that intact pixels can be read.
    """
    kept = [_PNG]
    for kind, body, checksum in _chunks(data):
        # `_png_profile` reads the profile. Pillow ignores a chunk of this name, and
        # would refuse a file with a large profile.
        kind = b"icCp" if kind == b"iCCP" else kind
        if kind in (b"tRNS", b"eXIf", b"icCp"):
            checksum = struct.pack(">I", zlib.crc32(kind + body))
        elif kind not in (b"IHDR", b"PLTE", b"IDAT"):
            continue
        kept.append(struct.pack(">I", len(body)) + kind + body + checksum)
    return b"".join([*kept, struct.pack(">I", 0), b"IEND", struct.pack(">I", zlib.crc32(b"IEND"))])


def _png_profile(clean: bytes) -> bytes | None:
    """The colour profile of a PNG from `_clean_png`; None if there is none, or it is broken or too large."""
    for kind, body, _ in _chunks(clean):
        if kind == b"icCp":
            inflate = zlib.decompressobj()
            try:
                profile = inflate.decompress(body.partition(b"\0")[2][1:], MOST_PROFILE)
            except zlib.error:
                return None
            return profile if inflate.eof else None
    return None
