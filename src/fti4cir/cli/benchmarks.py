"""Groups of commands with one subcommand a benchmark, and what a benchmark's record means on the command line."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from .commands import checked

if TYPE_CHECKING:
    from ..benchmarks.published import Option, Published

PANEL = "Benchmarks"
"""The heading over the subcommands in the help."""


class BenchmarkGroup(TyperGroup, ABC):
    """A command with subcommands: those that it was made with, and one for each published benchmark.

    The latter are made when they are asked for: benchmarks import numpy, and `fti4cir --help` does not wait for that.
    """

    @abstractmethod
    def published(self, benchmark: Published) -> Callable[..., None]:
        """The command for a published benchmark."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All benchmarks, the published ones first."""
        from ..benchmarks.registry import benchmarks

        return [*benchmarks(), *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The subcommand of that name, or None."""
        from ..benchmarks.registry import benchmarks

        known = benchmarks()
        if cmd_name not in known:
            return super().get_command(ctx, cmd_name)
        app = typer.Typer(add_completion=False)
        command = checked(self.published(known[cmd_name]))
        app.command(cmd_name, help=known[cmd_name].summary, rich_help_panel=PANEL)(command)
        return typer.main.get_command(app)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse a command line without a benchmark."""
        if not args and not ctx.resilient_parsing:  # a shell that completes the line
            ctx.fail(f"Give a benchmark; available are: {', '.join(self.list_commands(ctx))}.")
        return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The benchmark that the command line names; refused with the names of all if there is none."""
        known = self.list_commands(ctx)
        if args[0] not in known and not ctx.resilient_parsing:
            ctx.fail(f"There is no benchmark '{args[0]}'; available are: {', '.join(known)}.")
        return super().resolve_command(ctx, args)


def choices(benchmark: Published) -> list[inspect.Parameter]:
    """The options that say which part of a benchmark: `--split`, and those of its record."""
    default, *others = benchmark.splits
    hidden = f" The answers of {' and '.join(others)} are hidden." if benchmark.forms and others else ""
    split = Annotated[str, typer.Option(metavar="NAME", help=f"{' or '.join(benchmark.splits)}.{hidden}")]
    return [parameter("split", split, default=default), *map(_choice, benchmark.options)]


def parameter(name: str, annotation: Any, *, default: Any = None) -> inspect.Parameter:
    """An option that is made at run time."""
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Those of a benchmark's own options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _choice(option: Option) -> inspect.Parameter:
    declared = typer.Option(metavar="|".join(option.choices), help=option.help, show_default=option.default)
    return parameter(option.name, Annotated[Literal[option.choices] | None, declared])
