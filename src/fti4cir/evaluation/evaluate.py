"""One loop for every benchmark and every method.

Each image of the gallery is read and encoded once. Queries are composed while the batch that holds their
reference is at hand: local features are by far the largest thing here (hundreds of times the global one), and so
they never outlive their batch. What stays is one global feature an image and one composed feature a query. Scores
exist for a block of queries at a time, so that a gallery of a hundred thousand images needs no more memory than that.

Copies of a file tie exactly, and then the first of them in the gallery ranks first (`metrics.rank`). How a feature is
rounded depends on the batch that its image was in and on the processor, so copies share the feature of the first.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder, VisionFeatures, image_fingerprint
from ..benchmarks.base import Benchmark
from ..errors import ImageError, ModelError
from ..features.cache import FileSource, compute
from ..images.decode import content_digest, decode_image, read_file
from ..methods.base import Method
from ..methods.untrained import Captioned
from ..progress import Progress
from .metrics import (
    Difference,
    average_precision_at,
    bootstrap_interval,
    first_equal,
    paired_bootstrap,
    rank,
    recall_at,
    similarities,
)

_BATCH = 32  # images through the image tower at a time
_NORMALISED = 2**13  # cached features normalised at a time
_SHOWN = 10  # ranks that a report can count on
_WORTH_SHOWING = 0.5  # of what a perfect ranking would reach
_SCORES = 2**23  # scores held at a time while ranking: 32 MiB of float32, and a few times that to rank them

Say = Callable[[str], object]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What one method reached on one benchmark. All figures are fractions."""

    benchmark: str
    split: str
    protocol: str
    method: str
    model: str | None
    """None where predictions were scored that came from a file."""
    gallery: int
    missing: int
    """How many of the benchmark's images were not there; unless 0, the figures are not comparable."""
    per_query: Mapping[str, NDArray[np.float64]] = field(repr=False)
    """Each metric, `mAP@10` say, for each query (Q,), in the benchmark's order; empty where answers are hidden."""
    references: NDArray[np.int64] = field(repr=False)
    """Each query's reference (Q,), a position in the gallery: queries that share one are not independent."""
    values: tuple[tuple[str, ...], ...] = field(repr=False)
    """What each query counts under in the breakdown; empty for no breakdown."""
    ranking: NDArray[np.int64] = field(repr=False)
    """The gallery positions that each query found (Q, depth), best first and without those it excludes, -1 where
    there are no more; as deep as the deepest cut and at least 10, but no deeper than the gallery."""
    subset_ranking: NDArray[np.int64] | None = field(default=None, repr=False)
    """The same within each query's few images, as deep as the deepest subset cut; None where there are no such."""
    unreadable: tuple[int, ...] = field(default=(), repr=False)
    """The gallery positions of images that could not be read, which are counted as missing."""
    ceilings: Mapping[str, float] = field(default_factory=dict, repr=False)
    """What each metric would be if every ranking were perfect; 1 for a metric that is not there."""

    @property
    def queries(self) -> int:
        """How many queries there were."""
        return len(self.references)

    def metrics(self) -> dict[str, float]:
        """Each metric's mean over the queries."""
        return {name: float(figures.mean()) for name, figures in self.per_query.items()}

    @property
    def shown(self) -> list[str]:
        """The metrics that are worth showing to people: those of which a perfect ranking would reach a half.

        Where a query has hundreds of right answers, the share of them that is found first says nothing.
        """
        return [name for name in self.per_query if self.ceilings.get(name, 1.0) >= _WORTH_SHOWING]

    def intervals(self) -> dict[str, tuple[float, float]]:
        """Each metric's 95 % bootstrap interval; all queries of one reference are drawn together."""
        if not self.per_query:
            return {}
        low, high = bootstrap_interval(np.stack(list(self.per_query.values()), axis=1), self.references)
        return {name: (float(low[i]), float(high[i])) for i, name in enumerate(self.per_query)}

    def by_value(self) -> dict[str, dict[str, float]]:
        """For each value, in the order of the alphabet, the number of its queries and each metric's mean.

        A query may carry several values, and counts under each.
        """
        carrying: dict[str, list[int]] = {}
        for number, values in enumerate(self.values):
            for value in values:
                carrying.setdefault(value, []).append(number)
        return {
            value: {
                "queries": len(numbers),
                **{name: float(figures[numbers].mean()) for name, figures in self.per_query.items()},
            }
            for value, numbers in sorted(carrying.items())
        }

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
            "ceilings": {name: self.ceilings.get(name, 1.0) for name in self.per_query},
            "by_value": self.by_value(),
        }


