"""Published benchmarks by name, as the modules of this package register them."""

from __future__ import annotations

import importlib
import os
import sys

from ..discovery import registered
from ..errors import InputError
from .base import Benchmark
from .published import Published


def benchmarks() -> dict[str, Published]:
    """All published benchmarks by name, in the alphabet's order: the records `BENCHMARK` of this package's modules.

    A folder that is added to the package's `__path__` counts, too.
    """
    modules = registered(sys.modules[__package__].__path__, "BENCHMARK")
    records = [importlib.import_module(f"{__package__}.{module}").BENCHMARK for module in modules]
    return {one.name: one for one in sorted(records, key=lambda one: one.name)}


def get(name: str) -> Published:
    """The benchmark of that name. InputError if there is none."""
    known = benchmarks()
    if name not in known:
        raise InputError(f"There is no benchmark {name!r}; available are: {', '.join(known)}.")
    return known[name]


def load(
    name: str,
    root: str | os.PathLike[str],
    split: str | None = None,
    *,
    allow_missing: bool = False,
    **options: str,
) -> tuple[Benchmark, ...]:
    """A benchmark in its parts, each with a gallery of its own: the three categories of FashionIQ, else one part.

    Args:
        name: of the benchmark.
        root: the benchmark's folder.
        split: one of `Published.splits`; by default the first.
        allow_missing: go on with the images that are there.
        options: values of `Published.options`.

    Raises:
        InputError: if there is no such benchmark, it has no such split or option, or it cannot be loaded.
    """
    published = get(name)
    known = {one.name: one for one in published.options}
    for option, value in options.items():
        if option not in known:
            raise InputError(f"The benchmark {name} has no option {option!r}.")
        if value not in known[option].choices:
            raise InputError(f"{name}: {option} is one of {', '.join(known[option].choices)}, not {value!r}.")
    return published.load(root, split or published.splits[0], allow_missing=allow_missing, **options)
