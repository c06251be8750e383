"""The commands that find images: `index`, `search`, `explain`, `demo`."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import InputError, StoreError
from ..files import is_uri, require_folder
from ..wording import counted
from .models import DEFAULT_MODEL, ModelOption, StoreModelOption, hint, load_model, located
from .terminal import JsonOption, note, print_json, progress_bar, require_file_place, require_folder_place, say

if TYPE_CHECKING:
    from ..models.model import Model
    from ..search.index_report import IndexReport
    from ..search.searcher import Result
    from ..search.store import Store

TopOption = Annotated[int, typer.Option("-k", min=1, help="How many images to show.")]


PATIENCE = 10.0
"""Seconds that a search waits for another process that is indexing the same folder."""


def index(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="The folder with the images; those below it are included.")
    ],
    store: Annotated[
        str | None,
        typer.Option(metavar="PATH_OR_URI", help="Where the index is kept; by default in FOLDER/.fti4cir."),
    ] = None,
    model: StoreModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Index a folder of images, or bring its index up to date.

    Only new and changed images are read. Interrupt it when you like: the next run goes on from there.
    """
    require_folder(folder)
    name = _model_for(folder, store, model)
    loaded = load_model(name)
    from ..search.indexing import store_for

    report = _bring_up_to_date(store_for(folder, loaded, location=store), loaded)
    _note_unsupported(report)
    if as_json:
        print_json(report.to_json())
    else:
        say(_counts(report))
    _hint_once(report, loaded)


def search(
    source: Annotated[
        str,
        typer.Argument(
            metavar="SOURCE", help="A folder of images (its index is made or brought up to date first), or an index."
        ),
    ],
    image: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE", exists=True, dir_okay=False, help="The image to start from; may be given several times."
        ),
    ] = None,
    text: Annotated[
        str | None, typer.Option(help='What should be different, like "in red"; without --image: what to find.')
    ] = None,
    without: Annotated[str | None, typer.Option(help='What should not be seen, like "stripes".')] = None,
    strength: Annotated[
        float,
        typer.Option(help="How far the text moves the query from the image: 1 as trained, 0 not at all."),
    ] = 1.0,
    balance: Annotated[
        float, typer.Option(help="How much the image's own feature counts, from 0 (as trained) to 1.")
    ] = 0.0,
    k: TopOption = 10,
    where: Annotated[
        str | None,
        typer.Option(metavar="SQL", help='A condition over path, width, height, size, mtime_ns: "width >= 1000".'),
    ] = None,
    include_reference: Annotated[
        bool, typer.Option("--include-reference", help="Allow the images given with --image among the results.")
    ] = False,
    model: StoreModelOption = None,
    as_json: JsonOption = False,
) -> None:
    """Search with an image, words, or both: "this image, but ..."."""
    if not image and text is None:
        raise InputError("There is nothing to search for; give --image, --text, or both.")
    # Checked before LanceDB is imported, which takes seconds, and before minutes of indexing.
    if not is_uri(source):
        require_folder(source)
    from ..search.searcher import check_query

    check_query(image or [], text, without=without, k=k, strength=strength, balance=balance)
    for path in image or []:
        _require_image(path)
    from ..search.choice import model_of_store
    from ..search.conditions import check_condition
    from ..search.store import Store

    if where is not None:
        check_condition(where)
    report = None
    if Store.exists(source):
        opened = Store.open(source)
        loaded = load_model(model_of_store(opened, model and located(model)))
    else:
        folder = Path(source)
        loaded = load_model(_model_for(folder, None, model))
        if image and text is not None:
            loaded.require_inversion()
        from ..search.indexing import store_for

        opened = store_for(folder, loaded)
        report = _bring_up_to_date(opened, loaded, patience=PATIENCE)
        if report.added or report.updated or report.removed or report.moved:
            note(_counts(report))
        if report.added or not report.total:
            _note_unsupported(report)
    from ..search.collection import Collection

    results = Collection(loaded, opened).search(
        image or [],
        text,
        without=without,
        k=k,
        where=where,
        include_reference=include_reference,
        strength=strength,
        balance=balance,
    )
    if as_json:
        found = [{"path": str(result.path), "score": result.score} for result in results]
        print_json({"results": found, "model": loaded.name})
    else:
        _print_results(results)
    if report is not None:
        _hint_once(report, loaded)


