"""One loop for every benchmark and every method.

Each picture of the gallery is read and encoded once. Queries are composed while the batch that holds their
reference is at hand: local features are by far the largest thing here (hundreds of times the global one), and so
they never outlive their batch. What stays is one global feature a picture and one composed feature a query.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .backbones.base import DualEncoder, VisionFeatures
from .baselines.base import Method
from .datasets.base import Benchmark, Query
from .errors import ModelError
from .metrics import Difference, average_precision_at, bootstrap_interval, paired_bootstrap, rank, recall_at
from .pictures import open_picture

_BATCH = 32  # pictures through the image tower at a time
_SCORES = 2**21  # scores held at a time while ranking: 8 MiB of float32, and a few times that to sort them

Progress = Callable[[int, int], object]
"""Called with the number of pictures done and the number in all."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one method reached on one benchmark. All figures are fractions."""

    benchmark: str
    split: str
    protocol: str
    method: str
    model: str
    gallery: int
    missing: int
    """How many of the benchmark's pictures were not there; unless 0, the figures are not comparable."""
    per_query: Mapping[str, NDArray[np.float64]] = field(repr=False)
    """Each metric, `mAP@10` say, for each query (Q,), in the benchmark's order."""
    references: NDArray[np.int64] = field(repr=False)
    """Each query's reference (Q,), a position in the gallery: queries that share one are not independent."""
    values: tuple[str, ...] = field(repr=False)
    """What the breakdown goes by, for each query; empty for no breakdown."""

    @property
    def queries(self) -> int:
        """How many queries there were."""
        return len(self.references)

    def metrics(self) -> dict[str, float]:
        """Each metric's mean over the queries."""
        return {name: float(figures.mean()) for name, figures in self.per_query.items()}

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Each metric's 95 % bootstrap interval; all queries of one reference are drawn together."""
        low, high = bootstrap_interval(np.stack(list(self.per_query.values()), axis=1), self.references)
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(self.per_query)}

    def by_value(self) -> dict[str, dict[str, float]]:
        """For each value, in the order of the alphabet, the number of its queries and each metric's mean."""
        table = {}
        values = np.array(self.values)
        for value in sorted(set(self.values)):
            chosen = values == value
            means = {name: float(figures[chosen].mean()) for name, figures in self.per_query.items()}
            table[value] = {"queries": int(chosen.sum()), **means}
        return table

    def to_json(self) -> dict[str, Any]:
        """What `fti4cir evaluate --json` prints, ready for `json.dumps`."""
        return {
            "benchmark": self.benchmark,
            "split": self.split,
            "protocol": self.protocol,
            "method": self.method,
            "model": self.model,
            "queries": self.queries,
            "gallery": self.gallery,
            "missing": self.missing,
            "metrics": self.metrics(),
            "intervals": {name: list(ends) for name, ends in self.intervals().items()},
            "by_value": self.by_value(),
        }


def evaluate(
    benchmark: Benchmark,
    encoder: DualEncoder,
    methods: Sequence[Method],
    model: str,
    progress: Progress | None = None,
) -> list[Evaluation]:
    """Score methods on a benchmark, all of them in one pass over the pictures.

    Args:
        benchmark: the gallery, its queries and the cuts.
        encoder: what encodes the gallery; the methods' model must stand on the same one.
        methods: what composes the queries.
        model: what the result calls the model.
        progress: told after each batch of pictures.

    Returns:
        One evaluation a method, in the order of the methods.

    Raises:
        PictureError: if a picture of the gallery cannot be read; none is dropped silently.
        ModelError: if a feature is not a finite number.
    """
    gallery, composed = _encode(benchmark, encoder, methods, progress)
    evaluations = []
    for method, features in zip(methods, composed, strict=True):
        if not np.isfinite(features).all():
            raise ModelError(f"The method {method.name!r} on the model {model} gives features that are not finite.")
        evaluations.append(
            Evaluation(
                benchmark=benchmark.name,
                split=benchmark.split,
                protocol=benchmark.protocol,
                method=method.name,
                model=model,
                gallery=len(benchmark.gallery),
                missing=len(benchmark.gallery.missing),
                per_query=_score(benchmark, features, gallery),
                references=np.array([query.reference for query in benchmark.queries]),
                values=benchmark.values,
            )
        )
    return evaluations


def compare(first: Evaluation, second: Evaluation, metric: str) -> Difference:
    """How much better `first` is than `second` in a metric, paired by query.

    As in `Evaluation.intervals`, all queries of one reference are drawn together.

    Raises:
        ValueError: if the two do not score the same queries.
    """
    same_source = (first.benchmark, first.split, first.protocol) == (second.benchmark, second.split, second.protocol)
    if not same_source or not np.array_equal(first.references, second.references):
        raise ValueError("only evaluations of the same queries can be compared")
    return paired_bootstrap(first.per_query[metric], second.per_query[metric], first.references)


