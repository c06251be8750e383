"""What the command line says: results on stdout; progress, notes and errors on stderr.

All of it goes through here: what a file or a user named is shown escaped, so that it stays on its line and cannot
act on the terminal. JSON has its own way to write such characters, and stays exact.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..escaping import escape
from ..files import is_uri

if TYPE_CHECKING:
    from ..progress import Progress

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]


def open_streams() -> None:
    """Let stdout and stderr write what their encoding lacks as escapes, like `\\xe9`, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def say(line: str = "") -> None:
    """Print one line of a result for people."""
    print(escape(line))


def fail(message: str) -> None:
    """Say on one line what went wrong."""
    print(f"fti4cir: error: {escape(message)}", file=sys.stderr)


def note(message: str) -> None:
    """Say something beside the result."""
    if is_first():
        print(escape(message), file=sys.stderr)


class _LogLines(logging.Handler):
    """Shows what the library logs as notes: a line each, without level or name."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            note(record.getMessage())
        except Exception:
            self.handleError(record)


@contextmanager
def log_as_notes() -> Iterator[None]:
    """Show on stderr what the library logs, from INFO on.

    Each line goes to what `sys.stderr` is then: while a progress bar is shown, a stream that puts lines above the bar.
    """
    logger, handler = logging.getLogger("fti4cir"), _LogLines(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def is_first() -> bool:
    """Whether this is the only process, or the first of those that `torchrun` started: the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def print_json(data: Any) -> None:
    """Print a result as JSON, on one line."""
    print(json.dumps(data))


def require_file(file: Path, option: str) -> None:
    """Refuse a file that is not there, before the work that needs it; InputError names the option."""
    if not file.is_file():
        what = "is not a file" if file.exists() else "does not exist"
        raise InputError(f"{option}: '{file}' {what}.")
    if not os.access(file, os.R_OK):
        raise InputError(f"{option}: '{file}' may not be read.")


def require_images(source: Path) -> None:
    """Likewise for a folder or tar file of images."""
    if not source.exists():
        raise InputError(f"There is no folder or tar file '{source}'.")


def require_file_place(file: Path, option: str) -> None:
    """Refuse a file that cannot be written, before the work that it is for; InputError names the option."""
    if file.is_dir():
        raise InputError(f"'{file}' is a folder, but {option} takes a file's name.")
    if file.exists():
        writable = os.access(file, os.W_OK)
    elif not file.parent.is_dir():
        raise InputError(f"There is no folder '{file.parent}' for the file '{file.name}'; give another {option}.")
    else:
        writable = os.access(file.parent, os.W_OK)
    if not writable:
        raise InputError(f"'{file}' may not be written; give another {option}.")


def require_folder_place(folder: str | Path, option: str) -> None:
    """Likewise for a folder that will be made, with those above it; a URI is not looked at."""
    if is_uri(folder):
        return
    path = Path(folder)
    existing = next(place for place in (path, *path.absolute().parents) if place.exists())
    if not existing.is_dir():
        raise InputError(f"'{existing}' is a file, not a folder; give another {option}.")
    if not os.access(existing, os.W_OK):
        raise InputError(f"The folder '{existing}' may not be written to; give another {option}.")


@contextmanager
def progress_bar(what: str) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