def evaluate(
    benchmark: Benchmark,
    encoder: DualEncoder,
    methods: Sequence[Method],
    model: str | Sequence[str],
    progress: Progress | None = None,
    cache: Path | None = None,
    say: Say | None = None,
    allow_unreadable: bool = False,
) -> list[Evaluation]:
    """Score methods on a benchmark, all of them in one pass over the images.

    Args:
        benchmark: the gallery, its queries and the cuts.
        encoder: what encodes the gallery; the methods' models must stand on the same one.
        methods: what composes the queries.
        model: what the result calls the model; where methods have models of their own, one name a method.
        progress: told after each batch of images.
        cache: a folder to keep the gallery's features in, for the next evaluation on the same images by the same
            encoder, or for this one should it be interrupted. Then `progress` is of the queries' references only.
        say: told now and then how far a cache has got, and of each image that cannot be read.
        allow_unreadable: count an image that cannot be read as missing, instead of stopping at it.

    Returns:
        One evaluation a method, in the order of the methods.

    Raises:
        InputError: if an image that a query starts from has no caption, and a method needs one.
        ImageError: if an image of the gallery cannot be read, unless `allow_unreadable`; none is dropped silently.
        ModelError: if a feature is not a finite number.
        CacheError: if the cache cannot be written or is damaged.
    """
    models = [model] * len(methods) if isinstance(model, str) else model
    for method in methods:
        if isinstance(method, Captioned):  # now, not after the first thousand images
            method.require(_references(benchmark))
    queries = _Queries(benchmark, methods, encoder.joint_width)
    tell, note = progress or (lambda done, total: None), say or (lambda message: None)
    lost: set[int] = set()

    def lose(position: int, reason: str) -> None:
        if not allow_unreadable:
            raise ImageError(f"{reason} Replace the file, or count it as missing with --allow-missing.")
        note(f"counted as missing: {reason}")
        lost.add(position)

    if cache is None:
        gallery = _encode(benchmark, encoder, queries, tell, lose)
    else:
        gallery = _encode_into(cache, benchmark, encoder, queries, tell, lose, note)
    first = first_equal(gallery)
    evaluations = []
    for method, name, features in zip(methods, models, queries.composed, strict=True):
        if not np.isfinite(features).all():
            raise ModelError(f"The method {method.name!r} on the model {name} gives features that are not finite.")
        ranking, subset_ranking = rank_gallery(benchmark, features, gallery, lost, first)
        judged = judge(benchmark, ranking, subset_ranking, method.name, name)
        evaluations.append(_without(judged, tuple(sorted(lost))) if lost else judged)
    return evaluations


def _references(benchmark: Benchmark) -> list[Path]:
    """The files of the images that queries start from, as far as they are here."""
    gallery = benchmark.gallery
    positions = dict.fromkeys(query.reference for query in benchmark.queries)
    return [gallery.paths[position] for position in positions if position < len(gallery)]


def _without(evaluation: Evaluation, unreadable: tuple[int, ...]) -> Evaluation:
    """The same, which says that these images of the gallery were not there."""
    count = len(unreadable)
    return replace(
        evaluation,
        protocol=f"{evaluation.protocol}, {count} that could not be read counted as missing",
        gallery=evaluation.gallery - count,
        missing=evaluation.missing + count,
        unreadable=unreadable,
    )


def share_first(features: NDArray[np.float32], contents: Sequence[Hashable | None]) -> None:
    """Give what has the same content the same feature, that of the first, in place.

    Args:
        features: (N, D).
        contents: what stands for each row's content (N,), the digest of a file, say; None for nothing known.
    """
    seen: dict[Hashable, int] = {}
    for position, content in enumerate(contents):
        if content is not None and (first := seen.setdefault(content, position)) != position:
            features[position] = features[first]


