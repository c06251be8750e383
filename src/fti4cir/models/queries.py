"""The queries that a method composes: reference images, each with any number of modification texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..backbones.base import VisionFeatures


@dataclass(frozen=True, eq=False)
class Queries:
    """B queries that start from R reference images.

    >>> import torch
    >>> features = VisionFeatures(image=torch.ones(2, 3), local=torch.ones(2, 1, 4))
    >>> Queries(features, ["in red", "in blue"]).reference_index
    (0, 1)
    >>> Queries(features, ["in red", "in blue", "smaller"], (0, 0, 1)).reference_index
    (0, 0, 1)

    Raises:
        ValueError: if the numbers of images, texts, indexes and paths do not fit, or an index is not a row.
    """

    features: VisionFeatures
    """Of the reference images: image (R, D), not normalised, and local (R, P, V)."""
    texts: Sequence[str]
    """(B,) modification texts. A blank text is valid, because benchmarks contain some."""
    reference_index: Sequence[int] = ()
    """(B,) the row of each text's reference image. If left out, text i belongs to image i."""
    paths: Sequence[Path] = ()
    """(R,) the files of the reference images, for a method that knows something about files. Empty if unknown."""

    def __post_init__(self) -> None:
        count, texts = len(self.features.image), len(self.texts)
        if len(self.features.local) != count:
            raise ValueError(f"There are {count} image features but {len(self.features.local)} local ones.")
        if self.paths and len(self.paths) != count:
            raise ValueError(f"There are {count} reference images but {len(self.paths)} paths.")
        if texts and not len(self.reference_index):
            if texts != count:
                raise ValueError(f"There are {count} reference images but {texts} texts; give reference_index.")
            object.__setattr__(self, "reference_index", tuple(range(texts)))
        if len(self.reference_index) != texts:
            raise ValueError(f"There are {texts} texts but {len(self.reference_index)} indexes of references.")
        for index in self.reference_index:
            if not 0 <= index < count:
                raise ValueError(f"The reference index {index} is not a row of {count} reference images.")
