"""Places on a disk: what a user names, and how a file is written. Imports nothing large, so it is quick to import."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from .errors import FtiError, InputError


def is_uri(location: str | Path) -> bool:
    """Whether a location is a URI, `scheme://...`; anything else is a folder, also `memory:` or `Trip: Rome`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(location)) is not None


def require_folder(folder: str | Path) -> None:
    """Refuse what is no folder; InputError says whether there is anything of that name."""
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"'{folder}' is not a folder." if path.exists() else f"There is no folder '{folder}'.")


def user_cache() -> Path:
    """This package's folder in the user's cache; on Linux `~/.cache/fti4cir`. It may be deleted at any time.

    RuntimeError for a user without a home folder.
    """
    # Imported here, because few commands need it.
    from platformdirs import user_cache_path

    return user_cache_path("fti4cir", appauthor=False)


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[BinaryIO]:
    """A file to write to, which takes the place of `path` at the end, on the disk.

    Whoever opens `path`, even after the process was killed, finds either what was there before or the whole new
    content. If the block raises, the old content stays. OSError if the disk is full or the folder cannot be written to.

    >>> with replacing("/tmp/example.txt") as file:
    ...     _ = file.write(b"whole")
    """
    path = Path(path)
    # Beside it, because a rename works within one disk only; hidden, because a folder of results may be listed.
    number, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    partial = Path(name)
    try:
        with open(number, "w+b") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.chmod(_mode(path))
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def writing(folder: Path, error_class: type[FtiError]) -> Iterator[None]:
    """Turn what goes wrong while a folder is written to into an error of this package that names the folder."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise error_class(f"{folder} cannot be written to: {reason}; what was saved before is kept.") from error


def append(path: str | Path, content: bytes) -> None:
    """Write to the end of a file, through to the disk; makes the file if it is missing. OSError as of `replacing`."""
    with open(path, "ab") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def drop_partial_line(path: str | Path) -> bool:
    """Remove from the end of a file what a killed process left of one more line; whether the file has lines then."""
    with open(path, "rb+") as file:
        return file.truncate(file.read().rfind(b"\n") + 1) > 0


def _mode(path: Path) -> int:
    """The permissions that the file has, or that a new one gets: a temporary file is for its owner alone."""
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_mode & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask
