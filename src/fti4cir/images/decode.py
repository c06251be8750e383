"""Find image files, and open images of any supported format upright and in RGB."""

from __future__ import annotations

import hashlib
import os
import stat
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from ..errors import ImageError, InputError
from ..files import require_folder
from .colours import to_srgb
from .file import decoded

ImageSource = Image.Image | str | Path | NDArray[np.uint8]
"""What the library takes as an image: a file's path, a PIL image, or an array (H, W, 3), (H, W, 4) or (H, W)."""

EXTENSIONS = frozenset(
    f".{name}"
    for name in (
        *("jpg", "jpeg", "jpe", "jfif", "pjpeg", "pjp", "mpo"),
        *("png", "apng", "webp", "gif", "bmp", "dib", "tif", "tiff"),
        *("heic", "heif", "hif", "avif", "jp2", "j2k", "j2c", "jpf", "jpx"),
        *("ppm", "pgm", "pbm", "pnm"),
    )
)
"""Extensions of image files, in lower case; upper case counts as well."""

RAW = "camera RAW"
_KINDS = {
    RAW: "3fr ari arw cap cr2 cr3 crw dcr dcs dng erf fff gpr iiq k25 kdc mdc mef mos mrw nef nrw orf pef ptx pxn raf "
    "raw rw2 rwl rwz sr2 srf srw x3f",
    "Photoshop": "psd psb pdd",
    "SVG": "svg svgz",
    "JPEG XL": "jxl",
    "JPEG XR": "jxr wdp hdp",
    "PostScript": "eps epsf ps ai",
    "GIMP": "xcf",
    "Krita": "kra",
    "Affinity": "afphoto afdesign",
    "Procreate": "procreate",
    "Clip Studio": "clip",
    "Windows metafile": "wmf emf",
    "icon": "ico icns cur",
    "Targa": "tga",
    "PCX": "pcx",
    "DirectDraw": "dds",
    "SGI": "sgi rgba",
    "X bitmap": "xbm xpm",
    "QOI": "qoi",
    "OpenEXR": "exr",
    "Radiance HDR": "hdr",
    "DICOM": "dcm dicom",
    "FITS": "fits fit fts",
    "DjVu": "djvu djv",
    "BPG": "bpg",
}
UNSUPPORTED = {f".{name}": kind for kind, names in _KINDS.items() for name in names.split()}
"""Image formats that cannot be read, by file extension in lower case."""

# Image formats that cannot be read, by the first bytes of the file.
_MARKS = {
    b"8BPS": "Photoshop",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"%!PS": "PostScript",
    b"\xc5\xd0\xd3\xc6": "PostScript",
    b"gimp xcf": "GIMP",
    b"FUJIFILM": RAW,
    b"\0\0\0\x18ftypcrx ": RAW,
    b"v/1\x01": "OpenEXR",
    b"#?RADIANCE": "Radiance HDR",
    b"\0\0\x01\0": "icon",
    b"DDS ": "DirectDraw",
    b"qoif": "QOI",
    b"AT&TFORM": "DjVu",
}

# Folders in which systems keep previews or deleted files: Synology, QNAP, macOS (in archives and on network disks),
# Windows and Linux. Names that begin with a dot are left out anyway.
_LEFT_OUT = frozenset(
    {
        *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "@__thumb"),
        *("__macosx", "network trash folder", "temporary items"),
        *("$recycle.bin", "recycler", "recycled", "system volume information", "thumbs.db"),
        "lost+found",
    }
)

_ORIENTATION_TAG = 0x0112
# The operation that turns an image upright, by its EXIF orientation (1 is upright already).
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class DecodedImage(NamedTuple):
    """A decoded image and its size in the file."""

    image: Image.Image
    """Upright RGB; may be smaller than the file's (see `at_least` of `decode_image`)."""
    width: int
    """Of the upright image at full size, in pixels."""
    height: int
    missing: float = 0.0
    """The share of the image that is missing because the file is cut short or damaged. That part is grey."""


class CutImageWarning(UserWarning):
    """A part of an image is missing from its file; the rest was read."""


