"""What LanceDB needs around it: connections, retries after write conflicts, and readable errors."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import lancedb

from ..errors import StoreError
from ..files import is_uri

CONFLICT_SECONDS = 60.0
"""How long a change that conflicts with other writers is retried."""

# What LanceDB says when another writer was faster, after its own attempts.
_CONFLICT = re.compile("commit conflict|concurrent writ|incompatible transaction", re.IGNORECASE)

# The parts of LanceDB that an error has passed through, and the system's error number.
_LAYERS = re.compile(
    r"^lance error: |LanceError\(\w+\): |Query Execution error: |Error applying filter expression to batch: "
    r"|Arrow error: | \(os error \d+\)"
)

_Result = TypeVar("_Result")


def connect(location: str | Path) -> Any:
    """A connection to the database at a folder or URI; a missing folder is created."""
    # LanceDB takes everything with a colon for a URI, but never an absolute path.
    place = str(location) if is_uri(location) else str(Path(location).resolve())
    # With an interval of zero, every query sees the latest version. On a local disk that lookup costs nothing.
    return lancedb.connect(place, read_consistency_interval=timedelta(0))


def is_complete(database: Any, table: str) -> bool:
    """Whether a listed table can be opened. A table is listed as soon as another process starts to make it."""
    try:
        database.open_table(table)
    except ValueError as error:
        if "was not found" in str(error):
            return False
        raise
    return True


def retried(change: Callable[[], _Result]) -> _Result:
    """Make a change, and try again for up to CONFLICT_SECONDS while it conflicts with other writers."""
    until = time.monotonic() + CONFLICT_SECONDS
    while True:
        try:
            return change()
        except (OSError, RuntimeError, ValueError) as error:
            if time.monotonic() > until or not _CONFLICT.search(str(error)):
                raise
        # Writers that failed together should not try again together.
        time.sleep(random.uniform(0.02, 0.5))


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn what LanceDB raises (it has no exceptions of its own) into a StoreError of one sentence.

    Args:
        what: the start of the sentence, such as "Cannot read the index 'x'".
    """
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # Lance puts a condition into a statement of its own, which the user has not written.
        reason = re.sub(r"Error parsing statement: .*\(sql parser error: (.*)\)$", r"\1", str(error), flags=re.DOTALL)
        reason = re.sub(r" at Line: \d+, Column: \d+", "", reason).partition("\n")[0]
        # Lance adds the place in its own source code.
        reason = re.sub(r",? ?\S+\.rs:\d+(:\d+)?", "", reason).removeprefix("Invalid input, ")
        reason = _LAYERS.sub("", reason)
        raise StoreError(f"{what}: {reason.rstrip('.')}.") from error


def sql_text(text: str) -> str:
    """A text as an SQL string."""
    return "'" + text.replace("'", "''") + "'"


def sql_in(column: str, values: Iterable[str]) -> str:
    """The condition that a column has one of these values, each given as SQL."""
    return f"{column} IN ({', '.join(values)})"
