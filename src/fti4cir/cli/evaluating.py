"""The commands that measure: `evaluate`, `verify`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..errors import InputError
from .models import DEFAULT_MODEL, ModelsOption, load_models
from .terminal import JsonOption, note, print_json, progress_bar, require_file, require_images, say

if TYPE_CHECKING:
    from ..benchmarks.base import Benchmark
    from ..benchmarks.verify import Verification
    from ..evaluation.averages import Average
    from ..evaluation.evaluate import Evaluation
    from ..methods.base import Method
    from ..models.model import Model

_LISTED = 10  # images of each kind that verify names without --json

SplitOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="fashioniq: val; cirr: val or test1; circo: val or test. The answers of the test splits are hidden.",
        show_default="val",
    ),
]
GalleryOption = Annotated[
    Literal["split", "union"] | None,
    typer.Option(
        metavar="split|union",
        help="fashioniq: search all images of the split, or only the queries' references and targets.",
        show_default="split",
    ),
]
CategoryOption = Annotated[
    Literal["dress", "shirt", "toptee"] | None,
    typer.Option(metavar="NAME", help="fashioniq: this one only, dress, shirt or toptee.", show_default="all three"),
]


def evaluate(
    benchmark: Annotated[
        Literal["attributes", "descriptions", "fashioniq", "cirr", "circo"],
        typer.Argument(
            metavar="BENCHMARK",
            help="fashioniq, cirr, circo: published ones, in their own folders. attributes: from your own table of "
            "images and their attributes. descriptions: whether images' pseudo-words find their own captions.",
        ),
    ],
    root: Annotated[Path, typer.Option(metavar="DIR", help="The folder with the benchmark's images.")],
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="fti4cir, pic2word, searle or lincir, with each given model that was trained as it; searle-oti, with "
            "one that was trained as searle; image, text, sum or caption, with any. Several, given one by one or with "
            "commas, share one pass over the images, and are compared with the first.",
            show_default="what the models were trained as",
        ),
    ] = None,
    model: ModelsOption = None,
    image_weight: Annotated[
        float | None,
        typer.Option(metavar="FLOAT", help="The image's share in the method sum, 0 to 1.", show_default="0.5"),
    ] = None,
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For the method caption: captions of the images that queries start from, as train reads them.",
            show_default=False,
        ),
    ] = None,
    split: SplitOption = None,
    gallery: GalleryOption = None,
    category: CategoryOption = None,
    table: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="attributes: the table, a CSV. descriptions: the captions, in a form that train reads.",
            show_default=False,
        ),
    ] = None,
    id_column: Annotated[
        str | None,
        typer.Option(
            "--id",
            metavar="COLUMN",
            help="attributes: the column with an image's path in the root, with or without its extension.",
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
    seed: Annotated[int | None, typer.Option(min=0, help="Of that draw.", show_default="0")] = None,
    allow_missing: Annotated[
        bool,
        typer.Option(
            "--allow-missing",
            help="Go on without images that are not there or, but for descriptions, cannot be read.",
        ),
    ] = False,
    submission: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="cirr, circo: write what is found here, for the benchmark's server. cirr has a second file, called "
            "FILE with _subset before the extension.",
            show_default=False,
        ),
    ] = None,
    predictions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="cirr, circo: check such a file, and score it where the answers are known; no images are needed.",
            show_default=False,
        ),
    ] = None,
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the gallery's features here: an evaluation that is interrupted goes on from there, and the next "
            "on the same images encodes the references only.",
            show_default=False,
        ),
    ] = None,
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a page with tables, plots and examples here, and the figures as JSON, Markdown and CSV.",
            show_default=False,
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Measure how well methods find the right images; figures are fractions, with 95 % bootstrap intervals."""
    if predictions is not None:
        others = {
            "--method": method, "--model": model, "--captions": captions, "--gallery": gallery, "--category": category,
            "--table": table, "--id": id_column, "--change": change, "--keep": keep, "--template": template,
            "--image-weight": image_weight, "--limit": limit, "--seed": seed, "--submission": submission,
            "--cache": cache, "--report": report,
        }  # fmt: skip
        if given := [name for name, value in others.items() if value is not None]:
            raise InputError(f"--predictions takes a whole file as it is; leave {' and '.join(given)} out.")
        _evaluate_file(benchmark, root, split or "val", predictions, as_json)
        return
    from ..benchmarks import attributes
    from ..benchmarks import registry as published
    from ..benchmarks.submission import require_server, write

    names = list(dict.fromkeys(name for given in method or [] for name in _listed(given)))
    if submission is not None:
        require_server(benchmark, "--submission")
        if len(names) > 1 or len(model or []) > 1 or limit is not None:
            raise InputError(
                "--submission is for all queries and one method; leave --limit out and give one --method and one "
                "--model."
            )
    if captions is not None and "caption" not in names:
        raise InputError("--captions is for the method caption only; give --method caption, or leave it out.")
    if captions is not None:
        require_file(captions, "--captions")
    if image_weight is not None and "sum" not in names:
        raise InputError("--image-weight is for the method sum only; give --method sum, or leave it out.")
    if seed is not None and limit is None:
        raise InputError("--seed is of the draw that --limit makes; give --limit, or leave it out.")
    seed = seed or 0
    if report is not None and report.exists() and not report.is_dir():
        raise InputError(f"The report is a folder, but {report} is a file; give another --report.")
    models = model or [DEFAULT_MODEL]
    if benchmark == "descriptions":
        if any(
            given is not None
            for given in (split, gallery, category, id_column, change, keep, template, cache, captions)
        ):
            raise InputError("evaluate descriptions needs --root and --table only, beside method, model and limit.")
        if table is None:
            raise InputError("evaluate descriptions needs --table, the captions.")
        _evaluate_descriptions(root, table, names, models, limit, seed, allow_missing, report, as_json)
        return

    # Benchmarks come before the model, for a mistyped column or folder should be answered at once.
    parts: Sequence[Benchmark]
    if benchmark == "attributes":
        if split is not None or gallery is not None or category is not None:
            raise InputError(
                "The benchmark attributes has no splits, galleries or categories; give the table of a part instead."
            )
        if table is None or id_column is None or change is None or template is None:
            raise InputError("evaluate attributes needs --table, --id, --change and --template; --keep is usual, too.")
        parts = [
            attributes.load(
                root, table, id_column, change, _listed(keep or ""), template,
                limit=limit, seed=seed, allow_missing=allow_missing,
            )
        ]  # fmt: skip
    else:
        if any(given is not None for given in (table, id_column, change, keep, template)):
            raise InputError(f"--table, --id, --change, --keep and --template are for attributes, not for {benchmark}.")
        options = {name: value for name, value in (("gallery", gallery), ("category", category)) if value}
        parts = published.load(benchmark, root, split, allow_missing=allow_missing, **options)
        if limit is not None:
            parts = [part.sample(limit, seed) for part in parts]
    _require_scorable(parts, root, submission)

    from ..evaluation.averages import average
    from ..methods.registry import Captions, create

    described = Captions(root, captions) if captions is not None else None
    weight = 0.5 if image_weight is None else image_weight
    methods = [(create(name, one, weight, described, note), one) for name, one in _assigned(names, models)]
    each = _measured(benchmark, parts, methods, cache, report, allow_missing)
    if submission is not None:
        first = each[0][0]
        for file in write(parts[0], first.ranking, first.subset_ranking, submission, first.unreadable):
            note(f"written: {file}")
    evaluations: Sequence[Evaluation | Average]
    evaluations = each[0] if len(each) == 1 else [average(benchmark, one) for one in zip(*each, strict=True)]
    if as_json:
        compared_by = parts[0].compared_by
        print_json(evaluations[0].to_json() if len(evaluations) == 1 else _compared(evaluations, compared_by))
    else:
        _print_evaluations(evaluations, parts[0].compared_by)


