"""The images and captions of a training: which can be used, and which are held out to measure on."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..backbones.base import DualEncoder
from ..captions.split import Rule, SplitCaption, split
from ..captions.table import CaptionedImages
from ..errors import NoRoomError, TrainingError
from ..features.cache import Features, Share, StreamedFeatures, compute, require_room
from .distributed import World

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """Captioned images with their features, and what each is used for."""

    names: Sequence[str]
    """Of the N images."""
    captions: list[list[SplitCaption]]
    """Of each of the N images, those that could be split."""
    features: Features | StreamedFeatures
    """Of the N images."""
    training: list[int]
    """The rows of the images that are trained on."""
    validation: list[int]
    """The rows of the images that are held out."""

    @property
    def key(self) -> str:
        """A digest of all that is learned from: a training is only resumed on the same."""
        learned = [[self.names[row], self.captions[row]] for row in self.training]
        return hashlib.sha256(json.dumps(learned).encode()).hexdigest()


def prepare_data(
    data: CaptionedImages, features: Features | StreamedFeatures, *, rule: Rule, validation: int
) -> TrainingData:
    """Split the captions, leave out what cannot be used, and hold some images out.

    Args:
        data: the captioned images.
        features: theirs; images that could not be read are left out.
        rule: how captions are split.
        validation: the most images to hold out.

    Raises:
        TrainingError: if fewer than two images are left to train on.

    """
    captions = split_captions(data, rule)
    for reason in features.unreadable.values():
        _logger.warning(f"left out: {reason}")
    usable = [row for row in range(len(data)) if row not in features.unreadable and captions[row]]
    training, held_out = hold_out(usable, data.names, most=validation)
    if len(training) < 2:
        raise TrainingError(f"Only {len(training)} images with usable captions are left; training needs at least 2.")
    _logger.info(f"training on {len(training)} images, measuring on {len(held_out)} others")
    return TrainingData(data.names, captions, features, training, held_out)


def split_captions(data: CaptionedImages, rule: Rule) -> list[list[SplitCaption]]:
    """For each image its captions that can be split."""
    flat = [caption for group in data.captions for caption in group]
    plain = [caption.text for caption in flat if caption.parts is None]
    parts = iter(split(plain, rule) if plain else [])
    result: list[list[SplitCaption]] = []
    dropped = 0
    for group in data.captions:
        found = [SplitCaption(*caption.parts) if caption.parts else next(parts) for caption in group]
        kept = [part for part in found if part is not None]
        dropped += len(found) - len(kept)
        result.append(kept)
    if dropped:
        _logger.info(f"{dropped} of {len(flat)} captions are too short or cannot be split, and are left out")
    return result


def hold_out(usable: list[int], names: Sequence[str], *, most: int) -> tuple[list[int], list[int]]:
    """Rows for training and for validation, at most a tenth of all; a hash of the image's name decides."""
    count = min(most, len(usable) // 10)
    by_hash = sorted(usable, key=lambda row: hashlib.sha256(names[row].encode()).digest())
    return sorted(by_hash[count:]), sorted(by_hash[:count])


def image_features(
    folder: Path, encoder: DualEncoder, *, data: CaptionedImages, world: World, opened: contextlib.ExitStack
) -> Features | StreamedFeatures:
    """The images' features from a cache. Where its local ones do not fit on the disk, they are computed when needed.

    `opened` closes what reads the images then.
    """
    share = Share(world.rank, world.size, world.wait)

    def lacking() -> str | None:
        try:
            require_room(folder, encoder, count=len(data))
        except NoRoomError as error:
            return str(error)
        return None

    reason = world.first(lacking)
    if reason is None:
        return compute(folder, encoder, data, share=share)
    _logger.warning(
        f"{reason} (--features.) Until then the local features are computed in every step, which is slower."
    )
    streamed = StreamedFeatures(compute(folder / "global", encoder, data, local=False, share=share), data, encoder)
    opened.callback(streamed.close)
    return streamed
