"""The command line: a table of commands, each a thin function over the package.

The heavy imports (torch, LanceDB) stand inside the commands, so that `--help` and a mistyped option answer at
once. Results go to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .errors import FtiError, InputError

if TYPE_CHECKING:
    from .indexing import IndexReport, Progress
    from .model import Model
    from .search import Result
    from .store import Store

DEFAULT_MODEL = "mini"
BETTER_MODEL = "vit-l-14"

ModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME_OR_DIR",
        help=f"{DEFAULT_MODEL}, {BETTER_MODEL}, a CLIP's hub name or folder, or a folder made by train or convert. "
        f"By default the store's own model, for a new store {DEFAULT_MODEL}.",
        show_default=False,
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else, on stdout.")]
TopOption = Annotated[int, typer.Option("-k", min=1, help="How many pictures to show.")]


def index(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder with the pictures; those below it are included.")
    ],
    store: Annotated[
        str | None,
        typer.Option(metavar="PATH_OR_URI", help="Where the index is kept; by default in FOLDER/.fti4cir."),
    ] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Index a folder of pictures, or bring its index up to date.

    Only new and changed pictures are read. Interrupt it when you like: the next run goes on from there.
    """
    from .indexing import store_for
    from .store import default_location

    _require_folder(folder)
    location = store or default_location(folder)
    loaded = _load_model(model or _model_of(location))
    report = _bring_up_to_date(folder, store_for(folder, loaded, location), loaded)
    if as_json:
        _print_json(report.to_json())
    else:
        print(_counts(report))


def search(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A folder of pictures (its index is made or brought up to date first), or a store."
        ),
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="The picture to start from; may be given several times."
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help='What should be different, like "in red"; alone: what to find.')
    ] = None,
    without: Annotated[str | None, typer.Option(help='What should not be seen, like "stripes".')] = None,
    k: TopOption = 10,
    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help='A condition over path, width, height, size, mtime_ns: "width >= 1000".'),
    ] = None,
    include_reference: Annotated[
        bool, typer.Option("--include-reference", help="Let the pictures given with --image be among the results.")
    ] = False,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search with a picture, words, or both: "this picture, but ..."."""
    # Before minutes of indexing, not after.
    if not image and text is None:
        raise InputError("There is nothing to search for; give --image, --text, or both.")

    from .indexing import store_for
    from .search import Searcher
    from .store import Store, default_location

    if Store.exists(source):
        opened = Store.open(source)
        loaded = _load_model(model or opened.info.model)
    else:
        folder = Path(source)
        _require_folder(folder)
        loaded = _load_model(model or _model_of(default_location(folder)))
        opened = store_for(folder, loaded)
        report = _bring_up_to_date(folder, opened, loaded)
        if report.added or report.updated or report.removed:
            _note(_counts(report))
    results = Searcher(loaded, opened).search(image or [], text, without, k, where, include_reference)
    if as_json:
        found = [{"path": str(result.path), "score": result.score} for result in results]
        _print_json({"results": found, "model": loaded.name})
    else:
        _print_results(results)


def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The picture.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with heat maps here.")] = None,
    model: ModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what the model makes of a picture: its pseudo-words, and where each one looked."""
    from .explain import write_html

    explanation = _load_model(model or DEFAULT_MODEL).explain(image)
    if output is not None:
        write_html(explanation, output)
        _note(f"written: {output}")
    if as_json:
        _print_json(explanation.to_json())
    elif output is None:
        print(explanation)


def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Your own pictures instead of those that are installed.", show_default=False)
    ] = None,
    model: ModelOption = None,
) -> None:
    """Search real pictures that are on this machine already, as an example."""
    from .demo import choose_pictures, store_location
    from .indexing import store_for
    from .search import Searcher

    chosen = choose_pictures(folder)
    loaded = _load_model(model or DEFAULT_MODEL)
    store = store_for(chosen.folder, loaded, store_location(chosen.folder, loaded.fingerprint))
    report = _bring_up_to_date(chosen.folder, store, loaded)
    print(f"{report.total} pictures of {chosen.folder}")
    searcher = Searcher(loaded, store)
    for example in chosen.examples:
        print(f"\n{example}")
        images = [chosen.folder / example.image] if example.image else []
        _print_results(searcher.search(images, example.text, k=3))
    print('\nNow your own pictures:\n  fti4cir search FOLDER --image FILE --text "in red"')


COMMANDS: dict[str, Callable[..., None]] = {
    "index": index,
    "search": search,
    "explain": explain,
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
    try:
        status = app(list(arguments), prog_name="fti4cir", standalone_mode=False)
    except typer.TyperException as error:
        # Without any argument, the message is the whole help.
        if arguments:
            _fail(f"{error.format_message()} See fti4cir --help.")
        else:
            print(error.format_message())
        return 2
    except FtiError as error:
        _fail(str(error))
        return 1
    except OSError as error:  # a full disk, a folder that cannot be written to
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}")
        return 1
    if status == _INTERRUPTED:
        _fail("Interrupted; what is done is kept, and the same command goes on from there.")
    return status or 0


def main() -> None:
    """The entry point of the `fti4cir` command."""
    sys.exit(run(sys.argv[1:]))


# What Typer gives back after Ctrl-C, and what shells expect: 128 and the number of the signal.
_INTERRUPTED = 130


def _fail(message: str) -> None:
    print(f"fti4cir: error: {' '.join(message.split())}", file=sys.stderr)


def _note(message: str) -> None:
    print(message, file=sys.stderr)


def _print_json(data: Any) -> None:
    print(json.dumps(data))


def _require_folder(folder: Path) -> None:
    """Before a model is loaded: a mistyped path should be answered at once."""
    if not folder.is_dir():
        raise InputError(f"'{folder}' is not a folder." if folder.exists() else f"There is no folder '{folder}'.")


def _load_model(name: str) -> Model:
    import fti4cir

    # A store notes its model's name, and is searched from other folders.
    if name not in (DEFAULT_MODEL, BETTER_MODEL) and os.path.isdir(name):
        name = os.path.abspath(name)
    if name == DEFAULT_MODEL:
        _note(f"model: {name} (bundled, small); for better results: --model {BETTER_MODEL}")
    elif name == BETTER_MODEL:
        _note(f"model: {name}")
    else:
        _note(f"model: {name}; the best that is ready-made: --model {BETTER_MODEL}")
    return fti4cir.load(name)


def _model_of(location: str | Path) -> str:
    """The name of the model that a store was made with; of the default model where there is no store yet."""
    from .store import Store

    return Store.open(location).info.model if Store.exists(location) else DEFAULT_MODEL


def _bring_up_to_date(folder: Path, store: Store, model: Model) -> IndexReport:
    from .indexing import index_folder

    with _progress("indexing") as progress:
        report = index_folder(folder, store, model, progress)
    for _, reason in report.skipped:
        _note(f"skipped: {reason}")
    return report


@contextmanager
def _progress(what: str) -> Iterator[Progress]:
    """A bar on stderr where that is a terminal, else nothing."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _counts(report: IndexReport) -> str:
    return (
        f"{report.total} pictures: {report.added} added, {report.updated} updated, {report.unchanged} unchanged, "
        f"{report.removed} removed, {len(report.skipped)} skipped"
    )


def _print_results(results: Sequence[Result]) -> None:
    if not results:
        print("no pictures")
        return
    print("rank  score  picture")
    for rank, result in enumerate(results, start=1):
        print(f"{rank:4}  {result.score:5.3f}  {_short(result.path)}")


def _short(path: Path) -> str:
    """Relative to where the user is, if it lies below; either way it can be opened as it is printed."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
