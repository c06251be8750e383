"""What each step of a training sees. It depends on the seed and the step's number alone, not on the steps before."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..captions.edit import edit
from ..captions.split import SplitCaption
from .config import TrainingConfig
from .data import TrainingData
from .objective import Batch, Choice, Described, Found, Needs
from .texts import CaptionFeatures

_NEAR = 200
"""The largest distance, in the order of names, of the image whose caption lends a part to an edit."""


class Batches:
    """The batches of a training, with what the objective needs of them.

    Attributes:
        size: images a step, over all processes.
        per_epoch: steps an epoch.

    """

    def __init__(
        self,
        config: TrainingConfig,
        data: TrainingData,
        *,
        needs: Needs,
        texts: CaptionFeatures,
        size: int,
        device: torch.device,
    ) -> None:
        self.size, self.per_epoch = size, len(data.training) // size
        self._data, self._needs, self._texts, self._device = data, needs, texts, device
        self._seed, self._template = config.seed, config.network.template
        self._order = EpochOrder(data, seed=config.seed, group_size=config.hard_group_size)
        self._carriers = _carriers(data) if needs.found else {}

    def batch(self, step: int) -> Batch:
        """What a step, counted from 0, learns from, over all processes; without the local features."""
        epoch, within = divmod(step, self.per_epoch)
        places = self._order.of(epoch)[within * self.size : (within + 1) * self.size].tolist()
        needs, training = self._needs, self._data.training
        batch = self.make(training, places, random.Random(f"{self._seed} {step}"))
        if not (needs.written or needs.found):
            return batch
        random_ = random.Random(f"{self._seed} {step} more")
        more = random_.sample(training, min(needs.extra_negatives, len(training)))
        if needs.written:
            drawn = [str(random_.choice(self._data.captions[row])) for row in more]
            if needs.choice:
                batch = replace(batch, choice=self.choose(batch.edited, [*map(str, batch.captions), *drawn]))
            if needs.described:
                batch = replace(batch, described=self.describe_own(batch, more, drawn))
        if needs.found:
            batch = replace(batch, found=self.find(batch, more, random_))
        return batch

    def validation(self) -> Batch:
        """All images that are held out, the same whenever it is called."""
        held_out = self._data.validation
        return self.make(held_out, range(len(held_out)), random.Random(f"{self._seed} validation"))

    def make(self, pool: list[int], places: Sequence[int], random_: random.Random) -> Batch:
        """The images at some places of `pool`, with a caption drawn for each, and edits where they are needed."""
        rows = [pool[place] for place in places]
        captions = [random_.choice(self._data.captions[row]) for row in rows]
        edits = self._edits(pool, places, captions, random_) if self._needs.edits else []
        return Batch(
            rows=rows,
            captions=captions,
            image=self._tensor(self._data.features.image[rows]),
            local=None,
            real=None
            if self._texts.real is None
            else self._tensor(self._texts.real.take(self._template.real(*caption) for caption in captions)),
            modifications=[modification for modification, _ in edits],
            edited=[edited for _, edited in edits],
        )

    def _edits(
        self, pool: list[int], places: Sequence[int], captions: Sequence[SplitCaption], random_: random.Random
    ) -> list[tuple[str, str]]:
        """For each caption a modification, and the caption after it; other images of `pool` lend parts."""
        edits = []
        for place, caption in zip(places, captions, strict=True):
            # Images beside each other in a folder are often of one kind, which makes plausible edits.
            near = [*pool[max(0, place - _NEAR) : place], *pool[place + 1 : place + 1 + _NEAR]] or [pool[place]]
            other = random_.choice(self._data.captions[random_.choice(near)])
            result = edit(caption, other, random_, self._needs.word_edits)
            edits.append((result.modification, result.caption))
        return edits

    def choose(self, wanted: Sequence[str], others: Sequence[str]) -> Choice:
        """The captions that a batch's wanted ones compete with, besides each other.

        They are encoded without a template, as the edited ones are. Otherwise a query could recognise them by it.
        """
        assert self._texts.written is not None
        return Choice(self._tensor(self._texts.written.take(others)), self._tensor(_equal(wanted, [*wanted, *others])))

    def describe_own(self, batch: Batch, more: Sequence[int], drawn: Sequence[str]) -> Described:
        """A batch's own captions, which compete with those drawn of `more` images.

        Another caption of the same image is as right as its own.
        """
        assert self._texts.written is not None
        own = list(map(str, batch.captions))
        choice = self.choose(own, drawn)
        others = self._tensor(np.equal.outer(batch.rows, more))  # (B, N)
        same = choice.same | F.pad(others, (len(own), 0))
        return Described(self._tensor(self._texts.written.take(own)), replace(choice, same=same))

    def find(self, batch: Batch, more: Sequence[int], random_: random.Random) -> Found | None:
        """Images that carry the edited captions, drawn among all that do; None if there are fewer than two.

        They compete with the batch's own images and with `more`.
        """
        candidates = [self._carriers.get(text, []) for text in batch.edited]
        places = [place for place, rows in enumerate(candidates) if rows]
        if len(places) < 2:
            return None
        rows = [random_.choice(candidates[place]) for place in places]
        others = [*batch.rows, *more]
        columns = np.array([*rows, *others])
        same = np.stack([np.isin(columns, candidates[place]) for place in places])
        image = self._data.features.image
        return Found(places, self._tensor(image[rows]), Choice(self._tensor(image[others]), self._tensor(same)))

    def _tensor(self, values: NDArray[Any]) -> Tensor:
        """Rows of a mapped file on the encoder's device."""
        return torch.from_numpy(np.asarray(values)).to(self._device)


