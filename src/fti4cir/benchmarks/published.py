"""What a published benchmark says of itself: its name, its splits, its options, and what its server takes.

Such a benchmark is one file of this package, with a record `BENCHMARK = Published(...)`. The registry finds the record,
and the command line makes the subcommands of `evaluate` and `verify` from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .base import Benchmark

Load = Callable[..., tuple[Benchmark, ...]]
"""Loads a benchmark in its parts, each with a gallery of its own: `load(root, split, allow_missing=..., **options)`.

`root` is the benchmark's folder as a user wrote it. `options` are the values that the user gave of `Published.options`,
by name. InputError if the benchmark has no such split, its files cannot be read, or images are missing that
`allow_missing` does not allow to be missing.
"""


@dataclass(frozen=True)
class Option:
    """A choice that a benchmark offers besides its splits."""

    name: str
    """As in `load(..., name=value)`; on the command line `--name`."""
    choices: tuple[str, ...]
    help: str
    """One sentence."""
    default: str
    """What holds when the option is not given, in words."""


@dataclass(frozen=True)
class Form:
    """One kind of file that a benchmark's server takes."""

    count: int
    """Predictions a query."""
    metadata: Mapping[str, str]
    """Entries of the file besides the queries."""
    within: bool = False
    """Whether predictions are confined to `Query.within`."""
    numbers: bool = False
    """Whether images are called by numbers instead of names."""
    limit: int | None = None
    """The largest file that is taken, in bytes."""

    def of(self, name: str) -> str | int:
        """An image of the gallery as the file names it."""
        return int(name) if self.numbers else name


@dataclass(frozen=True)
class Published:
    """A published benchmark."""

    name: str
    summary: str
    """One line of help."""
    splits: tuple[str, ...]
    """The splits that can be loaded. The first is the default. Where there is a server, it alone has the
    answers of the others."""
    load: Load
    options: tuple[Option, ...] = ()
    forms: tuple[Form, ...] = ()
    """The files that make up a submission to the benchmark's server; empty where there is no server."""
    gallery_size: int | None = None
    """How many images the gallery has, where its list may be absent; None where a list always says it."""


def in_one_part(load: Callable[..., Benchmark]) -> Load:
    """The `Load` of a benchmark that has one gallery, from a function that gives its only part."""

    def parts(*location: Any, **options: Any) -> tuple[Benchmark, ...]:
        return (load(*location, **options),)

    return parts