def judge(
    benchmark: Benchmark,
    ranking: NDArray[np.int64] | None,
    subset_ranking: NDArray[np.int64] | None,
    method: str,
    model: str | None,
) -> Evaluation:
    """Score rankings of a benchmark's gallery, wherever they come from.

    Args:
        benchmark: the queries and the cuts.
        ranking: (Q, depth) as in `Evaluation`; without it, there are only the figures within the subsets.
        subset_ranking: (Q, depth) likewise; without it, there are none of these.
        method: what the result calls the method.
        model: what the result calls the model; None where there was none.

    Raises:
        ValueError: if a ranking is not as deep as the deepest cut.
    """
    return Evaluation(
        benchmark=benchmark.name,
        split=benchmark.split,
        protocol=benchmark.protocol,
        method=method,
        model=model,
        gallery=len(benchmark.gallery),
        missing=benchmark.gallery.absent,
        per_query=_score(benchmark, ranking, subset_ranking) if benchmark.answers_known else {},
        references=np.array([query.reference for query in benchmark.queries], dtype=np.int64),
        values=benchmark.values,
        ranking=np.empty((len(benchmark.queries), 0), dtype=np.int64) if ranking is None else ranking,
        subset_ranking=subset_ranking,
        ceilings=_ceilings(benchmark) if benchmark.answers_known else {},
    )


def _ceilings(benchmark: Benchmark) -> dict[str, float]:
    """`Evaluation.ceilings`: recall is bounded by how many right answers a query has, precision is not."""
    counts = np.array([len(query.recall_targets or query.targets) for query in benchmark.queries])
    return {
        **{f"mAP@{k}": 1.0 for k in benchmark.precision_cuts},
        **{
            f"{prefix}@{k}": float((np.minimum(counts, k) / counts).mean())
            for prefix, cuts in (("R", benchmark.recall_cuts), ("Rs", benchmark.subset_cuts))
            for k in cuts
        },
    }


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


class Named(Protocol):
    """What the name of an evaluation is made of."""

    @property
    def method(self) -> str:
        """The method's name."""
        ...

    @property
    def model(self) -> str | None:
        """The model's name; None where there was none."""
        ...


def labels(evaluations: Sequence[Named]) -> list[str]:
    """What to call each of several evaluations, for people: its method, `sum`.

    Where a method occurs more than once its model is added, `fti4cir (k12)`: by the last part of its path, or as many
    as tell it from the other models.
    """
    methods = [one.method for one in evaluations]
    short = _short_names([one.model for one in evaluations if one.model is not None])
    return [
        f"{one.method} ({short[one.model]})" if one.model is not None and methods.count(one.method) > 1 else one.method
        for one in evaluations
    ]


def _short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path by its last parts, as few as tell all of them apart."""
    parts = {path: PurePath(path).parts for path in paths}
    count = 1
    while count < max(map(len, parts.values()), default=1) and len({own[-count:] for own in parts.values()}) < len(
        parts
    ):
        count += 1
    return {path: str(PurePath(*own[-count:])) for path, own in parts.items()}


class _Queries:
    """Composes the queries, some references at a time, with each of the methods."""

    def __init__(self, benchmark: Benchmark, methods: Sequence[Method], width: int) -> None:
        self._benchmark, self._methods = benchmark, methods
        self._asked: dict[int, list[int]] = {}  # the queries that start from each image
        for number, query in enumerate(benchmark.queries):
            self._asked.setdefault(query.reference, []).append(number)
        # Zeros, for nothing is composed from a reference that is missing.
        self.composed = [np.zeros((len(benchmark.queries), width), dtype=np.float32) for _ in methods]
        """(Q, D) a method, of unit length."""

    @property
    def references(self) -> list[int]:
        """The images that queries start from and that are here, in the gallery's order."""
        return sorted(position for position in self._asked if position < len(self._benchmark.gallery))

    def compose(self, positions: Sequence[int], features: VisionFeatures) -> None:
        """Compose all queries that start from these images of the gallery, whose features these are."""
        # Only images that a query starts from, each once: what a method makes of one serves all its queries.
        rows = [row for row, position in enumerate(positions) if position in self._asked]
        if not rows:
            return
        chosen = VisionFeatures(features.image[rows], features.local[rows])
        pictures = [self._benchmark.gallery.paths[positions[row]] for row in rows]
        numbers: list[int] = []
        texts, owner, asking = [], [], []
        for place, row in enumerate(rows):
            for number in self._asked[positions[row]]:
                for text in self._benchmark.queries[number].texts:
                    texts.append(text)
                    owner.append(place)  # the image among those chosen
                    asking.append(len(numbers))  # the query among those composed here
                numbers.append(number)
        for method, target in zip(self._methods, self.composed, strict=True):
            each = method.compose(chosen, texts, owner, pictures)  # (all texts, D)
            total = each.new_zeros(len(numbers), each.shape[1])
            total.index_add_(0, torch.tensor(asking, device=each.device), each)
            # Of unit length, so the sum over a query's texts will do for the mean.
            target[numbers] = F.normalize(total, dim=-1).cpu().numpy()


