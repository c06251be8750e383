"""What a report tells of: evaluations, what was asked and searched, and how figures depend on the attribute words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..benchmarks.base import Benchmark
from ..errors import InputError
from ..evaluation.caption_retrieval import COMPARED_BY, Descriptions, describe_retrieval
from ..evaluation.evaluate import evaluate
from ..evaluation.results import Evaluation
from ..inversion.network import FineGrainedInversion
from ..methods.base import Method
from ..methods.fti4cir import Inversion
from ..models.model import Model, require_one_encoder
from ..progress import Progress


class Item(NamedTuple):
    """An image, or where there is no path a text."""

    name: str
    """What the benchmark calls the image; or the text."""
    path: Path | None


class Question(NamedTuple):
    """A query as a reader can understand it."""

    picture: Item
    text: str
    """Empty where nothing is asked for but the image."""
    targets: tuple[int, ...]
    """The right answers, positions in the gallery."""
    counted: tuple[int, ...]
    """Those of them that R@k counts."""


@dataclass(frozen=True, eq=False)
class Words:
    """How many attribute words images got, and what they are worth."""

    evaluation: Evaluation
    """Of what made them."""
    counts: NDArray[np.int64]
    """For each image that a query starts from (R,)."""
    most: int
    """M, the most that an image can get."""
    threshold: float | None
    """The relevance that an attribute needs, as in `InversionConfig`."""
    limited: tuple[tuple[int, Evaluation], ...]
    """At most so many words an image, cut when searching; and the evaluation with them."""


@dataclass(frozen=True, eq=False)
class Study:
    """Everything that a report is made of."""

    evaluations: tuple[Evaluation, ...]
    """Of the same queries; the first is what the others are compared with."""
    compared_by: str
    """The metric that matters most."""
    questions: tuple[Question, ...]
    gallery: tuple[Item, ...]
    one_is_enough: bool = False
    """Whether R@k asks for any right answer instead of for their share."""
    words: Words | None = None
    """None where no method makes pseudo-words."""
    latent: tuple[tuple[int, Evaluation], ...] = ()
    """K, by rising K, and the evaluation of one method with a model that was trained with so many latent attributes."""


def study(benchmark: Benchmark, evaluations: Sequence[Evaluation]) -> Study:
    """A study of evaluations that have been made already.

    Raises:
        InputError: if the benchmark's answers are not known here, so that there are no figures.
    """
    if not benchmark.answers_known:
        raise InputError(
            f"The answers of {benchmark.name}, {benchmark.split}, are known to its server only, so there is nothing "
            "to report; leave --report out."
        )
    unreadable = set(evaluations[0].unreadable) if evaluations else set()
    pictures = [
        *(
            Item(name, None if position in unreadable else path)
            for position, (name, path) in enumerate(zip(benchmark.gallery.ids, benchmark.gallery.paths, strict=True))
        ),
        *(Item(name, None) for name in benchmark.gallery.missing),
    ]
    questions = tuple(
        Question(
            pictures[query.reference],
            " / ".join(query.texts),
            query.targets,
            query.targets if query.recall_targets is None else query.recall_targets,
        )
        for query in benchmark.queries
    )
    return Study(tuple(evaluations), benchmark.compared_by, questions, tuple(pictures))


def measure(
    benchmark: Benchmark,
    methods: Sequence[tuple[Method, Model]],
    progress: Progress | None = None,
    cache: Path | None = None,
    allow_unreadable: bool = False,
) -> Study:
    """`evaluation.evaluate.evaluate`, and in the same pass over the images what else a report shows.

    Args:
        benchmark: the gallery and its queries.
        methods: what composes the queries, each with the model that it stands on; the models stand on one encoder.
            Attribute words are those of the first that makes such. Where one method has models with several numbers of
            latent attributes, the report says how the figures depend on these.
        progress: as there.
        cache: as there.
        allow_unreadable: as there.

    Raises:
        InputError: if the benchmark's answers are not known here.
        ModelError: if the models' encoders differ; the others as `evaluate` does.
    """
    study(benchmark, ())  # an error now, not after hours
    models = [model for _, model in methods]
    require_one_encoder(models)
    makers = [place for place, (method, model) in enumerate(methods) if _makes_attributes(method.name, model)]
    maker = models[makers[0]] if makers else None
    limits = _limits(maker.require_inversion().config.max_attributes) if maker else []
    cut = [_cut(maker, most) for most in limits] if maker else []
    with _counted(maker) as counts:
        found = evaluate(
            benchmark,
            models[0].encoder,
            methods=[*(method for method, _ in methods), *(Inversion(model.method, model) for model in cut)],
            model=[model.name for model in (*models, *cut)],
            progress=progress,
            cache=cache,
            allow_unreadable=allow_unreadable,
        )
    evaluations, limited = found[: len(methods)], found[len(methods) :]
    base = study(benchmark, evaluations)
    if maker is None:
        return base

    config = maker.require_inversion().config
    whole = evaluations[makers[0]]
    return replace(
        base,
        words=Words(
            whole,
            _joined(counts),
            config.max_attributes,
            config.threshold,
            (*zip(limits, limited, strict=True), (config.max_attributes, whole)),
        ),
        latent=_by_latent([(models[place], evaluations[place]) for place in makers]),
    )


def measure_descriptions(
    descriptions: Descriptions, methods: Sequence[tuple[str, Model]], progress: Progress | None = None
) -> Study:
    """`caption_retrieval.describe_retrieval`, and what else a report shows; errors as there."""
    makers = [place for place, (name, model) in enumerate(methods) if _makes_attributes(name, model)]
    maker = methods[makers[0]][1] if makers else None
    with _counted(maker) as counts:
        evaluations = describe_retrieval(descriptions, methods, progress=progress)
    words = None
    if maker is not None:
        config = maker.require_inversion().config
        words = Words(evaluations[makers[0]], _joined(counts), config.max_attributes, config.threshold, ())
    return Study(
        tuple(evaluations),
        COMPARED_BY,
        questions=tuple(
            Question(Item(name, path), "", targets, targets)
            for name, path, targets in zip(descriptions.names, descriptions.paths, descriptions.targets, strict=True)
        ),
        gallery=tuple(Item(caption, None) for caption in descriptions.captions),
        one_is_enough=True,
        words=words,
    )


def _makes_attributes(method: str, model: Model) -> bool:
    """Whether a method, on this model, makes attribute words."""
    network = model.inversion
    return method == model.method and network is not None and network.config.max_attributes > 0


def _by_latent(trained: Sequence[tuple[Model, Evaluation]]) -> tuple[tuple[int, Evaluation], ...]:
    """`Study.latent`, of the first method whose models differ in their number of latent attributes."""
    for method in dict.fromkeys(evaluation.method for _, evaluation in trained):
        own = [
            (model.require_inversion().config.num_latent, evaluation)
            for model, evaluation in trained
            if evaluation.method == method
        ]
        if len({count for count, _ in own}) > 1:
            return tuple(sorted(own, key=lambda pair: pair[0]))
    return ()


def _limits(most: int) -> list[int]:
    """0, 1, 2, 4, ... below M, which itself is what the model does anyhow."""
    return [limit for limit in (0, *(2**power for power in range(most.bit_length()))) if limit < most]


def _cut(model: Model, most: int) -> Model:
    """The same model, its weights shared, with at most `most` attribute words an image."""
    network = model.require_inversion()
    with torch.device("meta"):  # weights that are replaced at once need not be drawn
        limited = FineGrainedInversion(replace(network.config, max_attributes=most))
    limited.subject = network.subject
    if most:
        limited.latent, limited.attribute = network.latent, network.attribute
    return Model(model.encoder, limited, model.name, method=model.method, extra=model.extra)


@contextmanager
def _counted(model: Model | None) -> Iterator[list[Tensor]]:
    """Collects how many attribute words each image gets that passes the model's network meanwhile."""
    counts: list[Tensor] = []
    if model is None:
        yield counts
        return
    handle = model.require_inversion().register_forward_hook(
        lambda network, features, words: counts.append(words.counts.cpu())
    )
    try:
        yield counts
    finally:
        handle.remove()


def _joined(counts: list[Tensor]) -> NDArray[np.int64]:
    """Batches (B,) in one (R,)."""
    return torch.cat([torch.zeros(0, dtype=torch.long), *counts]).numpy()
