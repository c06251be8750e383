"""What the command line says: results on stdout; progress, notes and errors on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..indexing import Progress

JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]


def fail(message: str) -> None:
    """Say on one line what went wrong."""
    print(f"fti4cir: error: {' '.join(message.split())}", file=sys.stderr)


def note(message: str) -> None:
    """Say something beside the result."""
    if is_first():
        print(message, file=sys.stderr)


def is_first() -> bool:
    """Whether this is the only process, or the first of those that `torchrun` started: the one that speaks."""
    return os.environ.get("RANK", "0") == "0"


def print_json(data: Any) -> None:
    """Print a result as JSON, on one line."""
    print(json.dumps(data))


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
