"""The command that measures: `evaluate`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import InputError
from ..methods import registry
from .benchmarks import PANEL, BenchmarkGroup, choices, given, parameter
from .commands import checked, with_groups
from .measuring import assigned, created, measured, require_answers, require_gallery
from .options import (
    AllowMissingOption,
    AttributeOptions,
    CaptionsTable,
    ComposingOptions,
    DrawOptions,
    ImagesOption,
    MethodOptions,
    OutputOptions,
    PredictionsOption,
    RootOption,
    listed,
)
from .tables import print_figures, print_predictions
from .terminal import note, print_json, progress_bar, require_file, require_images

if TYPE_CHECKING:
    from ..benchmarks.base import Benchmark
    from ..benchmarks.published import Published
    from ..evaluation.averages import Average
    from ..evaluation.results import Evaluation


class _Evaluate(BenchmarkGroup):
    def published(self, benchmark: Published) -> Callable[..., None]:
        def command(
            root: RootOption,
            methods: MethodOptions,
            composing: ComposingOptions,
            draw: DrawOptions,
            output: OutputOptions,
            **options: Any,
        ) -> None:
            predictions = options.pop("predictions", None)
            if predictions is None:
                _published(benchmark, root, methods, composing, draw, output, **options)
            else:
                _refuse_beside_predictions((methods, composing, draw, output), options)
                _predictions(benchmark, root, options["split"], predictions, output.as_json)

        return with_groups(command, *choices(benchmark), *_of_server(benchmark))


evaluate = typer.Typer(
    cls=_Evaluate,
    subcommand_metavar="BENCHMARK [OPTIONS]",
    help="Measure how well methods find the right images; figures are fractions, with 95 % bootstrap intervals.",
)


def _of_server(benchmark: Published) -> list[Any]:
    """The options of a benchmark whose server takes submissions."""
    if not benchmark.forms:
        return []
    second = " A second file is called FILE with _subset before the extension." if len(benchmark.forms) > 1 else ""
    text = f"Write what is found here, for the benchmark's server.{second}"
    submission = Annotated[Path | None, typer.Option(metavar="FILE", help=text, show_default=False)]
    return [parameter("submission", submission), parameter("predictions", PredictionsOption)]


def _published(
    benchmark: Published,
    root: Path,
    methods: MethodOptions,
    composing: ComposingOptions,
    draw: DrawOptions,
    output: OutputOptions,
    *,
    split: str,
    submission: Path | None = None,
    **options: Any,
) -> None:
    if submission is not None and (len(methods.names) > 1 or len(methods.models) > 1 or draw.limit is not None):
        raise InputError(
            "--submission is for all queries and one method; leave --limit out and give one --method and one --model."
        )
    _check(methods, composing, draw, output)
    # Before the model, because a mistyped folder should be answered at once.
    parts = benchmark.load(root, split, allow_missing=composing.allow_missing, **given(options))
    if draw.limit is not None:
        parts = tuple(part.sample(draw.limit, draw.seed or 0) for part in parts)
    require_gallery(parts, root)
    if submission is None:
        require_answers(parts, has_server=bool(benchmark.forms))
    else:
        from ..benchmarks.submission import plan

        plan(parts[0], submission)
    ready = created(methods, composing, root=root)
    each = measured(benchmark.name, parts, methods=ready, composing=composing, output=output)
    if submission is not None:
        _write(parts[0], each[0][0], submission)
    print_figures(_whole(benchmark.name, each), parts[0].compared_by, as_json=output.as_json)


def _whole(benchmark: str, each: Sequence[Sequence[Evaluation]]) -> Sequence[Evaluation | Average]:
    """Each method's evaluation of the whole benchmark, from those of its parts."""
    from ..evaluation.averages import average

    return each[0] if len(each) == 1 else [average(benchmark, one) for one in zip(*each, strict=True)]


def _write(part: Benchmark, found: Evaluation, submission: Path) -> None:
    from ..benchmarks.submission import write

    for file in write(part, found.ranking, found.subset_ranking, submission, found.unreadable):
        note(f"written: {file}")


def _refuse_beside_predictions(groups: Sequence[Any], options: dict[str, Any]) -> None:
    """InputError if an option is given that has no say in how a file of predictions is scored."""
    values = {one.name: getattr(group, one.name) for group in groups for one in fields(group)} | options
    for name in ("split", "allow_missing", "as_json"):
        del values[name]
    if names := [f"--{name.replace('_', '-')}" for name, value in values.items() if value is not None]:
        raise InputError(f"--predictions takes a whole file as it is; leave {' and '.join(names)} out.")


def _predictions(benchmark: Published, root: Path, split: str, file: Path, as_json: bool) -> None:
    """Check, and if it can be done score, a file of predictions."""
    from ..benchmarks.submission import read

    (queries,) = benchmark.load(root, split, allow_missing=True)
    predictions = read(queries, file)

    from ..evaluation.ranking import judge

    within = predictions.form.within
    ranking, subset_ranking = (None, predictions.ranking) if within else (predictions.ranking, None)
    judged = judge(predictions.benchmark, ranking, subset_ranking=subset_ranking, method="predictions", model=None)
    # Which images are here does not matter to a file that was made elsewhere.
    evaluation = replace(judged, gallery=predictions.gallery_size, missing=0)
    if as_json:
        print_json({**evaluation.to_json(), "valid": True, "predictions": predictions.form.count})
    else:
        print_predictions(evaluation, queries.compared_by, count=predictions.form.count)


def _attributes(
    root: ImagesOption,
    table: AttributeOptions,
    methods: MethodOptions,
    composing: ComposingOptions,
    draw: DrawOptions,
    output: OutputOptions,
) -> None:
    """A benchmark from your own table of images and their attributes."""
    _check(methods, composing, draw, output)
    from ..benchmarks import attributes

    part = attributes.load(
        root, table.table, table.id_column, table.change, listed(table.keep), table.template,
        limit=draw.limit, seed=draw.seed or 0, allow_missing=composing.allow_missing,
    )  # fmt: skip
    require_gallery([part], root)
    ready = created(methods, composing, root=root)
    (evaluations,) = measured("attributes", [part], methods=ready, composing=composing, output=output)
    print_figures(evaluations, part.compared_by, as_json=output.as_json)


def _descriptions(
    root: ImagesOption,
    table: CaptionsTable,
    methods: MethodOptions,
    draw: DrawOptions,
    output: OutputOptions,
    allow_missing: AllowMissingOption = False,
) -> None:
    """Whether images' pseudo-words find the images' own captions."""
    registry.check_methods(methods.names)
    draw.check()
    output.check()
    require_images(root)
    require_file(table, "--table")
    from ..evaluation.caption_retrieval import load

    descriptions = load(root, table, limit=draw.limit, seed=draw.seed or 0, allow_missing=allow_missing)

    from ..report import measure_descriptions, write

    pairs = assigned(methods.names, methods.models)
    with progress_bar("describing") as progress:
        study = measure_descriptions(descriptions, pairs, progress)
    if output.report is not None:
        note(f"written: {write(study, output.report)}")
    print_figures(study.evaluations, study.compared_by, as_json=output.as_json)


def _check(methods: MethodOptions, composing: ComposingOptions, draw: DrawOptions, output: OutputOptions) -> None:
    registry.check_methods(methods.names)
    composing.check(methods.names)
    draw.check()
    output.check()


evaluate.command("attributes", rich_help_panel=PANEL)(checked(with_groups(_attributes)))
evaluate.command("descriptions", rich_help_panel=PANEL)(checked(with_groups(_descriptions)))