def find_images(
    folder: str | Path,
    *,
    on_error: Callable[[OSError], object] | None = None,
    on_unsupported: Callable[[Path, str], object] | None = None,
) -> list[Path]:
    """All image files below a folder, by extension, sorted; paths begin with `folder` as it was given.

    Hidden files and folders (names that begin with a dot) are left out, and so are the folders in which systems
    keep previews and deleted files (`@eaDir`, `#recycle`, `__MACOSX`, ...). Links to folders are followed, except
    to folders already walked and to those which contain `folder` itself, so that loops end. A link to a file
    counts as a file even if it is broken, so that opening it reports why it cannot be read.

    Args:
        folder: where to look.
        on_error: called with the error for each folder that cannot be listed; its `filename` names the folder.
            None: raise an InputError.
        on_unsupported: called for each image file of a format that cannot be read, with its path and format.

    Raises:
        InputError: if `folder` is missing or not a folder.
    """
    top = Path(folder)
    require_folder(folder)
    real_top = top.resolve()
    found: list[Path] = []
    walked: set[Path] = set()
    folders, links = [top], list[Path]()
    while folders or links:
        # Links come last, so that an image is found under its real path if it has one below the top.
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
            if entry.name.startswith(".") or entry.name.lower() in _LEFT_OUT:
                continue
            path = here / entry.name
            if entry.is_symlink() and os.path.isdir(path):
                links.append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            elif (suffix := path.suffix.lower()) in EXTENSIONS:
                found.append(path)
            elif suffix in UNSUPPORTED and on_unsupported is not None:
                on_unsupported(path, UNSUPPORTED[suffix])
    return sorted(found)


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file; an ImageError if it is missing, not a file, or cannot be read."""
    path = Path(path)
    try:
        # Opening a pipe would block forever, and reading a device might never end.
        if not stat.S_ISREG(path.stat().st_mode):
            raise ImageError(f"Cannot read '{path}': it is not a file.")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        raise ImageError(f"Cannot read '{path}': {getattr(error, 'strerror', None) or error}.") from error


class FileReader:
    """Reads images that are files below a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, name: str) -> bytes:
        """The content of a file; ImageError if it cannot be read."""
        return read_file(self._folder / name)

    def stamp(self, name: str) -> str:
        """Size and time of last change; empty if there is no such file."""
        try:
            found = (self._folder / name).stat()
        except OSError:
            return ""
        return f"{found.st_size} {found.st_mtime_ns}"


