"""Whether a benchmark's images are all there and whole, and what its figures would mean if they are not."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import ImageError
from ..images.decode import CutImageWarning, decode_image, read_file, share_of
from ..images.prefetch import prefetch
from ..progress import Progress
from .base import Benchmark, Query

_CHUNK = 256  # images between two reports of progress
_TINY = 16  # pixels
# JPEG files are decoded at a fraction of their size. Every byte of them is still read, so a cut is still found.
_AT_LEAST = 64


class Fault(NamedTuple):
    """An image file that is there but not as it should be."""

    id: str
    """What the benchmark calls the image."""
    path: Path
    reason: str
    """In one sentence, which names the file."""


@dataclass(frozen=True)
class Part:
    """One gallery of a benchmark and its queries, and what is wrong with the images."""

    benchmark: Benchmark
    unreadable: tuple[Fault, ...]
    """Files that give no image: empty, cut off halfway, a web page saved under an image's name, not to be opened."""
    suspicious: tuple[Fault, ...]
    """Files that give an image of which a part is missing, or one too small to be the benchmark's, such as a shop's
    placeholder of one pixel."""

    @property
    def needed(self) -> int:
        """How many images the gallery should have."""
        return len(self.benchmark.gallery) + self.benchmark.gallery.absent

    @property
    def complete(self) -> bool:
        """Whether every image is there and can be read."""
        return not self.benchmark.gallery.absent and not self.unreadable

    @property
    def without_reference(self) -> int:
        """How many queries have lost their reference."""
        return sum(query.reference in self._lost for query in self.benchmark.queries)

    @property
    def without_target(self) -> int | None:
        """How many queries have lost a target; None where nobody knows the targets."""
        if not self.benchmark.answers_known:
            return None
        return sum(not self._lost.isdisjoint(query.targets) for query in self.benchmark.queries)

    @property
    def blank(self) -> int:
        """How many queries have a blank modification; they are asked as all others."""
        return sum(not any(text.strip() for text in query.texts) for query in self.benchmark.queries)

    @property
    def unanswerable(self) -> int:
        """How many queries have lost their reference, or every target there is."""
        return sum(
            query.reference in self._lost or (bool(query.targets) and self._lost.issuperset(query.targets))
            for query in self.benchmark.queries
        )

    def ceilings(self) -> dict[str, float]:
        """Each metric's value if every query that can still be answered were answered perfectly.

        Where targets are hidden, only references are known to be lost, and the real ceiling may be lower.
        """
        lost, benchmark = self._lost, self.benchmark
        ceilings = {}
        for prefix, cuts in (
            ("mAP", benchmark.precision_cuts),
            ("R", benchmark.recall_cuts),
            ("Rs", benchmark.subset_cuts),
        ):
            for k in cuts:
                best = [_best(query, lost, k, precision=prefix == "mAP") for query in benchmark.queries]
                ceilings[f"{prefix}@{k}"] = sum(best) / len(best)
        return ceilings

    @property
    def meaning(self) -> str:
        """What figures on this copy would mean, in a sentence or two."""
        blank = ""
        if self.blank:
            several = self.blank > 1
            blank = (
                f" {self.blank:,} {'queries have' if several else 'query has'} a blank modification, which is legal: "
                f"{'they are asked as they are' if several else 'it is asked as it is'}."
            )
        if self.complete:
            return f"All {self.needed:,} images are there and can be read.{blank}"
        targets = "unknown" if self.without_target is None else f"{self.without_target:,}"
        ceilings = self.ceilings()
        # Rounded down, for a ceiling that is printed as 1.000 would say that nothing is lost.
        bounds = ", ".join(f"{name} by {_floor(ceilings[name])}" for name in _shown(self.benchmark))
        return (
            f"{self.benchmark.gallery.absent + len(self.unreadable):,} of {self.needed:,} gallery images are missing "
            f"or unreadable; of {len(self.benchmark.queries):,} queries, {self.without_reference:,} lack their "
            f"reference and {targets} lack targets: {self.unanswerable:,} could never be answered, which bounds "
            f"{bounds}. Other missing images make the gallery easier, so such figures are not comparable.{blank}"
        )

    @cached_property
    def _lost(self) -> frozenset[int]:
        """The positions in the gallery of images that are missing or unreadable."""
        gallery = self.benchmark.gallery
        unreadable = {fault.id for fault in self.unreadable}
        broken = (position for position, name in enumerate(gallery.ids) if name in unreadable)
        return frozenset((*broken, *range(len(gallery), gallery.places)))

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`; which images they are, the `Verification` tells."""
        return {
            "name": self.benchmark.name,
            "protocol": self.benchmark.protocol,
            "needed": self.needed,
            "missing": self.benchmark.gallery.absent,
            "unreadable": len(self.unreadable),
            "suspicious": len(self.suspicious),
            "queries": len(self.benchmark.queries),
            "without_reference": self.without_reference,
            "without_target": self.without_target,
            "unanswerable": self.unanswerable,
            "blank": self.blank,
            "ceilings": self.ceilings(),
            "meaning": self.meaning,
        }


@dataclass(frozen=True)
class Verification:
    """All parts of a benchmark. An image that belongs to the galleries of two parts is counted once."""

    benchmark: str
    split: str
    parts: tuple[Part, ...]

    @property
    def complete(self) -> bool:
        """Whether every image is there and can be read."""
        return all(part.complete for part in self.parts)

    @property
    def needed(self) -> int:
        """How many images there should be."""
        galleries = [part.benchmark.gallery for part in self.parts]
        return len({name for one in galleries for name in (*one.ids, *one.missing)}) + self._unnamed

    @property
    def missing(self) -> tuple[str, ...]:
        """The ids of the images that are not there, as far as they are known."""
        return tuple(dict.fromkeys(name for part in self.parts for name in part.benchmark.gallery.missing))

    @property
    def absent(self) -> int:
        """How many images are not there."""
        return len(self.missing) + self._unnamed

    @property
    def unreadable(self) -> tuple[Fault, ...]:
        """The unreadable images of all parts."""
        return tuple(dict.fromkeys(fault for part in self.parts for fault in part.unreadable))

    @property
    def suspicious(self) -> tuple[Fault, ...]:
        """The suspicious images of all parts."""
        return tuple(dict.fromkeys(fault for part in self.parts for fault in part.suspicious))

    @property
    def _unnamed(self) -> int:
        return sum(part.benchmark.gallery.unnamed for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """What `fti4cir verify --json` prints, ready for `json.dumps`."""
        return {
            "benchmark": self.benchmark,
            "split": self.split,
            "complete": self.complete,
            "needed": self.needed,
            "counts": {
                "missing": self.absent,
                "unreadable": len(self.unreadable),
                "suspicious": len(self.suspicious),
            },
            "missing": list(self.missing),
            "unreadable": [_fault_to_json(fault) for fault in self.unreadable],
            "suspicious": [_fault_to_json(fault) for fault in self.suspicious],
            "parts": [part.to_json() for part in self.parts],
        }


def verify(name: str, benchmarks: Sequence[Benchmark], progress: Progress | None = None) -> Verification:
    """Open every image of a benchmark that is there, and report on each of its parts.

    Args:
        name: what the result calls the whole benchmark.
        benchmarks: its parts, at least one, all of one split, loaded with `allow_missing`.
        progress: called after each few hundred images.
    """
    # An image may belong to the galleries of two parts; it is opened once.
    paths = list(dict.fromkeys(path for benchmark in benchmarks for path in benchmark.gallery.paths))
    unreadable: dict[Path, str] = {}
    suspicious: dict[Path, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CutImageWarning)  # such an image is among the faults
        for path, error, is_readable in _examine(paths, progress):
            if error is not None:
                (suspicious if is_readable else unreadable)[path] = error
    parts = (Part(one, _faults(one, unreadable), _faults(one, suspicious)) for one in benchmarks)
    return Verification(name, benchmarks[0].split, tuple(parts))


def _examine(paths: Sequence[Path], progress: Progress | None) -> Iterator[tuple[Path, str | None, bool]]:
    """For each file, what is wrong with it, if anything, and whether it can be read nevertheless."""
    for done, (path, found) in enumerate(zip(paths, prefetch(_look, paths), strict=True), start=1):
        yield (path, *found)
        if progress is not None and (done % _CHUNK == 0 or done == len(paths)):
            progress(done, len(paths))


def _look(path: Path) -> tuple[str | None, bool]:
    try:
        image = decode_image(read_file(path), path, at_least=_AT_LEAST)
    except ImageError as error:
        return str(error), False
    if image.missing:
        return f"'{path}' is cut short or damaged: {share_of(image.missing)} of the image is missing.", True
    if min(image.width, image.height) < _TINY:
        return f"'{path}' is {image.width} by {image.height} pixels, too few to be the image.", True
    return None, False


def _faults(benchmark: Benchmark, reasons: dict[Path, str]) -> tuple[Fault, ...]:
    gallery = benchmark.gallery
    pairs = zip(gallery.ids, gallery.paths, strict=True)
    return tuple(Fault(name, path, reasons[path]) for name, path in pairs if path in reasons)


def _best(query: Query, lost: frozenset[int], k: int, *, precision: bool) -> float:
    """The most that a query can score at a cut."""
    if query.reference in lost:
        return 0.0
    targets = query.targets if precision or query.recall_targets is None else query.recall_targets
    if not targets:
        return 1.0
    found = min(sum(target not in lost for target in targets), k)
    return found / (min(len(targets), k) if precision else len(targets))


def _shown(benchmark: Benchmark) -> list[str]:
    """The metrics whose ceilings are worth a sentence: the main one, and the last of each kind."""
    last = [
        f"{prefix}@{cuts[-1]}"
        for prefix, cuts in (
            ("mAP", benchmark.precision_cuts),
            ("R", benchmark.recall_cuts),
            ("Rs", benchmark.subset_cuts),
        )
        if cuts
    ]
    return list(dict.fromkeys((benchmark.compared_by, *last)))


def _floor(figure: float) -> str:
    """To three places, rounded down, except for the rounding errors of the computation."""
    return f"{math.floor(figure * 1000 + 1e-6) / 1000:.3f}"


def _fault_to_json(fault: Fault) -> dict[str, str]:
    # A path may hold bytes that are not UTF-8, and JSON must not.
    return {"id": fault.id, "path": os.fsencode(fault.path).decode(errors="replace"), "reason": fault.reason}