_Lose = Callable[[int, str], None]
"""Called with the position of an image that cannot be read, and the reason."""


@torch.inference_mode()
def _encode(
    benchmark: Benchmark, encoder: DualEncoder, queries: _Queries, progress: Progress, lose: _Lose
) -> NDArray[np.float32]:
    """Unit-length features of the gallery (N, D), zero for an image that is lost; queries are composed on the way."""
    paths = benchmark.gallery.paths
    gallery = np.zeros((len(paths), encoder.joint_width), dtype=np.float32)
    digests: list[str | None] = [None] * len(paths)
    for positions, pixels, contents in _pixels(paths, range(len(paths)), encoder, progress, lose):
        features = encoder.encode_pixels(pixels)
        gallery[positions] = F.normalize(features.image, dim=-1).cpu().numpy()
        for position, digest in zip(positions, contents, strict=True):
            digests[position] = digest
        queries.compose(positions, features)
    share_first(gallery, digests)
    return gallery


@torch.inference_mode()
def _encode_into(
    cache: Path,
    benchmark: Benchmark,
    encoder: DualEncoder,
    queries: _Queries,
    progress: Progress,
    lose: _Lose,
    say: Say,
) -> NDArray[np.float32]:
    """The same with the gallery's features kept on disk: only what is not there is encoded, and the references."""
    paths = benchmark.gallery.paths
    source = FileSource(tuple(str(path.absolute()) for path in paths))
    # A folder for each gallery and encoder, so that one DIR serves all benchmarks and models.
    key = hashlib.sha256("\0".join([image_fingerprint(encoder), *source.names]).encode()).hexdigest()[:16]
    kept = compute(cache / key, encoder, source, local=False)
    for position, reason in kept.unreadable.items():
        lose(position, reason)
    gallery = np.empty((len(paths), encoder.joint_width), dtype=np.float32)
    for block in _blocks(range(len(paths)), _NORMALISED):
        gallery[block] = F.normalize(torch.from_numpy(np.array(kept.image[block])), dim=-1).numpy()
    share_first(gallery, kept.digests)
    # Composing takes local features, which are too large to be kept for a gallery.
    references = [position for position in queries.references if position not in kept.unreadable]
    for positions, pixels, _ in _pixels(paths, references, encoder, progress, lose):
        queries.compose(positions, encoder.encode_pixels(pixels))
    return gallery


def _pixels(
    paths: Sequence[Path], positions: Sequence[int], encoder: DualEncoder, progress: Progress, lose: _Lose
) -> Iterator[tuple[list[int], Tensor, list[str]]]:
    """Batches of images at these positions, in order: where they stand (B,), (B, 3, S, S), their files' digests.

    A batch has at most 32. They are read by threads, at most one batch ahead of the encoder.
    """

    def read(position: int) -> tuple[Tensor, str] | ImageError:
        try:
            content = read_file(paths[position])
            picture = decode_image(content, paths[position]).image
        except ImageError as error:
            return error
        return encoder.preprocess(picture), content_digest(content)

    remaining, done = iter(positions), 0
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
        ahead = deque((position, pool.submit(read, position)) for position in islice(remaining, 2 * _BATCH))
        while ahead:
            batch = [ahead.popleft() for _ in range(min(_BATCH, len(ahead)))]
            found = [(position, future.result()) for position, future in batch]
            ahead.extend((position, pool.submit(read, position)) for position in islice(remaining, _BATCH))
            for position, error in found:
                if isinstance(error, ImageError):
                    lose(position, str(error))
            readable = [(position, *read) for position, read in found if not isinstance(read, ImageError)]
            if readable:
                numbers, pictures, digests = zip(*readable, strict=True)
                yield list(numbers), torch.stack(pictures), list(digests)
            done += len(batch)
            progress(done, len(positions))


