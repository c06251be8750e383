"""Find picture files, and open them upright, in RGB, whatever they hold."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from .errors import InputError, PictureError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"})
"""Names of picture files end in one of these, in upper or lower case."""

# Pillow opens by content, not by name. Without this list, an EPS file called .jpg would start Ghostscript.
_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")

_ORIENTATION_TAG = 0x0112
# What makes a picture upright again, by the value of its EXIF orientation (1 is upright already).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class Picture(NamedTuple):
    """A decoded picture and its size in the file."""

    image: Image.Image
    """Upright RGB; may be smaller than the file's (see `at_least` of `decode_picture`)."""
    width: int
    """Of the upright picture at full size, in pixels."""
    height: int


def find_pictures(folder: str | Path, on_error: Callable[[OSError], object] | None = None) -> list[Path]:
    """All picture files below a folder, by extension, sorted; paths begin with `folder` as it was given.

    Hidden files and folders (names that begin with a dot) are left out. Links to folders are followed, except
    to folders already walked and to those which contain `folder` itself, so that loops end. A link to a file
    counts as a file, even when it leads nowhere: whoever opens it learns why it cannot be read.

    `on_error` is called for each folder that cannot be listed, with the error, whose `filename` names it; by
    default that is an InputError. So is a `folder` that is missing or no folder.
    """
    top = Path(folder)
    if not top.exists():
        raise InputError(f"There is no folder '{folder}'.")
    if not top.is_dir():
        raise InputError(f"'{folder}' is not a folder.")
    real_top = top.resolve()
    found: list[Path] = []
    walked: set[Path] = set()
    folders, links = [top], list[Path]()
    while folders or links:
        # Links come last, so that a picture is found under its real path if it has one below the top.
        here = folders.pop() if folders else links.pop(0)
        real = here.resolve()
        if real in walked or (real != real_top and real_top.is_relative_to(real)):
            continue
        walked.add(real)
        try:
            with os.scandir(here) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if on_error is None:
                raise InputError(f"Cannot list the folder '{here}': {error.strerror}.") from error
            on_error(error)
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            path = here / entry.name
            if entry.is_symlink() and os.path.isdir(path):
                links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif path.suffix.lower() in EXTENSIONS:
                found.append(path)
    return sorted(found)


def read_file(path: str | Path) -> bytes:
    """The bytes of a picture file; a PictureError if it is missing, not a file, or may not be read."""
    path = Path(path)
    try:
        # Opening a pipe would wait for ever, and reading a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise PictureError(f"Cannot read '{path}': it is not a file.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise PictureError(f"Cannot read '{path}': {getattr(error, 'strerror', None) or error}.") from error


class FileReader:
    """Reads pictures that are files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes:
        """The content of a file; PictureError if it cannot be read."""
        return read_file(self._folder / name)

    def stamp(self, name: str) -> str:
        """Size and time of last change; empty if there is no such file."""
        try:
            found = (self._folder / name).stat()
        except OSError:
            return ""
        return f"{found.st_size} {found.st_mtime_ns}"


def content_digest(data: bytes) -> str:
    """A name for a file's content, 32 hexadecimal digits: equal for copies of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def decode_picture(data: bytes, name: str | Path, at_least: int | None = None) -> Picture:
    """Decode the content of a picture file; `name` is what errors call it.

    With `at_least`, a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides
    keep at least so many pixels: several times faster when only a small picture is needed.

    Raises PictureError if the content is not a whole picture of a known format, or too large to decode.
    """
    if not data:
        raise PictureError(f"Cannot read '{name}': the file is empty.")
    try:
        image = Image.open(io.BytesIO(data), formats=_FORMATS)
        size = image.size
        if at_least is not None:
            image.draft(None, (at_least, at_least))
        shrunk = image.size != size
        upright = _upright_rgb(image)
        if not shrunk:
            size = upright.size
        elif _orientation(image) >= 5:  # these swap the sides
            size = (size[1], size[0])
    except UnidentifiedImageError as error:
        what = "but a web page or text" if data.lstrip()[:1] == b"<" else "or of a kind that is not supported"
        raise PictureError(f"Cannot read '{name}': it is not a picture, {what}.") from error
    # Pillow's decoders meet broken files with errors of almost any class (OSError, SyntaxError, ValueError,
    # struct.error, DecompressionBombError, ...); for whoever gave the file they all mean one thing.
    except Exception as error:
        raise PictureError(f"Cannot read '{name}': {_reason(error)}.") from error
    return Picture(upright, *size)


def open_picture(source: str | Path | Image.Image, at_least: int | None = None) -> Image.Image:
    """A picture from a file, or one that is open already, as an upright RGB image.

    EXIF orientation is obeyed; of an animation or a file with several pages the first picture is taken;
    transparent places become white; 16-bit, 32-bit and float values are scaled to 8 bit. `at_least` as in
    `decode_picture`. The result carries no metadata, so it can be given to this function again.

    Raises PictureError, which names the file and the reason, if there is no whole picture to be had.
    """
    if not isinstance(source, Image.Image):
        return decode_picture(read_file(source), source, at_least).image
    try:
        return _upright_rgb(source)
    except Exception as error:  # as in decode_picture: a lazily opened file is decoded only here
        name = getattr(source, "filename", "") or "the given image"
        raise PictureError(f"Cannot read '{name}': {_reason(error)}.") from error


def _reason(error: Exception) -> str:
    """What a decoder complained of, in words that suit the middle of a sentence."""
    return str(error).strip().rstrip(".") or type(error).__name__


def _upright_rgb(image: Image.Image) -> Image.Image:
    """A copy of the image's first frame in RGB, turned as its EXIF data says, without metadata."""
    image.load()
    turn = _UPRIGHT.get(_orientation(image))
    if image.mode.startswith("I") or image.mode == "F":
        image = _eight_bit(image)
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    rgb = image.convert("RGB")
    # Otherwise whoever handles the result would find the orientation there and turn it a second time.
    rgb.info.clear()
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 (upright) where there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    # EXIF data that cannot be parsed is common and says nothing about the pixels, which are fine.
    except Exception:
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey values of 16 bit, 32 bit or float to 8 bit; Pillow's own conversion would clip them at 255.

    Values of 16 bit fill their range. The wider types do not say what white is: the smallest usual range that
    holds all values is taken (0 to 1 for floats, then 0 to 255, 0 to 65,535), else from least to greatest.
    """
    values = np.asarray(image, dtype=np.float32)  # (H, W)
    if image.mode.startswith("I;16"):
        black, white = 0.0, 65535.0
    else:
        finite = values[np.isfinite(values)]
        black, white = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
        for usual in (1.0, 255.0, 65535.0) if image.mode == "F" else (255.0, 65535.0):
            if black >= 0.0 and white <= usual:
                black, white = 0.0, usual
                break
    values = np.nan_to_num(values, nan=black, posinf=white, neginf=black)
    scale = 255.0 / (white - black) if white > black else 0.0
    return Image.fromarray(np.round((values - black) * scale).astype(np.uint8))
