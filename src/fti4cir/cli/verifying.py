"""The command that checks a benchmark's images: `verify`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .benchmarks import BenchmarkGroup, choices, given
from .commands import with_groups
from .options import RootOption
from .tables import print_verification
from .terminal import JsonOption, print_json, progress_bar

if TYPE_CHECKING:
    from ..benchmarks.published import Published


class _Verify(BenchmarkGroup):
    def published(self, benchmark: Published) -> Callable[..., None]:
        def command(root: RootOption, as_json: JsonOption = False, **options: Any) -> None:
            _verify(benchmark, root, as_json, **options)

        return with_groups(command, *choices(benchmark))


verify = typer.Typer(
    cls=_Verify,
    subcommand_metavar="BENCHMARK [OPTIONS]",
    help="Say which images a benchmark needs that are missing or broken, and what that does to its figures.\n\n"
    "The exit status is 0 if every image is there and can be read, else 1.",
)


def _verify(benchmark: Published, root: Path, as_json: bool, *, split: str, **options: Any) -> None:
    from ..benchmarks.verify import verify as verify_

    parts = benchmark.load(root, split, allow_missing=True, **given(options))
    with progress_bar("reading") as progress:
        verification = verify_(benchmark.name, parts, progress)
    if as_json:
        print_json(verification.to_json())
    else:
        print_verification(verification)
    if not verification.complete:
        raise typer.Exit(1)
