"""Composing the queries of a benchmark while the batch that holds their reference images is at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from ..backbones.base import VisionFeatures
from ..benchmarks.base import Benchmark
from ..methods.base import Method
from ..models.queries import Queries


class QueryComposer:
    """Composes a benchmark's queries, some reference images at a time, with each of several methods."""

    def __init__(self, benchmark: Benchmark, methods: Sequence[Method], width: int) -> None:
        self._benchmark, self._methods = benchmark, methods
        self._queries: dict[int, list[int]] = {}  # those that start from each image, by its position in the gallery
        for number, query in enumerate(benchmark.queries):
            self._queries.setdefault(query.reference, []).append(number)
        # Zeros, because nothing is composed from a reference that is missing.
        self.composed = [np.zeros((len(benchmark.queries), width), dtype=np.float32) for _ in methods]
        """(Q, D) a method, of unit length."""

    @property
    def references(self) -> list[int]:
        """The images that queries start from and that are here, in the gallery's order."""
        return sorted(position for position in self._queries if position < len(self._benchmark.gallery))

    @property
    def paths(self) -> list[Path]:
        """The files of these images, in the order of the queries."""
        gallery = self._benchmark.gallery
        return [gallery.paths[position] for position in self._queries if position < len(gallery)]

    def compose(self, positions: Sequence[int], features: VisionFeatures) -> None:
        """Compose all queries that start from these images of the gallery (B,), whose features these are."""
        # Only images that a query starts from, each once: what a method makes of one serves all its queries.
        rows = [row for row, position in enumerate(positions) if position in self._queries]
        if not rows:
            return
        numbers: list[int] = []
        texts, reference_index, query_index = [], [], []
        for place, row in enumerate(rows):
            for number in self._queries[positions[row]]:
                for text in self._benchmark.queries[number].texts:
                    texts.append(text)
                    reference_index.append(place)  # the image among those chosen
                    query_index.append(len(numbers))  # the query among those composed here
                numbers.append(number)
        queries = Queries(
            VisionFeatures(features.image[rows], features.local[rows]),
            texts,
            reference_index,
            [self._benchmark.gallery.paths[positions[row]] for row in rows],
        )
        for method, target in zip(self._methods, self.composed, strict=True):
            each = method.compose(queries)  # (all texts, D)
            total = each.new_zeros(len(numbers), each.shape[1])
            total.index_add_(0, torch.tensor(query_index, device=each.device), each)
            # Normalised, so the sum over a query's texts gives the same as their mean.
            target[numbers] = F.normalize(total, dim=-1).cpu().numpy()
