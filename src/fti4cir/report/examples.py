"""Which queries a report shows, and their images as thumbnails."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..evaluation.results import labels
from ..html import data_uri
from ..images.decode import open_image
from .study import Study

_SEED = 0
_RANDOM, _BEST, _WORST = 6, 3, 3
_SIDE = 144


class Group(NamedTuple):
    """Queries that are shown for one reason."""

    title: str
    why: str
    queries: tuple[int, ...]


def choose(study: Study) -> list[Group]:
    """Some random queries, and of the others some best and some worst by the first method; always the same ones.

    The random ones are drawn before all others, for what is left over by a choice of the best and the worst is not a
    fair sample. Where more are equally good or bad than are shown, chance decides, not the benchmark's order.
    """
    first = study.evaluations[0]
    figures = first.per_query[study.compared_by]  # (Q,)
    shuffled = np.random.default_rng(_SEED).permutation(len(figures))
    random, others = shuffled[:_RANDOM], shuffled[_RANDOM:]
    ordered = others[np.argsort(-figures[others], kind="stable")]
    best, worst = ordered[:_BEST], ordered[max(_BEST, len(ordered) - _WORST) :][::-1]

    def equals(chosen: NDArray[np.int64]) -> str:
        last = figures[chosen[-1]]
        equal = int((figures == last).sum())
        return f" {equal} of {len(figures)} queries have {last:.3f}: chance decided between them." if equal > 1 else ""

    by = f"{study.compared_by} by {labels(study.evaluations)[0]}, of the queries that are not shown above."
    groups = [Group("Random", f"Drawn evenly from all queries, with seed {_SEED}.", tuple(random.tolist()))]
    if len(best):
        groups.append(Group("Best", f"Highest {by}{equals(best)}", tuple(best.tolist())))
    if len(worst):
        groups.append(Group("Worst", f"Lowest {by}{equals(worst)}", tuple(worst.tolist())))
    return groups


class Thumbnails:
    """Small images as backgrounds of classes in a stylesheet. Each is stored once, however often it is shown."""

    def __init__(self) -> None:
        self._classes: dict[Path, str] = {}
        self.images: dict[str, str] = {}
        """For each class, its image as a data URI."""

    def style_of(self, path: Path) -> str:
        """The class that has the image as its background.

        Raises:
            ImageError: if it cannot be read.
        """
        if path not in self._classes:
            small = open_image(path, at_least=_SIDE)
            small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
            name = self._classes[path] = f"p{len(self._classes)}"
            self.images[name] = data_uri(small, quality=75)
        return self._classes[path]