def _require_scorable(parts: Sequence[Benchmark], root: Path, submission: Path | None) -> None:
    """InputError if there is nothing to search, or nothing could come of it."""
    from ..benchmarks.registry import benchmarks
    from ..benchmarks.submission import plan

    for part in parts:
        if not len(part.gallery):
            raise InputError(f"None of the images of {part.name} is under {root}; fti4cir verify says what it needs.")
        if submission is not None:
            plan(part, submission)
        elif not part.answers_known:
            hint = (
                "; --submission FILE writes a file for the benchmark's server"
                if part.name in (known := benchmarks()) and known[part.name].forms
                else ""
            )
            raise InputError(
                f"The answers of {part.name}, split {part.split}, are hidden: it cannot be scored here{hint}."
            )


def _measured(
    benchmark: str,
    parts: Sequence[Benchmark],
    methods: Sequence[tuple[Method, Model]],
    cache: Path | None,
    report: Path | None,
    allow_missing: bool,
) -> list[list[Evaluation]]:
    """For each part the evaluations of all methods; where a report is asked for, its pages are written."""
    from ..evaluation.evaluate import evaluate as evaluate_
    from ..report import measure
    from ..report import write as write_report

    each = []
    for part in parts:
        with progress_bar("encoding") as progress:
            if report is None:
                alone = [one for one, _ in methods]
                called = [one.name for _, one in methods]
                each.append(evaluate_(part, methods[0][1].encoder, alone, called, progress, cache, note, allow_missing))
                continue
            study = measure(part, methods, progress=progress, cache=cache, say=note, allow_unreadable=allow_missing)
        each.append(list(study.evaluations))
        # Parts have a gallery each, and so a page each.
        folder = report if len(parts) == 1 else report / part.name.removeprefix(f"{benchmark}-")
        note(f"written: {write_report(study, folder)}")
    return each


