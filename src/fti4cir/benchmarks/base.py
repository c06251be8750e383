"""What every benchmark is made of: a gallery, queries over it, and the cuts at which it is scored."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class Gallery:
    """The images that are searched. Queries name them by position.

    With N images here and M missing, positions 0 to N - 1 are the images of `ids`, and N to N + M - 1 those of
    `missing`. A missing image is never ranked; that a query may name it keeps such a query from being dropped.
    """

    ids: tuple[str, ...]
    """What the benchmark calls each image."""
    paths: tuple[Path, ...]
    """Where each image is, in the order of `ids`."""
    missing: tuple[str, ...] = ()
    """Ids that belong to the benchmark's gallery but have no image here; scores then are not comparable."""
    unnamed: int = 0
    """How many more are missing whose ids nobody knows, because there is no list; they have no positions."""

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.paths):
            raise ValueError(f"{len(self.ids)} ids and {len(self.paths)} paths")

    def __len__(self) -> int:
        """How many images are here, N."""
        return len(self.ids)

    @property
    def places(self) -> int:
        """How many positions there are, those of missing images included, N + M."""
        return len(self.ids) + len(self.missing)

    @property
    def absent(self) -> int:
        """How many images are missing, those without a name included."""
        return len(self.missing) + self.unnamed


@dataclass(frozen=True, slots=True)
class Query:
    """One question to a gallery, and its answers. All images are positions in the gallery.

    A query whose reference is missing is one that fails. A target that is missing is one that is not found.
    """

    texts: tuple[str, ...]
    """The modification. Several are composed one by one, and their unit-length features averaged. It may be blank."""
    reference: int
    """The image that the modification starts from."""
    exclude: tuple[int, ...]
    """What is left out of the ranking: mostly the reference, or nothing."""
    within: tuple[int, ...] | None
    """The few images, without the reference, that a second ranking is confined to; None where there is no such."""
    targets: tuple[int, ...]
    """The right answers, none of them excluded; empty where only the benchmark's server knows them."""
    recall_targets: tuple[int, ...] | None = None
    """Those of the targets that R@k counts; None for all."""


@dataclass(frozen=True)
class Benchmark:
    """A gallery, its queries and how they are scored."""

    name: str
    split: str
    protocol: str
    """One line that says which gallery and which queries these are, to be printed with every figure."""
    gallery: Gallery
    queries: tuple[Query, ...]
    values: tuple[tuple[str, ...], ...]
    """For each query, the values that it counts under when scores are broken down; empty for no breakdown."""
    precision_cuts: tuple[int, ...]
    """The k of mAP@k."""
    recall_cuts: tuple[int, ...]
    """The k of R@k."""
    subset_cuts: tuple[int, ...] = ()
    """The k of Rs@k, the recall within `Query.within`, which every query then has."""
    query_ids: tuple[int, ...] = ()
    """What the benchmark's server calls each query; empty where there is no server."""
    compared_by: str = "mAP@10"
    """The metric by which methods are compared with each other."""

    def __post_init__(self) -> None:
        for name in ("values", "query_ids"):
            if getattr(self, name) and len(getattr(self, name)) != len(self.queries):
                raise ValueError(f"{len(getattr(self, name))} {name} for {len(self.queries)} queries")

    @property
    def answers_known(self) -> bool:
        """Whether it can be scored here: every query has targets."""
        return all(query.targets for query in self.queries)

    def sample(self, limit: int, seed: int = 0) -> Benchmark:
        """At most `limit` queries, drawn evenly and kept in order; a smaller limit draws a part of a larger one's."""
        drawn = sorted(np.random.default_rng(seed).permutation(len(self.queries))[:limit])
        return replace(
            self,
            protocol=f"{self.protocol}, at most {limit} queries drawn with seed {seed}",
            queries=tuple(self.queries[number] for number in drawn),
            values=tuple(self.values[number] for number in drawn) if self.values else (),
            query_ids=tuple(self.query_ids[number] for number in drawn) if self.query_ids else (),
        )
