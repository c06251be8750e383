"""What every method of composed retrieval is, what it may ask of a model, and how one that learns is described."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from ..backbones.base import DualEncoder, VisionFeatures
from ..inversion.network import FineGrainedInversion
from ..training.config import TrainingConfig
from ..training.objective import MakeObjective


class Model(Protocol):
    """What methods use of a model."""

    name: str
    encoder: DualEncoder
    inversion: FineGrainedInversion | None
    method: str
    """What its inversion network was trained as."""
    extra: Mapping[str, Any]
    """What the training left besides the network, see `Objective.extra`."""

    def encode_texts(self, texts: Sequence[str], *, allow_blank: bool = False) -> Tensor:
        """B texts, none of them blank unless that is allowed, to unit-length features (B, D)."""
        ...

    def compose_features(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        *,
        allow_blank: bool = False,
    ) -> Tensor:
        """As `Method.compose`, by the inversion network."""
        ...

    def require_inversion(self) -> FineGrainedInversion:
        """The inversion network; ModelError if there is none."""
        ...


class Method(Protocol):
    """Puts an image and a modification into one feature, to be compared with images by cosine."""

    @property
    def name(self) -> str:
        """What a user types to choose it."""
        ...

    def compose(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        pictures: Sequence[Path] = (),
    ) -> Tensor:
        """Modifications of images to unit-length features, each of which depends on its own image and text only.

        Args:
            features: of R images, image (R, D) and local (R, P, V).
            texts: B modifications. A blank one is a legal query, for benchmarks have such.
            owner: the row of each text's image; None: text i belongs to image i.
            images: the R images' files, for a method that knows something of them.

        Returns:
            (B, D).

        """
        ...


@dataclass(frozen=True)
class Learner:
    """How a method learns."""

    presets: Mapping[str, TrainingConfig]
    """Its recipes by the names by which a user chooses them."""
    default: str
    """The recipe that is taken where none is chosen."""
    objective: MakeObjective