def _evaluate_descriptions(
    root: Path,
    table: Path,
    methods: list[str],
    models: list[str],
    limit: int | None,
    seed: int,
    allow_missing: bool,
    report: Path | None,
    as_json: bool,
) -> None:
    """Rank captions for images."""
    require_images(root)
    require_file(table, "--table")
    from ..evaluation.caption_retrieval import load

    descriptions = load(root, table, limit=limit, seed=seed, allow_missing=allow_missing)

    from ..report import measure_descriptions, write

    assigned = _assigned(methods, models)
    with progress_bar("describing") as progress:
        study = measure_descriptions(descriptions, assigned, progress)
    if report is not None:
        note(f"written: {write(study, report)}")
    evaluations = study.evaluations
    if as_json:
        print_json(evaluations[0].to_json() if len(evaluations) == 1 else _compared(evaluations, study.compared_by))
    else:
        _print_evaluations(evaluations, study.compared_by)


def _evaluate_file(benchmark: str, root: Path, split: str, file: Path, as_json: bool) -> None:
    """Check, and if it can be done score, a file of predictions."""
    from ..benchmarks import registry as published
    from ..benchmarks.submission import read, require_server

    require_server(benchmark, "--predictions")
    (queries,) = published.load(benchmark, root, split, allow_missing=True)
    predictions = read(queries, file)

    from ..evaluation.evaluate import judge

    within = predictions.form.within
    ranking, subset_ranking = (None, predictions.ranking) if within else (predictions.ranking, None)
    judged = judge(predictions.benchmark, ranking, subset_ranking, method="predictions", model=None)
    # Which images are here does not matter to a file that was made elsewhere.
    evaluation = replace(judged, gallery=predictions.pictures, missing=0)
    if as_json:
        print_json({**evaluation.to_json(), "valid": True, "predictions": predictions.form.count})
    else:
        _print_evaluations([evaluation], queries.compared_by)
        if evaluation.per_query and evaluation.values:
            say()
            say(f"{queries.compared_by} of the queries with:")
            for value, row in evaluation.by_value().items():
                say(f"  {value:32}{row[queries.compared_by]:.3f}  ({row['queries']})")
        say()
        say(f"valid: {evaluation.queries} queries with {predictions.form.count} predictions each")


