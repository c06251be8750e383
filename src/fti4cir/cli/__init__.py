"""The command line: a table of commands, each a thin function over the package.

The heavy imports (torch, LanceDB) stand inside the commands, after all that can be found wrong without them, so
that `--help` and a mistyped option, name or path answer at once. Results go to stdout; progress, notes and errors go
to stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import FtiError
from .commands import checked
from .evaluating import evaluate
from .searching import demo, explain, index, search
from .terminal import fail, is_first, log_as_notes, note, open_streams, say
from .training import caption, convert, train
from .verifying import verify

DEBUG = "FTI4CIR_DEBUG"
"""The environment variable that asks for the traceback of whatever goes wrong."""
UNEXPECTED = 70
"""The exit status after an error that is a fault of fti4cir (as in BSD's sysexits.h)."""
INTERRUPTED = 130
"""After Ctrl-C, as shells have it: 128 and the number of the signal."""
READER_GONE = 141
"""Where nobody reads the output any more, as in `fti4cir ... | head -1`: likewise, of SIGPIPE."""

COMMANDS: dict[str, Callable[..., None] | typer.Typer] = {
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

        say(f"fti4cir {version('fti4cir')}")
        raise typer.Exit()


def _top(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Composed image retrieval: find me this image, but ..."""


class _InOrder(TyperGroup):
    """Commands in the order of the table; Typer has groups after all others."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)


app = typer.Typer(
    cls=_InOrder,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.callback()(_top)
for _name, _command in COMMANDS.items():
    if isinstance(_command, typer.Typer):
        app.add_typer(_command, name=_name)
    else:
        app.command(_name)(checked(_command))


def run(arguments: Sequence[str]) -> int:
    """Run one command line, without the program's name; gives the exit status.

    0: done; 1: something the user gave, or the machine, is at fault, and one line on stderr says what; 2: the
    command line itself cannot be understood; 70: fti4cir is at fault; 130: interrupted; 141: nobody reads the output
    any more. With FTI4CIR_DEBUG in the environment, errors come with their traceback.
    """
    # LanceDB's own log warns of conflicts between writers, which are resolved.
    os.environ.setdefault("LANCEDB_LOG", "error")
    open_streams()
    try:
        try:
            status = _run(arguments)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        return READER_GONE
    except OSError as error:  # what is left of the output cannot be written
        fail(_system_error(error))
        return 1
    except KeyboardInterrupt:
        status = INTERRUPTED
    if status == INTERRUPTED and is_first():
        again = _goes_on(arguments)
        fail(f"Interrupted; what is done is kept, and {again} goes on from there." if again else "Interrupted.")
    return status


def _run(arguments: Sequence[str]) -> int:
    try:
        with _warnings_as_notes(), log_as_notes():
            return app(list(arguments), prog_name="fti4cir", standalone_mode=False) or 0
    except typer.TyperException as error:
        # Without any argument, the message is the whole help.
        if arguments:
            message = " ".join(error.format_message().split())
            fail(f"{message}{'' if message.endswith(('.', '?')) else '.'} See fti4cir --help.")
        else:
            print(error.format_message())
        return 2
    except SystemExit as error:
        # Typer meets a reader that has gone in its own way.
        if isinstance(error.__context__, BrokenPipeError):
            raise error.__context__ from None
        return error.code if isinstance(error.code, int) else 0
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        message, status = _explained(error)
        fail(message)
        return status


def _explained(error: Exception) -> tuple[str, int]:
    """What to say of an error, and the exit status."""
    if isinstance(error, FtiError):
        return str(error), 1
    if isinstance(error, OSError):  # a full disk, a folder that cannot be written to
        return _system_error(error), 1
    if isinstance(error, MemoryError):
        return "There is not enough memory.", 1
    what = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return f"Unexpected error, a fault of fti4cir ({what}); {DEBUG}=1 shows where it happened.", UNEXPECTED


def _system_error(error: OSError) -> str:
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


@contextmanager
def _warnings_as_notes() -> Iterator[None]:
    """Show warnings as notes of one line, without the place in the code, which tells a user nothing."""

    def show(message: Warning | str, *_: object, **__: object) -> None:
        note(f"warning: {message}")

    with warnings.catch_warnings():
        # Pillow warns of large images and of odd metadata, without a name: nothing a user could act on.
        warnings.filterwarnings("ignore", module=r"PIL\.")
        warnings.showwarning = show
        yield


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
    command, *given = arguments or [""]
    if command == "evaluate" and not any(one.partition("=")[0] == "--cache" for one in given):
        return None
    return _GOES_ON.get(command)
