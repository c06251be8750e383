"""Modules that register themselves by a record at their top level, found by their text alone.

A method, a backbone or a benchmark is one file with such a record. What a command line shows of it does not need the
module's imports, which may take seconds.
"""

from __future__ import annotations

import ast
import pkgutil
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.abc import InspectLoader, PathEntryFinder
from typing import NamedTuple, cast


class Registered(NamedTuple):
    """A module with a record."""

    text: str
    """The module's source."""
    arguments: Mapping[str, ast.expr]
    """The keyword arguments with which the record is made."""


def registered(folders: Iterable[str], record: str) -> Mapping[str, Registered]:
    """The modules in a package's folders that have a record of that name, in alphabetical order.

    Args:
        folders: the package's `__path__`.
        record: the name at the module's top level to which the record is assigned, such as `METHOD`.

    """
    return _read(tuple(folders), record)


@cache
def _read(folders: tuple[str, ...], record: str) -> Mapping[str, Registered]:
    found = {}
    for module in pkgutil.iter_modules(folders):
        if module.ispkg:
            continue
        text = _source(cast(PathEntryFinder, module.module_finder), module.name)
        # Only the record's statement is parsed: whole modules would slow down the start of every command. It ends
        # before the next line that begins with something else than a space or a closing bracket.
        if statement := re.search(rf"^{record} = .*(?:\n(?:[\s)\]}}].*)?)*", text, re.MULTILINE):
            found[module.name] = Registered(text, _arguments(statement[0]))
    return dict(sorted(found.items()))


def _source(finder: PathEntryFinder, module: str) -> str:
    spec = finder.find_spec(module)
    if spec is None or not isinstance(spec.loader, InspectLoader):
        raise ImportError(f"the source of {module} cannot be read")
    return spec.loader.get_source(module) or ""


def _arguments(text: str) -> Mapping[str, ast.expr]:
    match ast.parse(text).body[0]:
        case ast.Assign(value=ast.Call(keywords=keywords)):
            return {str(one.arg): one.value for one in keywords}
    return {}
