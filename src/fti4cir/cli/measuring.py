"""From options to figures: which methods stand on which models, and the evaluations of all of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..methods import registry
from .models import load_models
from .options import ComposingOptions, MethodOptions, OutputOptions
from .terminal import note, progress_bar

if TYPE_CHECKING:
    from ..benchmarks.base import Benchmark
    from ..evaluation.results import Evaluation
    from ..methods.base import Method
    from ..models.model import Model


def assigned(names: Sequence[str], models: Sequence[str]) -> list[tuple[str, Model]]:
    """The methods, each with the loaded model that it stands on."""
    loaded = load_models(models)
    pairs = registry.assign(names, loaded)
    for model in loaded:
        if all(model is not used for _, used in pairs):
            note(f"left out: {model.name}; none of the methods stands on it")
    return pairs


def created(methods: MethodOptions, composing: ComposingOptions, *, root: Path) -> list[tuple[Method, Model]]:
    """The methods, ready to compose queries of a benchmark whose images are under `root`."""
    from ..methods.base import Captions

    captions = Captions(root, composing.captions) if composing.captions is not None else None
    weight = 0.5 if composing.image_weight is None else composing.image_weight
    pairs = assigned(methods.names, methods.models)
    return [(registry.create(name, model, image_weight=weight, captions=captions), model) for name, model in pairs]


def require_gallery(parts: Sequence[Benchmark], root: Path) -> None:
    """InputError if there is nothing to search."""
    for part in parts:
        if not len(part.gallery):
            raise InputError(f"None of the images of {part.name} is under {root}; fti4cir verify says what it needs.")


def require_answers(parts: Sequence[Benchmark], *, has_server: bool) -> None:
    """InputError if nothing can be scored."""
    for part in parts:
        if not part.answers_known:
            hint = "; --submission FILE writes a file for the benchmark's server" if has_server else ""
            raise InputError(
                f"The answers of {part.name}, split {part.split}, are hidden: it cannot be scored here{hint}."
            )


def measured(
    benchmark: str,
    parts: Sequence[Benchmark],
    *,
    methods: Sequence[tuple[Method, Model]],
    composing: ComposingOptions,
    output: OutputOptions,
) -> list[list[Evaluation]]:
    """For each part the evaluations of all methods; where a report is asked for, its pages are written."""
    from ..evaluation.evaluate import evaluate
    from ..report import measure
    from ..report import write as write_report

    cache, allow_missing = composing.cache, composing.allow_missing
    each = []
    for part in parts:
        with progress_bar("encoding") as progress:
            if output.report is None:
                alone = [one for one, _ in methods]
                called = [one.name for _, one in methods]
                encoder = methods[0][1].encoder
                found = evaluate(
                    part, encoder, methods=alone, model=called, progress=progress, cache=cache,
                    allow_unreadable=allow_missing,
                )  # fmt: skip
                each.append(found)
                continue
            study = measure(part, methods, progress=progress, cache=cache, allow_unreadable=allow_missing)
        each.append(list(study.evaluations))
        # Parts have a gallery each, and so a page each.
        folder = output.report if len(parts) == 1 else output.report / part.name.removeprefix(f"{benchmark}-")
        note(f"written: {write_report(study, folder)}")
    return each