def content_digest(data: bytes) -> str:
    """A digest of a file's content, 32 hexadecimal digits: the same for copies of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def decode_image(data: bytes, name: str | Path, *, at_least: int | None = None) -> DecodedImage:
    """Decode the content of an image file; `name` is what errors call it.

    With `at_least`, a JPEG may be decoded at a half, a quarter or an eighth of its size, as long as both sides
    keep at least so many pixels: several times faster when only a small image is needed. Without it, pixels are
    exact, except for JPEGs so large that they would take more than a gibibyte of memory.

    If no more than half of the image is missing, the rest is read, with a CutImageWarning.

    Raises:
        ImageError: if the content is not an image of a known format, too much of it is missing, or it would take
            too much memory.
    """
    if not data:
        raise ImageError(f"Cannot read '{name}': the file is empty.")
    try:
        with decoded(data, at_least) as found:
            if found.image.format == "TIFF" and UNSUPPORTED.get(Path(name).suffix.lower()) == RAW:
                raise UnidentifiedImageError  # only a small preview of such a file could be read
            width, height = found.width, found.height
            if _orientation(found.image) >= 5:  # these swap the sides
                width, height = height, width
            upright = _upright_rgb(found.image, found.missing)
            missing = 0.0 if found.missing is None else float(np.asarray(found.missing).mean()) / 255
    except UnidentifiedImageError as error:
        raise ImageError(f"Cannot read '{name}': {_what_it_is(data, name)}.") from error
    # For broken files, Pillow's decoders raise errors of almost any class (OSError, SyntaxError, ValueError,
    # struct.error, ...). To the user they all mean the same.
    except Exception as error:
        raise ImageError(f"Cannot read '{name}': {_reason(error)}.") from error
    if missing:
        warnings.warn(
            f"The file '{name}' is cut short or damaged: {share_of(missing)} of the image is missing; the rest was "
            "read.",
            CutImageWarning,
            stacklevel=2,
        )
    return DecodedImage(upright, width, height, missing)


def share_of(missing: float) -> str:
    """A share above 0 as a percentage."""
    return "less than 1 %" if missing < 0.01 else f"{100 * missing:.0f} %"


def open_image(source: ImageSource, at_least: int | None = None) -> Image.Image:
    """An image from a file, a PIL image or an array, as an upright RGB image in sRGB.

    The EXIF orientation is applied; an embedded colour profile is converted to sRGB; of an animation or a file with
    several pages the first image is taken; transparent places become white; 16-bit, 32-bit and float values are
    scaled to 8 bit. `at_least` as in `decode_image`. The result carries no metadata, so it can be given to this
    function again. An array is (H, W, 3) RGB, (H, W, 4) RGB and opacity, or (H, W) grey, uint8.

    Raises:
        ImageError: if the image cannot be read; it names the file and the reason.
        InputError: for anything that is not an image.
    """
    if isinstance(source, str | Path):
        return decode_image(read_file(source), source, at_least=at_least).image
    if isinstance(source, np.ndarray):
        source = _from_array(source)
    elif not isinstance(source, Image.Image):
        raise InputError(f"An image is {_TAKEN}, not {type(source).__name__}.")
    name = getattr(source, "filename", "") or "the given image"
    if not all(source.size):
        raise ImageError(f"Cannot read '{name}': it has no pixels.")
    try:
        source.load()
        return _upright_rgb(source)
    except Exception as error:  # as in decode_image: a lazily opened file is decoded only here
        raise ImageError(f"Cannot read '{name}': {_reason(error)}.") from error


_TAKEN = "the path of a file, a PIL image, or a NumPy array of uint8, (H, W, 3), (H, W, 4) or (H, W)"


def check_images(sources: object) -> None:
    """InputError for anything but a list. A single array would otherwise count as a list of its rows."""
    if isinstance(sources, Image.Image | str | Path | np.ndarray) or not isinstance(sources, Iterable):
        raise InputError(
            "The images must be a list; put a single one into a list, and make a list of an array of many."
        )


def _from_array(array: NDArray[Any]) -> Image.Image:
    """An array of pixels as an image; InputError if it has another type or shape."""
    shaped = array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))
    if array.dtype != np.uint8 or not shaped or not array.size:
        raise InputError(f"An image is {_TAKEN}, not an array of {array.dtype}, {array.shape}.")
    return Image.fromarray(np.ascontiguousarray(array))


def _what_it_is(data: bytes, name: str | Path) -> str:
    """Why no decoder accepts this content, as the middle of a sentence."""
    start = data.lstrip()[:256].lower()
    kind = next((kind for mark, kind in _MARKS.items() if data.startswith(mark)), None)
    if b"<svg" in start:
        kind = "SVG"
    elif kind is None and not start.startswith(b"<"):
        kind = UNSUPPORTED.get(Path(name).suffix.lower())
    if kind is not None:
        return f"its format ({kind}) is not supported; export it as JPEG or PNG"
    if start.startswith(b"<"):
        return "it is not an image, but a web page or text"
    return "it is not an image, or its format is not supported"


def _reason(error: Exception) -> str:
    """What a decoder complained about, as the middle of a sentence."""
    if isinstance(error, Image.DecompressionBombError):
        return "it has more pixels than its decoder takes; save it smaller, or as JPEG"
    if isinstance(error, MemoryError):
        return "there is not enough memory to decode it"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _upright_rgb(image: Image.Image, missing: Image.Image | None = None) -> Image.Image:
    """A loaded image in RGB, turned as its EXIF data says, without metadata; grey where `missing` is white."""
    turn = _UPRIGHT.get(_orientation(image))
    rgb = to_srgb(image)
    if missing is not None:
        rgb.paste((128, 128, 128), mask=missing)
    return rgb if turn is None else rgb.transpose(turn)


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1 (upright) if there is none."""
    try:
        return int(image.getexif().get(_ORIENTATION_TAG, 1))
    # EXIF data that cannot be parsed is common, and the pixels are fine.
    except Exception:
        return 1
