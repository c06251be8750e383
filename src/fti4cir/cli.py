"""The command line: a table of commands, each a thin function over the package.

The heavy imports (torch, LanceDB) stand inside the commands, so that `--help` and a mistyped option answer at
once. Results go to stdout; progress, notes and errors go to stderr.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from .errors import FtiError, InputError

if TYPE_CHECKING:
    from .evaluation import Evaluation
    from .indexing import IndexReport, Progress
    from .model import Model
    from .search import Result
    from .store import Store

DEFAULT_MODEL = "mini"
BETTER_MODEL = "vit-l-14"

_MODELS = f"{DEFAULT_MODEL}, {BETTER_MODEL}, a CLIP's hub name or folder, or a folder made by train or convert."
ModelOption = Annotated[str, typer.Option("--model", metavar="NAME_OR_DIR", help=_MODELS)]
StoreModelOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        metavar="NAME_OR_DIR",
        help=f"{_MODELS} By default the store's own model, for a new store {DEFAULT_MODEL}.",
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
    model: StoreModelOption = None,
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
    model: StoreModelOption = None,
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
    model: ModelOption = DEFAULT_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Show what the model makes of a picture: its pseudo-words, and where each one looked."""
    from .explain import write_html

    explanation = _load_model(model).explain(image)
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
    model: ModelOption = DEFAULT_MODEL,
) -> None:
    """Search real pictures that are on this machine already, as an example."""
    from .demo import choose_pictures, store_location
    from .indexing import store_for
    from .search import Searcher

    chosen = choose_pictures(folder)
    loaded = _load_model(model)
    store = store_for(chosen.folder, loaded, store_location(chosen.folder, loaded.fingerprint))
    report = _bring_up_to_date(chosen.folder, store, loaded)
    print(f"{report.total} pictures of {chosen.folder}")
    searcher = Searcher(loaded, store)
    for example in chosen.examples:
        print(f"\n{example}")
        images = [chosen.folder / example.image] if example.image else []
        _print_results(searcher.search(images, example.text, k=3), below=chosen.folder.resolve())
    print('\nNow your own pictures:\n  fti4cir search FOLDER --image FILE --text "in red"')


def train(
    images: Annotated[
        Path, typer.Option(metavar="FOLDER_OR_TAR", help="The pictures: a folder, those below it included, or a tar.")
    ],
    captions: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Their captions: a CSV with the columns image and caption, or JSON lines with these fields.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the model, its log and its checkpoint.")],
    backbone: Annotated[
        str,
        typer.Option(
            metavar="NAME_OR_DIR", help=f"What to train for: {DEFAULT_MODEL}, or a CLIP's hub name or folder."
        ),
    ] = DEFAULT_MODEL,
    method: Annotated[
        str, typer.Option(metavar="NAME", help="What to train; this version trains fti4cir.")
    ] = "fti4cir",
    preset: Annotated[
        str,
        typer.Option(
            metavar="paper|composed",
            help="paper: the published recipe, for large CLIPs and many pictures. composed: ours, which also trains "
            '"but ..." on edited captions, for small encoders and few pictures.',
        ),
    ] = "composed",
    epochs: Annotated[
        int | None, typer.Option(min=1, help="How often each picture is seen.", show_default="the preset's")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures a step.", show_default="the preset's")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest of the schedule.", show_default="the preset's")
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same model.", show_default="the preset's")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the pictures' features are kept, for other trainings on the same pictures to use.",
            show_default="in the output folder",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in the output folder, if there is one.")
    ] = False,
) -> None:
    """Train the inversion network on captioned pictures, for the encoder of a model.

    Each picture is encoded once; the network then learns from these features. Interrupt it when you like: with
    --resume it goes on from there, to the same weights.
    """
    from . import training
    from .baselines import require_trainable

    require_trainable(method)
    given = {"epochs": epochs, "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed}
    config = training.preset(preset, **{name: value for name, value in given.items() if value is not None})
    training.train(
        config, images, captions, _announce(backbone, "backbone"), output, resume=resume, say=_note, features=features
    )
    _print_saved(output)


def evaluate(
    benchmark: Annotated[
        Literal["attributes", "fashioniq", "cirr", "circo"],
        typer.Argument(
            metavar="BENCHMARK",
            help="attributes: from your own table of pictures and their attributes. fashioniq, cirr and circo are "
            "not in this version.",
        ),
    ],
    root: Annotated[Path, typer.Option(metavar="DIR", help="The folder with the benchmark's pictures.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="fti4cir, image, text or sum. Several, given one by one or with commas, share one pass over the "
            "pictures, and are compared with the first.",
            show_default="fti4cir",
        ),
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
    image_weight: Annotated[float, typer.Option(help="The picture's share in the method sum, 0 to 1.")] = 0.5,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which part of a benchmark that has several.", show_default=False)
    ] = None,
    table: Annotated[
        Path | None, typer.Option(metavar="FILE.csv", help="attributes: the table.", show_default=False)
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="COLUMN",
            help="attributes: the column with a picture's path in the root, with or without its extension.",
            show_default=False,
        ),
    ] = None,
    change: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="attributes: the column whose value changes.", show_default=False),
    ] = None,
    keep: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN[,COLUMN]",
            help="attributes: the columns in which a right answer agrees with the reference.",
            show_default=False,
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            metavar="TEXT",
            help='attributes: what is asked for, with the wanted value in braces: "in {value}".',
            show_default=False,
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many queries, drawn evenly.", show_default="all")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of that draw.")] = 0,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Go on without pictures that are not there.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Measure how well methods find the right pictures; figures are fractions, with 95 % bootstrap intervals."""
    if benchmark != "attributes":
        raise InputError(f"The benchmark {benchmark} is not in this version of fti4cir; it has attributes only.")
    if split is not None:
        raise InputError("The benchmark attributes has no splits; leave --split out, and give the table of a part.")
    if table is None or id_column is None or change is None or template is None:
        raise InputError("evaluate attributes needs --table, --id, --change and --template; --keep is usual, too.")

    from .baselines import create
    from .datasets import attributes
    from .evaluation import evaluate as evaluate_

    names = list(dict.fromkeys(name for given in method or ["fti4cir"] for name in _listed(given)))
    # Before the model, for a mistyped column should be answered at once.
    queries = attributes.load(
        root, table, id_column, change, _listed(keep or ""), template,
        limit=limit, seed=seed, allow_missing=allow_missing,
    )  # fmt: skip
    loaded = _load_model(model)
    methods = [create(name, loaded, image_weight) for name in names]
    with _progress("encoding") as progress:
        evaluations = evaluate_(queries, loaded.encoder, methods, loaded.name, progress)
    if as_json:
        _print_json(evaluations[0].to_json() if len(evaluations) == 1 else _compared(evaluations))
    else:
        _print_evaluations(evaluations)


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT.pth", help="What the authors' training code saved.")
    ],
    backbone: Annotated[
        str, typer.Option(metavar="NAME_OR_DIR", help="The CLIP it was trained on: its hub name or folder.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the model.")],
) -> None:
    """Convert a checkpoint of the authors' release to a model; no code in it is run."""
    from .checkpoint import convert as convert_

    # No hint at a better one: the checkpoint decides which it is.
    _note(f"backbone: {backbone}")
    convert_(checkpoint, backbone, output)
    _print_saved(output)


