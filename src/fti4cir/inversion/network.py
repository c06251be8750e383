"""The Fine-grained Textual Inversion Network: features of an image to its pseudo-words.

Source: Lin, Wen, Song, Liu, Hu, Nie, "Fine-grained Textual Inversion Network for Zero-Shot Composed Image
Retrieval", SIGIR 2024.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.base import DualEncoder
from ..errors import ModelError
from .attributes import LatentAttributes, select
from .prompts import Sentence, Template

_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"gelu": F.gelu, "relu": F.relu}


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """The network's shape and its selection, whatever the encoder; the defaults are the paper's."""

    num_latent: int = 24
    """K, latent local attributes."""
    max_attributes: int = 12
    """M, the most attributes that become words; 0 makes the subject the only word."""
    threshold: float | None = 0.05
    """The least relevance of an attribute that is kept; None keeps all M (no dynamic selection)."""
    layers: int = 3
    """Depth of the attribute transformer."""
    heads: int = 1
    """Heads of each of its layers."""
    dropout: float = 0.5
    """After each hidden layer of the two mappings to words."""
    template: Template = field(default_factory=Template)
    """The real words around the pseudo-words."""
    hidden_width: int | None = None
    """Of the two hidden layers of each mapping to words; None: 4 D."""
    activation: Literal["gelu", "relu"] = "gelu"
    """Of these layers."""

    def __post_init__(self) -> None:
        for name in ("num_latent", "layers", "heads"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if not 0 <= self.max_attributes <= self.num_latent:
            raise ModelError(
                f"max_attributes is {self.max_attributes}, but must lie between 0 and num_latent, {self.num_latent}."
            )
        if self.threshold is not None and not 0 <= self.threshold < 1:
            raise ModelError(f"threshold is {self.threshold}, but must lie in [0, 1).")
        if not 0 <= self.dropout < 1:
            raise ModelError(f"dropout is {self.dropout}, but must lie in [0, 1).")
        if self.hidden_width is not None and self.hidden_width < 1:
            raise ModelError(f"hidden_width is {self.hidden_width}, but must be at least 1.")
        if self.activation not in _ACTIVATIONS:
            raise ModelError(f"activation is {self.activation!r}, but must be one of {', '.join(_ACTIVATIONS)}.")

    def for_encoder(self, encoder: DualEncoder) -> InversionConfig:
        """The same with the widths of an encoder. ModelError if the heads do not divide its vision width."""
        settings = {part.name: getattr(self, part.name) for part in fields(NetworkConfig)}
        return InversionConfig(
            joint_width=encoder.joint_width,
            vision_width=encoder.vision_width,
            token_width=encoder.token_width,
            **settings,
        )


@dataclass(frozen=True)
class InversionConfig(NetworkConfig):
    """All that the network is built from."""

    joint_width: int
    """D, of the encoder."""
    vision_width: int
    """V, of the encoder."""
    token_width: int
    """W, of the encoder."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("joint_width", "vision_width", "token_width"):
            if getattr(self, name) < 1:
                raise ModelError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if self.vision_width % self.heads:
            raise ModelError(f"{self.heads} heads do not divide the vision width {self.vision_width}.")

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> InversionConfig:
        """What `dataclasses.asdict` made of a configuration; TypeError if a field is missing or unknown."""
        return cls(**{**entries, "template": Template(**entries.get("template", {}))})

    def sentence(self, modification: str | None = None) -> Sentence:
        """The sentence that an image's pseudo-words make, and the modification with it where there is one.

        Without attributes it names the subject alone.
        """
        return self.template.pseudo(modification, with_attributes=self.max_attributes > 0)