def explain(
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="The image.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE.html", help="Write a page with heat maps here.")] = None,
    model: ModelOption = DEFAULT_MODEL,
    as_json: JsonOption = False,
) -> None:
    """Show what the model sees in an image: its pseudo-words, and where each one looked."""
    _require_image(image)
    if output is not None:
        require_file_place(output, "--output")
    explanation = load_model(model).explain(image)
    if output is not None:
        from ..report.explanation import write_html

        write_html(explanation, output)
        note(f"written: {output}")
    if as_json:
        print_json(explanation.to_json())
    elif output is None:
        for line in str(explanation).splitlines():
            say(line)


def demo(
    folder: Annotated[
        Path | None, typer.Option(help="Your own images instead of those that are installed.", show_default=False)
    ] = None,
    model: ModelOption = DEFAULT_MODEL,
) -> None:
    """Search real images that are on this machine already, as an example."""
    from ..search.demo import choose_images, index_location

    chosen = choose_images(folder)
    loaded = load_model(model)
    from ..search.collection import Collection
    from ..search.indexing import store_for

    location = index_location(chosen.folder, loaded.fingerprint)
    try:
        store = store_for(chosen.folder, loaded, location=location)
        report = _bring_up_to_date(store, loaded)
    except StoreError as error:
        reason = error.__cause__ or "another program wrote it"
        raise StoreError(
            f"The demo keeps its index in '{location}', which cannot be used ({reason}); delete that folder, or set "
            "XDG_CACHE_HOME to another place."
        ) from error
    say(f"{counted(report.total, 'image')} of {chosen.folder}")
    collection = Collection(loaded, store)
    for example in chosen.examples:
        say()
        say(str(example))
        images = [chosen.folder / example.image] if example.image else []
        _print_results(collection.search(images, example.text, k=3), below=chosen.folder.resolve())
    say()
    say("Now your own images:")
    say('  fti4cir search FOLDER --image FILE --text "in red"')
    _hint_once(report, loaded)


def _require_image(path: Path) -> None:
    """ImageError for a file that is missing or not an image, before a model is loaded."""
    from ..images.decode import decode_image, read_file

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the search reads it again and warns then
        decode_image(read_file(path), path, at_least=1)


def _model_for(folder: Path, location: str | None, asked: str | None) -> str:
    """The model of a folder's index, at the given location or in the folder.

    StoreError if another model made the index at the location.
    """
    from ..search.store import Store

    if location is not None and not Store.exists(location):
        require_folder_place(location, "--store")
        return asked or DEFAULT_MODEL
    from ..search.choice import model_of_folder, model_of_store

    asked = asked and located(asked)
    return model_of_folder(folder, asked) if location is None else model_of_store(Store.open(location), asked)


def _bring_up_to_date(store: Store, model: Model, patience: float | None = None) -> IndexReport:
    from ..search.collection import Collection

    with progress_bar("indexing") as progress:
        report = Collection(model, store).update(progress=progress, patience=patience)
    for _, reason in report.skipped:
        note(f"skipped: {reason}")
    return report


def _note_unsupported(report: IndexReport) -> None:
    for kind, paths in sorted(report.unsupported.items()):
        note(_not_supported(kind, paths))


def _not_supported(kind: str, paths: Sequence[Path]) -> str:
    """A line about files of one format in the folder that cannot be read, with their extensions."""
    endings = ", ".join(sorted({path.suffix.lower() for path in paths}))
    them = "it" if len(paths) == 1 else "them"
    return (
        f"not supported: {counted(len(paths), f'{kind} file')} ({endings}); export {them} as JPEG or PNG to find {them}"
    )


def _hint_once(report: IndexReport, model: Model) -> None:
    """Suggest the better model when a folder's index was just made."""
    if report.added and report.added == report.total:
        hint(model.name)


def _counts(report: IndexReport) -> str:
    return (
        f"{counted(report.total, 'image')}: {report.added} added, {report.updated} updated, "
        f"{report.unchanged} unchanged, {report.removed} removed, {report.moved} moved, {len(report.skipped)} skipped"
    )


def _print_results(results: Sequence[Result], below: Path | None = None) -> None:
    """A table; paths are relative to `below`, or else to the working directory, if they lie in it."""
    if not results:
        say("no images")
        return
    say("rank  score  image")
    for rank, result in enumerate(results, start=1):
        say(f"{rank:4}  {result.score:5.3f}  {_short(result.path, below)}")


def _short(path: Path, below: Path | None = None) -> str:
    """Relative to `below`, or else to the working directory, so that the printed path can be opened."""
    here = below or Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)