COMMANDS: dict[str, Callable[..., None]] = {
    "index": index,
    "search": search,
    "explain": explain,
    "train": train,
    "evaluate": evaluate,
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
        again = _GOES_ON.get(arguments[0])
        _fail(f"Interrupted; what is done is kept, and {again} goes on from there." if again else "Interrupted.")
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
    "train": "the same command with --resume",
}


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

    return fti4cir.load(_announce(name, "model"))


def _announce(name: str, option: str) -> str:
    """Say which model is used and which option asks for a better one; gives its name from wherever one is."""
    # A store notes its model's name, and is searched from other folders; a trained model that of its backbone.
    if name not in (DEFAULT_MODEL, BETTER_MODEL) and os.path.isdir(name):
        name = os.path.abspath(name)
    if name == DEFAULT_MODEL:
        _note(f"{option}: {name} (bundled, small); for better results: --{option} {BETTER_MODEL}")
    elif name == BETTER_MODEL:
        _note(f"{option}: {name}")
    else:
        _note(f"{option}: {name}; the best that is ready-made: --{option} {BETTER_MODEL}")
    return name


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


def _print_results(results: Sequence[Result], below: Path | None = None) -> None:
    """A table; paths are relative to `below`, or else to the working directory, where they can be."""
    if not results:
        print("no pictures")
        return
    print("rank  score  picture")
    for rank, result in enumerate(results, start=1):
        print(f"{rank:4}  {result.score:5.3f}  {_short(result.path, below)}")


def _listed(names: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


_COMPARED_BY = "mAP@10"


def _compared(evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Several evaluations of the same queries as JSON, each but the first with its difference from the first."""
    from .evaluation import compare

    first, *others = evaluations
    differences = []
    for other in others:
        difference = compare(other, first, _COMPARED_BY)
        differences.append(
            {
                "method": other.method,
                "against": first.method,
                "metric": _COMPARED_BY,
                "difference": difference.mean,
                "interval": [difference.low, difference.high],
            }
        )
    return {"evaluations": [evaluation.to_json() for evaluation in evaluations], "differences": differences}


def _print_evaluations(evaluations: Sequence[Evaluation]) -> None:
    """A table for people: a metric a line, a method a column, each figure with its interval."""
    first = evaluations[0]
    print(f"{first.benchmark}, {first.split}: {first.protocol}")
    print(f"{first.queries} queries over {first.gallery} pictures, model {first.model}")
    if first.missing:
        print(f"{first.missing} pictures are missing: these figures are not comparable with others")
    print()
    print("".join([f"{'':8}", *(f"{evaluation.method:24}" for evaluation in evaluations)]).rstrip())
    intervals = [evaluation.intervals() for evaluation in evaluations]
    for name in first.per_query:
        figures = [
            f"{evaluation.metrics()[name]:.3f} [{ends[name][0]:.3f}, {ends[name][1]:.3f}]"
            for evaluation, ends in zip(evaluations, intervals, strict=True)
        ]
        print("".join([f"{name:8}", *(f"{figure:24}" for figure in figures)]).rstrip())
    if len(evaluations) > 1:
        print(f"\n{_COMPARED_BY}, paired by query:")
        for one in _compared(evaluations)["differences"]:
            low, high = one["interval"]
            print(f"  {one['method']} - {one['against']}: {one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")


def _print_saved(folder: Path) -> None:
    print(f"saved in {folder}; now search with it:")
    print(f'  fti4cir search FOLDER --model {shlex.quote(str(folder))} --image FILE --text "in red"')


def _short(path: Path, below: Path | None = None) -> str:
    """Relative to `below`, or else to where the user is and then it can be opened as it is printed."""
    here = below or Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
