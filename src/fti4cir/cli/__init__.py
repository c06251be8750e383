"""The command line: a table of commands, each a thin function over the package.

The heavy imports (torch, LanceDB) stand inside the commands, so that `--help` and a mistyped option answer at
once. Results go to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from ..errors import FtiError
from .evaluating import evaluate, verify
from .searching import demo, explain, index, search
from .terminal import fail, is_first
from .training import caption, convert, train

COMMANDS: dict[str, Callable[..., None]] = {
    "index": index,
    "search": search,
    "explain": explain,
    "caption": caption,
    "train": train,
    "evaluate": evaluate,
    "verify": verify,
    "convert": convert,
    "demo": demo,
}


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"fti4cir {version('fti4cir')}")
        raise typer.Exit()


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Composed image retrieval: find me this picture, but ..."""


app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.callback()(_top)
for _name, _command in COMMANDS.items():
    app.command(_name)(_command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line, without the program's name; gives the exit status.

    0: done; 1: something the user gave, or the machine, is at fault, and one line on stderr says what; 2: the
    command line itself cannot be understood; 130: interrupted.
    """
    # Pillow warns of large pictures and of odd metadata, without a name: nothing a user could act on.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    # Our own are for users: a sentence, without the line of code that gave it.
    warnings.formatwarning = lambda message, *_, **__: f"fti4cir: warning: {message}\n"
    try:
        status = app(list(arguments), prog_name="fti4cir", standalone_mode=False)
    except typer.TyperException as error:
        # Without any argument, the message is the whole help.
        if arguments:
            fail(f"{error.format_message()} See fti4cir --help.")
        else:
            print(error.format_message())
        return 2
    except FtiError as error:
        fail(str(error))
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written to
        fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1
    if status == _INTERRUPTED and is_first():
        again = _goes_on(arguments)
        fail(f"Interrupted; what is done is kept, and {again} goes on from there." if again else "Interrupted.")
    return status or 0


def main() -> None:
    """The entry point of the `fti4cir` command."""
    sys.exit(run(sys.argv[1:]))


# What Typer gives back after Ctrl-C, and what shells expect: 128 and the number of the signal.
_INTERRUPTED = 130
# Commands that keep what they have done, and what goes on from it.
_GOES_ON = {
    "index": "the same command",
    "search": "the same command",
    "demo": "the same command",
    "caption": "the same command",
    "train": "the same command with --resume",
    "evaluate": "the same command",
}


def _goes_on(arguments: Sequence[str]) -> str | None:
    """What goes on from where a command line was interrupted; None if nothing was kept."""
    command, *given = arguments
    if command == "evaluate" and not any(one.partition("=")[0] == "--cache" for one in given):
        return None
    return _GOES_ON.get(command)
