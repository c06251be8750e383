"""List the image files of a folder, and what prevents some of them from being read."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..escaping import is_utf8
from ..images.decode import find_images
from .index_report import printable
from .schema import FileState


class ImageFile(NamedTuple):
    """An image file to be indexed."""

    path: Path
    key: str
    """Its name in the index: the path relative to the root, with forward slashes."""
    state: FileState


class Failure(NamedTuple):
    """Why a file or folder cannot be used."""

    path: Path
    reason: str
    temporary: bool
    """The reason says nothing about what the file holds, so the index keeps what it has."""


class Listing(NamedTuple):
    """The image files of a folder."""

    files: list[ImageFile]
    failures: list[Failure]
    """Files and folders that cannot be read."""
    unsupported: dict[str, list[Path]]
    """Files of image formats that cannot be read, by format."""


def list_images(root: Path) -> Listing:
    """The image files in a folder (absolute) and those below it.

    Raises:
        InputError: if the folder itself cannot be listed.
    """
    files: list[ImageFile] = []
    failures: list[Failure] = []
    unsupported: defaultdict[str, list[Path]] = defaultdict(list)

    def unlisted(error: OSError) -> None:
        if Path(error.filename) == root:
            raise InputError(f"Cannot list the folder '{root}': {error.strerror}.") from error
        reason = f"Cannot list the folder '{error.filename}': {error.strerror}."
        failures.append(Failure(Path(error.filename), reason, temporary=True))

    found = find_images(root, on_error=unlisted, on_unsupported=lambda path, kind: unsupported[kind].append(path))
    for path in found:
        one = _with_state(path, root)
        if isinstance(one, ImageFile):
            files.append(one)
        else:
            failures.append(one)
    return Listing(files, failures, dict(unsupported))


def is_temporary(error: BaseException | None) -> bool:
    """Whether an error says nothing about what a file holds, or about whether there is one."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError)


def _with_state(path: Path, root: Path) -> ImageFile | Failure:
    key = path.relative_to(root).as_posix()
    if not is_utf8(key):
        reason = f"Cannot index '{printable(path)}': its name is not valid UTF-8; rename it."
        return Failure(path, reason, temporary=False)
    try:
        status = path.stat()
    except OSError as error:
        return Failure(path, f"Cannot read '{path}': {error.strerror}.", is_temporary(error))
    return ImageFile(path, key, FileState(_in_int64(status.st_mtime_ns), status.st_size))


def _in_int64(nanoseconds: int) -> int:
    """The nearest time that the index can hold. Its times range from 1677 to 2262."""
    return max(-(2**63), min(2**63 - 1, nanoseconds))