@torch.inference_mode()
def _encode(
    benchmark: Benchmark, encoder: DualEncoder, methods: Sequence[Method], progress: Progress | None
) -> tuple[NDArray[np.float32], list[NDArray[np.float32]]]:
    """Unit-length features of the gallery (N, D), and of the queries, (Q, D) a method."""
    paths = benchmark.gallery.paths
    asked: list[list[int]] = [[] for _ in paths]  # the queries that start from each picture
    for number, query in enumerate(benchmark.queries):
        asked[query.reference].append(number)

    gallery = np.empty((len(paths), encoder.joint_width), dtype=np.float32)
    composed = [np.empty((len(benchmark.queries), encoder.joint_width), dtype=np.float32) for _ in methods]
    start = 0
    for pixels in _pixels(paths, encoder):
        features = encoder.encode_pixels(pixels)
        end = start + len(pixels)
        gallery[start:end] = F.normalize(features.image, dim=-1).cpu().numpy()
        numbers = [number for position in range(start, end) for number in asked[position]]
        if numbers:
            queries = [benchmark.queries[number] for number in numbers]
            for method, target in zip(methods, composed, strict=True):
                target[numbers] = _compose(method, features, queries, start).cpu().numpy()
        start = end
        if progress is not None:
            progress(end, len(paths))
    return gallery, composed


def _compose(method: Method, features: VisionFeatures, queries: Sequence[Query], start: int) -> Tensor:
    """Queries whose references are in a batch that begins at gallery position `start`, to (len(queries), D)."""
    # Only pictures that a query starts from, each once: what a method makes of a picture serves all its queries.
    references = {position: row for row, position in enumerate(dict.fromkeys(query.reference for query in queries))}
    rows = [position - start for position in references]
    texts = [text for query in queries for text in query.texts]
    owner = [references[query.reference] for query in queries for _ in query.texts]
    each = method.compose(VisionFeatures(features.image[rows], features.local[rows]), texts, owner)  # (all texts, D)
    total = each.new_zeros(len(queries), each.shape[1])
    asking = [number for number, query in enumerate(queries) for _ in query.texts]
    total.index_add_(0, torch.tensor(asking, device=each.device), each)
    return F.normalize(total, dim=-1)  # of unit length, so the sum over a query's texts will do for the mean


def _pixels(paths: Sequence[Path], encoder: DualEncoder) -> Iterator[Tensor]:
    """Batches (at most 32, 3, S, S) in order, read by threads at most one batch ahead of the encoder."""

    def read(path: Path) -> Tensor:
        return encoder.preprocess(open_picture(path, at_least=encoder.input_size))

    remaining = iter(paths)
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        ahead: deque[Future[Tensor]] = deque(pool.submit(read, path) for path in islice(remaining, 2 * _BATCH))
        while ahead:
            batch = [ahead.popleft().result() for _ in range(min(_BATCH, len(ahead)))]
            ahead.extend(pool.submit(read, path) for path in islice(remaining, _BATCH))
            yield torch.stack(batch)


def _score(
    benchmark: Benchmark, composed: NDArray[np.float32], gallery: NDArray[np.float32]
) -> dict[str, NDArray[np.float64]]:
    """Each metric for each query (Q,), from unit-length features (Q, D) and (N, D)."""
    depth = max(*benchmark.precision_cuts, *benchmark.recall_cuts)
    parts: dict[str, list[NDArray[np.float64]]] = {}
    numbers = range(len(benchmark.queries))
    for block in _blocks(numbers, max(1, _SCORES // len(gallery))):
        queries = [benchmark.queries[number] for number in block]
        scores = composed[block] @ gallery.T  # (B, N)
        relevant = _mask([query.targets for query in queries], len(gallery))
        ranking = rank(scores, depth, _mask([query.exclude for query in queries], len(gallery)))
        for k in benchmark.precision_cuts:
            parts.setdefault(f"mAP@{k}", []).append(average_precision_at(ranking, relevant, k))
        for k in benchmark.recall_cuts:
            parts.setdefault(f"R@{k}", []).append(recall_at(ranking, relevant, k))
        if benchmark.subset_cuts:
            inside = _mask([query.within or () for query in queries], len(gallery))
            ranking = rank(scores, max(benchmark.subset_cuts), ~inside)
            for k in benchmark.subset_cuts:
                parts.setdefault(f"Rs@{k}", []).append(recall_at(ranking, relevant, k))
    return {name: np.concatenate(figures) for name, figures in parts.items()}


def _mask(members: Sequence[Sequence[int]], width: int) -> NDArray[np.bool_]:
    """For each row, true at the columns that it lists: (len(members), width)."""
    mask = np.zeros((len(members), width), dtype=bool)
    rows = np.repeat(np.arange(len(members)), [len(columns) for columns in members])
    mask[rows, np.fromiter((column for columns in members for column in columns), dtype=np.int64)] = True
    return mask


def _blocks(numbers: Sequence[int], size: int) -> Iterator[list[int]]:
    """Consecutive parts of a sequence, of at most `size`."""
    for start in range(0, len(numbers), size):
        yield list(numbers[start : start + size])