@dataclass(frozen=True)
class PseudoWords:
    """What the network makes of B images.

    Only the first `counts[b]` of `attributes[b]` are words of image b.
    """

    subject: Tensor
    """(B, W) the subject-oriented pseudo-word."""
    attributes: Tensor
    """(B, M, W) the attribute-oriented pseudo-words."""
    counts: Tensor
    """(B,) how many of them an image has, 0 to M."""
    selected: Tensor
    """(B, M, D) the unit-length local attributes behind them, kept or not."""
    indices: Tensor
    """(B, M) which of the K latent attributes they are."""
    relevance: Tensor
    """(B, K)."""
    latent: Tensor
    """(B, K, D) all latent local attributes."""

    @classmethod
    def of_subjects(cls, subject: Tensor) -> PseudoWords:
        """Subject words (B, W) without attributes."""
        batch, width = subject.shape
        none = subject.new_zeros(batch, 0)
        return cls(
            subject=subject,
            attributes=subject.new_zeros(batch, 0, width),
            counts=torch.zeros(batch, dtype=torch.long, device=subject.device),
            selected=none[..., None],
            indices=none.long(),
            relevance=none,
            latent=none[..., None],
        )

    def without_some(self, share: float) -> PseudoWords:
        """The same, with a random share of each image's attribute words left out, but never all of them.

        The words that stay keep their order.
        """
        places = torch.arange(self.indices.shape[1], device=self.indices.device)
        words = places < self.counts[:, None]  # (B, M)
        drawn = torch.rand(words.shape, device=words.device)
        # The luckiest of an image's words always stays.
        best = drawn.masked_fill(~words, -1.0).argmax(dim=1, keepdim=True) == places
        kept = words & ((drawn >= share) | best)
        order = torch.where(kept, places, len(places) + places).argsort(dim=1)

        def ordered(values: Tensor) -> Tensor:  # (B, M, ...)
            index = order.reshape(*order.shape, *[1] * (values.dim() - 2)).expand_as(values)
            return values.gather(1, index)

        return replace(
            self,
            attributes=ordered(self.attributes),
            counts=kept.sum(dim=1),
            selected=ordered(self.selected),
            indices=ordered(self.indices),
        )


class WordMapping(nn.Module):
    """phi: a feature to a pseudo-word, D -> H -> H -> W with an activation and dropout after each hidden layer.

    The paper's has H = 4 D and GELU.
    """

    def __init__(self, config: InversionConfig) -> None:
        super().__init__()
        wide = config.hidden_width or 4 * config.joint_width
        self.first = nn.Linear(config.joint_width, wide)
        self.second = nn.Linear(wide, wide)
        self.third = nn.Linear(wide, config.token_width)
        self.dropout = nn.Dropout(config.dropout)
        self.activation = _ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """(..., D) -> (..., W)."""
        x = self.dropout(self.activation(self.first(x)))
        x = self.dropout(self.activation(self.second(x)))
        return self.third(x)


class FineGrainedInversion(nn.Module):
    """FTI4CIR's network: one subject-oriented and a varying number of attribute-oriented pseudo-words."""

    def __init__(self, config: InversionConfig) -> None:
        super().__init__()
        self.config = config
        self.subject = WordMapping(config)
        self.latent: LatentAttributes | None = None
        self.attribute: WordMapping | None = None
        if config.max_attributes:
            self.latent = LatentAttributes(
                config.num_latent, config.vision_width, config.joint_width, config.layers, config.heads
            )
            self.attribute = WordMapping(config)

    def forward(self, image: Tensor, local: Tensor) -> PseudoWords:
        """Image features (B, D), not normalised, and local features (B, P, V), to pseudo-words."""
        subject = self.subject(image)
        if self.latent is None or self.attribute is None:
            return PseudoWords.of_subjects(subject)
        latent = self.latent(local)
        selection = select(latent, image, self.config.max_attributes, self.config.threshold)
        chosen = latent.gather(1, selection.indices[..., None].expand(-1, -1, latent.shape[-1]))
        selected = F.normalize(chosen, dim=-1)
        return PseudoWords(
            subject,
            self.attribute(selected),
            selection.counts,
            selected,
            selection.indices,
            selection.relevance,
            latent,
        )