class EpochOrder:
    """The order in which an epoch shows the training images; the last one asked for is kept."""

    def __init__(self, data: TrainingData, *, seed: int, group_size: int) -> None:
        self._data, self._seed, self._group_size = data, seed, group_size
        self._last: tuple[int, NDArray[np.int64]] | None = None

    def of(self, epoch: int) -> NDArray[np.int64]:
        """Places in the training images, each once."""
        if self._last is None or self._last[0] != epoch:
            random_ = np.random.default_rng([self._seed, epoch])
            rows = self._data.training
            if self._group_size == 1:
                order = random_.permutation(len(rows))
            else:
                order = grouped_order(self._data.features.image, rows, size=self._group_size, random_=random_)
            self._last = (epoch, order)
        return self._last[1]


def grouped_order(
    image: NDArray[np.float32], rows: Sequence[int], *, size: int, random_: np.random.Generator
) -> NDArray[np.int64]:
    """An order of places in `rows` in which groups of `size` images are each nearest to one random image."""
    pivots = image[random_.choice(rows, size=max(1, math.isqrt(len(rows))), replace=False)]
    # Otherwise a long pivot would be the nearest of most.
    pivots = (pivots / np.linalg.norm(pivots, axis=1, keepdims=True)).T  # (D, pivots)
    nearest = np.concatenate(
        [np.argmax(image[rows[start : start + 4096]] @ pivots, axis=1) for start in range(0, len(rows), 4096)]
    )
    shuffled = random_.permutation(len(rows))
    by_pivot = shuffled[np.argsort(nearest[shuffled], kind="stable")]
    groups = [by_pivot[start : start + size] for start in range(0, len(rows), size)]
    return np.concatenate([groups[number] for number in random_.permutation(len(groups))])


def _carriers(data: TrainingData) -> dict[str, list[int]]:
    """For each caption the rows of the training images that carry it word for word."""
    rows_of: dict[str, list[int]] = {}
    for row in data.training:
        for text in sorted(set(map(str, data.captions[row]))):
            rows_of.setdefault(text, []).append(row)
    return rows_of


def _equal(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the others each text equals: (len(texts), len(others))."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys([*texts, *others]))}
    rows, columns = (np.array([numbers[text] for text in group]) for group in (texts, others))
    return rows[:, None] == columns