def verify(
    benchmark: Annotated[
        Literal["fashioniq", "cirr", "circo"],
        typer.Argument(metavar="BENCHMARK", help="fashioniq, cirr or circo."),
    ],
    root: Annotated[
        Path, typer.Option(metavar="DIR", help="The benchmark's folder, with its annotation files and images.")
    ],
    split: SplitOption = None,
    gallery: GalleryOption = None,
    category: CategoryOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say which images a benchmark needs that are missing or broken, and what that does to its figures.

    The exit status is 0 if every image is there and can be read, else 1.
    """
    from ..benchmarks import registry as published
    from ..benchmarks.verify import verify as verify_

    options = {name: value for name, value in (("gallery", gallery), ("category", category)) if value}
    parts = published.load(benchmark, root, split, allow_missing=True, **options)
    with progress_bar("reading") as progress:
        verification = verify_(benchmark, parts, progress)
    if as_json:
        print_json(verification.to_json())
    else:
        _print_verification(verification)
    if not verification.complete:
        raise typer.Exit(1)


def _listed(names: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in names.split(",") if name.strip()]


def _assigned(names: Sequence[str], models: Sequence[str]) -> list[tuple[str, Model]]:
    """The methods, each with the loaded model that it stands on."""
    from ..methods.registry import assign, check_methods

    check_methods(names)
    loaded = load_models(models)
    pairs = assign(names, loaded)
    for model in loaded:
        if all(model is not used for _, used in pairs):
            note(f"left out: {model.name}; none of the methods stands on it")
    return pairs


def _compared(evaluations: Sequence[Evaluation | Average], metric: str) -> dict[str, Any]:
    """Several evaluations of the same queries as JSON, each but the first with its difference from the first."""
    from ..evaluation.averages import differences

    return {
        "evaluations": [evaluation.to_json() for evaluation in evaluations],
        "differences": differences(evaluations, [metric]),
    }


def _print_evaluations(evaluations: Sequence[Evaluation | Average], compared_by: str) -> None:
    """A table for people: a metric a line, a method a column, each figure with its interval."""
    from ..evaluation.averages import differences
    from ..evaluation.evaluate import labels

    first = evaluations[0]
    say(f"{first.benchmark}, {first.split}: {first.protocol}")
    models = list(dict.fromkeys(one.model for one in evaluations if one.model))
    by = f", {'models' if len(models) > 1 else 'model'} {', '.join(models)}" if models else ""
    searched = "captions" if first.benchmark == "descriptions" else "images"
    say(f"{first.queries} queries over {first.gallery} {searched}{by}")
    if first.missing:
        say(f"{first.missing} images are missing: these figures are not comparable with others")
    metrics = [evaluation.metrics() for evaluation in evaluations]
    if not metrics[0]:
        say("the answers are hidden: the benchmark's server scores these predictions")
        return
    say()
    shown = first.shown
    width = max([8, *(len(name) + 2 for name in shown)])
    names = labels(evaluations)
    columns = [max(24, len(name) + 2) for name in names]
    say("".join([" " * width, *map(str.ljust, names, columns)]).rstrip())
    intervals = [evaluation.intervals() for evaluation in evaluations]
    for name in shown:
        figures = [
            f"{means[name]:.3f} [{ends[name][0]:.3f}, {ends[name][1]:.3f}]"
            for means, ends in zip(metrics, intervals, strict=True)
        ]
        say("".join([f"{name:{width}}", *map(str.ljust, figures, columns)]).rstrip())
    if left_out := [name for name in metrics[0] if name not in shown]:
        ceilings = ", ".join(f"{first.ceilings[name]:.3f}" for name in left_out)
        say()
        say(
            f"not shown: {', '.join(left_out)}; queries have so many right answers that a perfect ranking would "
            f"reach {ceilings} only"
        )
    if len(evaluations) > 1:
        say()
        say(f"{compared_by}, paired by query:")
        for name, one in zip(names[1:], differences(evaluations, [compared_by]), strict=True):
            low, high = one["interval"]
            say(f"  {name} - {names[0]}: {one['difference']:+.3f} [{low:+.3f}, {high:+.3f}]")


def _print_verification(verification: Verification) -> None:
    """What it comes to, and then what is wrong: the first images of each kind, one a line."""
    say(
        f"{verification.needed:,} images needed: {verification.absent:,} missing, "
        f"{len(verification.unreadable):,} unreadable, {len(verification.suspicious):,} suspicious"
    )
    for part in verification.parts:
        say(f"{part.benchmark.name}, {verification.split}: {part.meaning}")
    _print_some("missing", verification.missing)
    _print_some("unreadable", [f"{fault.id}: {fault.reason}" for fault in verification.unreadable])
    _print_some("suspicious", [f"{fault.id}: {fault.reason}" for fault in verification.suspicious])


def _print_some(kind: str, found: Sequence[str]) -> None:
    """The first of a list, and how many more there are."""
    if found:
        say()
    for one in found[:_LISTED]:
        say(f"{kind}: {one}")
    if len(found) > _LISTED:
        say(f"... and {len(found) - _LISTED:,} more {kind}; all of them with --json")
