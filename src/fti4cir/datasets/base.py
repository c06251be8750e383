"""What every benchmark is made of: a gallery, queries over it, and the cuts at which it is scored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Gallery:
    """The pictures that are searched. Queries name them by position."""

    ids: tuple[str, ...]
    """What the benchmark calls each picture."""
    paths: tuple[Path, ...]
    """Where each picture is, in the order of `ids`."""
    missing: tuple[str, ...] = ()
    """Ids that belong to the benchmark's gallery but have no picture here; scores then are not comparable."""

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.paths):
            raise ValueError(f"{len(self.ids)} ids and {len(self.paths)} paths")

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Query:
    """One question to a gallery, and its answers. All pictures are positions in the gallery."""

    texts: tuple[str, ...]
    """The modification. Several are composed one by one, and their unit-length features averaged."""
    reference: int
    """The picture that the modification starts from."""
    exclude: tuple[int, ...]
    """What is left out of the ranking: mostly the reference, or nothing."""
    within: tuple[int, ...] | None
    """The few pictures, without the reference, that a second ranking is confined to; None where there is no such."""
    targets: tuple[int, ...]
    """The right answers, at least one, none of them excluded."""


@dataclass(frozen=True)
class Benchmark:
    """A gallery, its queries and how they are scored."""

    name: str
    split: str
    protocol: str
    """One line that says which gallery and which queries these are, to be printed with every figure."""
    gallery: Gallery
    queries: tuple[Query, ...]
    values: tuple[str, ...]
    """For each query, the value that scores are broken down by; empty for no breakdown."""
    precision_cuts: tuple[int, ...]
    """The k of mAP@k."""
    recall_cuts: tuple[int, ...]
    """The k of R@k."""
    subset_cuts: tuple[int, ...] = ()
    """The k of Rs@k, the recall within `Query.within`, which every query then has."""

    def __post_init__(self) -> None:
        if self.values and len(self.values) != len(self.queries):
            raise ValueError(f"{len(self.values)} values for {len(self.queries)} queries")
