"""Check a user's SQL condition before it becomes part of a query."""

from __future__ import annotations

import re
from contextlib import AbstractContextManager

import lancedb
import pyarrow as pa

from .lance import explained
from .schema import columns

# SQL strings and quoted names. Everything inside them is text.
_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`""")


def check_condition(where: str) -> None:
    """Refuse a condition that no index could use; this opens no index.

    Raises:
        StoreError: says what is wrong with the condition.
    """
    with condition_errors(where):
        _require_single(where)
        # In parentheses, because Lance ignores what follows a bare condition, such as an ORDER BY.
        empty = lancedb.connect("memory://").create_table("empty", schema=pa.schema(columns(1)))
        empty.search().where(f"({where})").select(["path"]).limit(1).to_arrow()


def condition_errors(where: str) -> AbstractContextManager[None]:
    """Turn errors of LanceDB within it into a StoreError that names the condition."""
    return explained(f"Cannot use the condition {where!r}")


def _require_single(where: str) -> None:
    """ValueError if parentheses do not match, or for more than one condition. Lance checks everything else."""
    bare = _QUOTED.sub("", where)
    depth = 0
    for character in bare:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth:
        raise ValueError("its brackets do not match")
    if ";" in bare or "--" in bare or "/*" in bare:
        raise ValueError("it must be one condition, without a semicolon or a comment")
