"""What every method of composed retrieval is, what it may ask of a model, and how it enters the registry.

Nothing here imports PyTorch: the registry names the methods for the command line's help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    from torch import Tensor

    from ..backbones.base import DualEncoder
    from ..inversion.network import FineGrainedInversion
    from ..models.queries import Queries
    from ..training.config import TrainingConfig
    from ..training.objective import MakeObjective


class TextEncoder(Protocol):
    """What methods use of a model that only has to encode texts."""

    def encode_texts(self, texts: Sequence[str], *, allow_blank: bool = False) -> Tensor:
        """B texts, none of them blank unless that is allowed, to unit-length features (B, D)."""
        ...


class Model(TextEncoder, Protocol):
    """What methods use of a model."""

    name: str
    encoder: DualEncoder
    inversion: FineGrainedInversion | None
    method: str
    """What its inversion network was trained as."""
    extra: Mapping[str, Any]
    """What the training left besides the network, see `Objective.extra`."""

    def compose_features(self, queries: Queries, *, allow_blank: bool = False) -> Tensor:
        """As `Method.compose`, by the inversion network."""
        ...

    def require_inversion(self) -> FineGrainedInversion:
        """The inversion network; ModelError if there is none."""
        ...


class Method(Protocol):
    """Puts an image and a modification text into one feature, which is compared with images by cosine."""

    @property
    def name(self) -> str:
        """What a user types to choose it."""
        ...

    def compose(self, queries: Queries) -> Tensor:
        """B queries to unit-length features (B, D), each of which depends on its own image and text only."""
        ...


@runtime_checkable
class NeedsFiles(Protocol):
    """A method that knows something about the files of images, and so cannot compose any image."""

    def require(self, paths: Sequence[Path]) -> None:
        """InputError unless queries can start from each of these images."""
        ...


@dataclass(frozen=True)
class Learner:
    """How a method learns."""

    presets: Mapping[str, TrainingConfig]
    """Its recipes by the names by which a user chooses them."""
    default: str
    """The recipe that is taken where none is chosen."""
    objective: MakeObjective


class Captions(NamedTuple):
    """Captions of the images in a folder."""

    images: Path
    table: Path
    """As `captions.table` reads it."""


@dataclass(frozen=True)
class Options:
    """What a user can choose besides a method's name. Each method uses what concerns it."""

    image_weight: float = 0.5
    """The image's share in `sum`, from 0 to 1."""
    captions: Captions | None = None
    """For `caption`."""


@dataclass(frozen=True)
class Entry:
    """A method in the registry: each method's module has one, called `METHOD`, written as one call."""

    create: Callable[[Model, Options], Method]
    """Makes the method for a model. ModelError if the model has no weights for it, InputError for an option that
    is missing or out of range."""
    learner: Learner | None = None
    """How it learns; None for a method that learns nothing."""
    stands_on: str | None = None
    """The method that its model must have been trained as, for a method that learns nothing and yet needs one."""