def rank_gallery(
    benchmark: Benchmark,
    composed: NDArray[np.float32],
    gallery: NDArray[np.float32],
    lost: Collection[int] = (),
    first: NDArray[np.int64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.int64] | None]:
    """Rank the gallery for each query, and within its few images where the benchmark has such.

    Images with equal features tie, and rank in gallery order.

    Args:
        benchmark: what each query excludes, and the cuts that say how deep to rank.
        composed: (Q, D) unit-length features of the queries.
        gallery: (N, D) unit-length features of the images that are here; may be memory-mapped.
        lost: the positions of those that are treated as missing, for they could not be read.
        first: `metrics.first_equal` of the gallery, where it is known already.

    Returns:
        `ranking` and `subset_ranking` as in `Evaluation`. A query whose reference is missing finds nothing.
    """
    count, places = len(gallery), benchmark.gallery.places
    first = first_equal(gallery) if first is None else first
    # Missing images take no rank, but a gallery that lacks some is asked for as many ranks as one that is whole.
    ranking = np.full((len(composed), min(_depth(benchmark), places)), -1)
    subset_ranking = np.full((len(composed), max(benchmark.subset_cuts)), -1) if benchmark.subset_cuts else None
    for block in _blocks(range(len(composed)), max(1, _SCORES // max(1, count))):
        block = [
            number
            for number in block
            if (reference := benchmark.queries[number].reference) < count and reference not in lost
        ]
        queries = [benchmark.queries[number] for number in block]
        scores = similarities(composed[block], gallery, first)  # (B, N)
        excluded = _mask([query.exclude for query in queries], places)[:, :count]
        excluded[:, list(lost)] = True
        found = rank(scores, ranking.shape[1], excluded)
        ranking[block, : found.shape[1]] = found
        if subset_ranking is not None:
            inside = _mask([query.within or () for query in queries], places)[:, :count]
            inside[:, list(lost)] = False
            found = rank(scores, subset_ranking.shape[1], ~inside)
            subset_ranking[block, : found.shape[1]] = found
    return ranking, subset_ranking


def _depth(benchmark: Benchmark) -> int:
    """How deep to rank: as deep as the deepest cut, and deep enough for a report."""
    return max(_SHOWN, *benchmark.precision_cuts, *benchmark.recall_cuts)


def _score(
    benchmark: Benchmark, ranking: NDArray[np.int64] | None, subset_ranking: NDArray[np.int64] | None
) -> dict[str, NDArray[np.float64]]:
    """Each metric for each query (Q,), from rankings (Q, depth)."""
    parts: dict[str, list[NDArray[np.float64]]] = {}
    places = benchmark.gallery.places
    for block in _blocks(range(len(benchmark.queries)), max(1, _SCORES // places)):
        queries = [benchmark.queries[number] for number in block]
        relevant = _mask([query.targets for query in queries], places)
        counted = _mask([query.recall_targets or query.targets for query in queries], places)
        if ranking is not None:
            for k in benchmark.precision_cuts:
                parts.setdefault(f"mAP@{k}", []).append(average_precision_at(ranking[block], relevant, k))
            for k in benchmark.recall_cuts:
                parts.setdefault(f"R@{k}", []).append(recall_at(ranking[block], counted, k))
        if subset_ranking is not None:
            for k in benchmark.subset_cuts:
                parts.setdefault(f"Rs@{k}", []).append(recall_at(subset_ranking[block], counted, k))
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
