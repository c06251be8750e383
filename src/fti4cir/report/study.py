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

from ..baselines.base import Method
from ..baselines.inversion import Inversion
from ..datasets.base import Benchmark
from ..description import COMPARED_BY, Descriptions, describe_retrieval
from ..errors import InputError, ModelError
from ..evaluation import Evaluation, Progress, evaluate
from ..features import Say
from ..inversion.network import FineGrainedInversion
from ..model import Model


class Item(NamedTuple):
    """A picture, or where there is no path a text."""

    name: str
    """What the benchmark calls the picture; or the text."""
    path: Path | None


class Question(NamedTuple):
    """A query as a reader can understand it."""

    picture: Item
    text: str
    """Empty where nothing is asked for but the picture."""
    targets: tuple[int, ...]
    """The right answers, positions in the gallery."""
    counted: tuple[int, ...]
    """Those of them that R@k counts."""


@dataclass(frozen=True, eq=False)
class Words:
    """How many attribute words pictures got, and what they are worth."""

    method: str
    """What made them."""
    counts: NDArray[np.int64]
    """For each picture that a query starts from (R,)."""
    most: int
    """M, the most that a picture can get."""
    threshold: float | None
    """The relevance that an attribute needs, as in `InversionConfig`."""
    limited: tuple[tuple[int, Evaluation], ...]
    """At most so many words a picture, cut when searching; and the evaluation with them."""


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
    """K, and the evaluation of fti4cir with a model that was trained with so many latent attributes."""


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
    pictures = [
        *map(Item, benchmark.gallery.ids, benchmark.gallery.paths),
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
    model: Model,
    methods: Sequence[Method],
    others: Sequence[Model] = (),
    progress: Progress | None = None,
    cache: Path | None = None,
    say: Say | None = None,
) -> Study:
    """`evaluation.evaluate`, and in the same pass over the pictures what else a report shows.

    Args:
        benchmark: the gallery and its queries.
        model: what the methods stand on.
        methods: what composes the queries.
        others: models of the same encoder and method, trained with other numbers of latent attributes.
        progress: as there.
        cache: as there.
        say: as there.

    Raises:
        InputError: if the benchmark's answers are not known here.
        ModelError: if another model's encoder is a different one; the others as `evaluate` does.
        ValueError: if there are other models, but no method that makes attribute words.
    """
    base = study(benchmark, ())  # now, not after hours
    for other in others:
        if other.fingerprint != model.fingerprint:
            raise ModelError(f"{other.name} and {model.name} cannot be compared in one pass: their encoders differ.")
    network = _with_attributes(model) if any(isinstance(method, Inversion) for method in methods) else None
    if others and network is None:
        raise ValueError("other models can be compared with a method that makes attribute words, and there is none")
    limits = [] if network is None else _limits(network.config.max_attributes)
    cut = [_cut(model, most) for most in limits]
    extra = [Inversion(each.method, each) for each in (*cut, *others)]
    with _counted(network) as counts:
        found = evaluate(benchmark, model.encoder, [*methods, *extra], model.name, progress, cache, say)
    evaluations, limited, trained = _split(found, len(methods), len(cut))
    if network is None:
        return replace(base, evaluations=evaluations)

    config = network.config
    whole = next(one for one, method in zip(evaluations, methods, strict=True) if isinstance(method, Inversion))
    pairs = [(other.require_inversion().config.num_latent, one) for other, one in zip(others, trained, strict=True)]
    return replace(
        base,
        evaluations=evaluations,
        words=Words(
            whole.method,
            _joined(counts),
            config.max_attributes,
            config.threshold,
            (*zip(limits, limited, strict=True), (config.max_attributes, whole)),
        ),
        latent=tuple(sorted([(config.num_latent, whole), *pairs], key=lambda pair: pair[0])) if pairs else (),
    )


def measure_descriptions(
    descriptions: Descriptions, model: Model, methods: Sequence[str], progress: Progress | None = None
) -> Study:
    """`description.describe_retrieval`, and what else a report shows; errors as there."""
    network = _with_attributes(model) if model.method in methods else None
    with _counted(network) as counts:
        evaluations = describe_retrieval(model, descriptions, methods, progress)
    words = None
    if network is not None:
        words = Words(model.method, _joined(counts), network.config.max_attributes, network.config.threshold, ())
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


def _with_attributes(model: Model) -> FineGrainedInversion | None:
    """The model's network, if it makes attribute words."""
    return model.inversion if model.inversion is not None and model.inversion.config.max_attributes else None


def _limits(most: int) -> list[int]:
    """0, 1, 2, 4, ... below M, which itself is what the model does anyhow."""
    return [limit for limit in (0, *(2**power for power in range(most.bit_length()))) if limit < most]


def _cut(model: Model, most: int) -> Model:
    """The same model, its weights shared, with at most `most` attribute words a picture."""
    network = model.require_inversion()
    with torch.device("meta"):  # weights that are replaced at once need not be drawn
        limited = FineGrainedInversion(replace(network.config, max_attributes=most))
    limited.subject = network.subject
    if most:
        limited.latent, limited.attribute = network.latent, network.attribute
    return Model(model.encoder, limited, model.name, model.method, model.extra)


def _split(
    found: Sequence[Evaluation], first: int, second: int
) -> tuple[tuple[Evaluation, ...], tuple[Evaluation, ...], tuple[Evaluation, ...]]:
    """The first so many, the next so many, and the rest."""
    return tuple(found[:first]), tuple(found[first : first + second]), tuple(found[first + second :])


@contextmanager
def _counted(network: FineGrainedInversion | None) -> Iterator[list[Tensor]]:
    """Collects how many attribute words each picture gets that passes the network meanwhile."""
    counts: list[Tensor] = []
    if network is None:
        yield counts
        return
    handle = network.register_forward_hook(lambda network, features, words: counts.append(words.counts.cpu()))
    try:
        yield counts
    finally:
        handle.remove()


def _joined(counts: list[Tensor]) -> NDArray[np.int64]:
    """Batches (B,) in one (R,)."""
    return torch.cat([torch.zeros(0, dtype=torch.long), *counts]).numpy()
