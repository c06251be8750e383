"""What a training is made of: one dataclass, every part of it a switch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from ..backbones.base import DualEncoder
from ..captions.split import RULES, Rule
from ..errors import TrainingError
from ..inversion.network import InversionConfig
from ..inversion.prompts import Template
from .losses import LossWeights

_CHOICES: Mapping[str, tuple[str | int, ...]] = {
    "optimizer": ("adamw", "adam", "sgd"),
    "schedule": ("step", "cosine", "warmup-cosine", "constant"),
    "contrast": ("all", "across"),
    "activation": ("gelu", "relu"),
    "keywords": ("nouns", "runs"),
    "text_noise": ("relative", "unit"),
    "masked_loss": ("cosine", "squared"),
    "vocabulary": ("captions", "open-images"),
    "inversion_start": ("mean", "random"),
    "inversion_templates": (1, 24),
    "caption_split": RULES,
}
_COUNTS_OF_SEARLE = ("concepts", "inversion_concepts", "inversion_steps")


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a training gives. The defaults are the paper's, as its release has them, but for
    `caption_split`."""

    method: str = "fti4cir"
    """What learns: a name in `methods.registry.trainable()`."""

    # -- how long, and how fast
    epochs: int = 60
    """How often each image is seen, with one of its captions."""
    steps: int | None = None
    """All steps of the training, whatever `epochs` says; None: as many as the epochs take."""
    batch_size: int = 256
    """Images a step, over all devices; with the contrastive losses, more is not only faster."""
    chunk_size: int = 0
    """Images that pass the network at a time on one device, for a batch that its memory cannot hold; 0: all. The
    loss is that of the whole batch (cached gradients; Gao et al., 2021), at the price of a second forward pass."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """`sgd` with a momentum of 0.9."""
    learning_rate: float = 4e-5
    weight_decay: float = 0.01
    decay_biases: bool = True
    """Whether the weight decay acts on biases and other vectors too, or on matrices alone."""
    beta2: float = 0.999
    """Adam's memory of squared gradients."""
    epsilon: float = 1e-8
    """What Adam adds to the root of the squared gradients."""
    schedule: Literal["step", "cosine", "warmup-cosine", "constant"] = "step"
    """`step`: a tenth of the learning rate from `decay_epoch` on; `cosine`: down to zero; `warmup-cosine`: likewise,
    but the cosine begins where the warmup ends."""
    decay_epoch: int = 10
    warmup_steps: int = 0
    """The learning rate rises linearly over these, but at most over a tenth of all. With `warmup-cosine` it always
    rises over all of them, as published recipes do, even where the training is shorter."""
    clip_norm: float | None = None
    """The gradient's norm is held below this."""
    average: float = 0.0
    """Decay of the exponential average of the weights, which then is what is saved; 0: the last weights."""
    bfloat16: bool = False
    """Run the step in bfloat16 where the processor multiplies it in hardware."""

    # -- what is learned
    weights: LossWeights = field(default_factory=LossWeights)
    """What each loss counts."""
    contrast: Literal["all", "across"] = "all"
    """What the contrastive loss tells an image's sentence from. `all`: the batch's other images and sentences.
    `across`: a sentence from the other images, and an image from the other sentences, as CLIP does."""
    temperature: float | None = 0.20
    """Of the contrastive loss; None: what the encoder learned for its own (CLIP's logit scale)."""
    composed_temperature: float = 0.07
    """Of the composed losses and of the description loss."""

    # -- the network, as in `InversionConfig`
    num_latent: int = 24
    max_attributes: int = 12
    threshold: float | None = 0.05
    layers: int = 3
    heads: int = 1
    dropout: float = 0.5
    hidden_width: int | None = None
    activation: Literal["gelu", "relu"] = "gelu"
    template: Template = field(default_factory=Template)
    attribute_gain: float = 1.0
    """Scale of the initial weights that turn the attribute transformer's outputs into latent attributes. With 1 all
    images start with nearly the same attributes; a small encoder then never learns to tell them apart."""

    # -- what it is shown
    caption_split: Rule = "words"
    """How a caption is split into subject and attribute: as the release does it, or ours; see `captions.split`."""
    attribute_masking: float = 0.0
    """Share of the attribute words that is left out of a training sentence at random."""
    noise: float = 0.0
    """Gaussian noise on the image features that the network sees, its length relative to theirs."""
    word_edits: float = 0.65
    """Share of the edited captions in which a word of a list (a colour, a kind, a place) is exchanged where there is
    one; in the others a whole part, for that of another caption, which needs no lists."""
    negatives: int = 0
    """Images and captions of the whole set, drawn for each step, from which the composed losses and the description
    loss have sentences told, too. Their features are known already, so that thousands cost next to nothing."""
    alike: int = 1
    """Images that look alike come into a batch together in groups of so many: hard negatives."""
    validation: int = 500
    """Images kept out of training to measure on, at most a tenth of all."""
    seed: int = 0

    # -- only for `lincir`
    keywords: Literal["nouns", "runs"] = "nouns"
    """What the pseudo-word replaces in a caption. `nouns`: runs of nouns and the adjectives before them. `runs`: runs
    of nouns, adjectives and determiners, and a random word where there are none."""
    text_noise: Literal["relative", "unit"] = "relative"
    """`relative`: the network sees the text feature at the length of the image's, and noise of up to that length.
    `unit`: the raw text feature, and a random amount up to 1 of noise with variance 1 in each dimension."""
    masked_loss: Literal["cosine", "squared"] = "cosine"
    """One minus the cosine of the two features, or the mean squared difference of the two raw features."""

    # -- only for `searle`
    vocabulary: Literal["captions", "open-images"] = "captions"
    """Where the concepts are from: subjects of the training captions, or the 20,931 class names of Open Images."""
    concepts: int = 5
    """How many of the concepts nearest to an image the network's training draws from."""
    inversion_concepts: int = 5
    """The same for the optimisation that inverts each image."""
    inversion_steps: int = 60
    """Steps of that optimisation."""
    inversion_average: float = 0.0
    """Decay of the exponential average of its words, which then is its result; 0: the last words."""
    inversion_start: Literal["mean", "random"] = "mean"
    """What a word begins as: the mean of all token embeddings, or Gaussian noise of deviation 0.02."""
    inversion_templates: int = 1
    """Among how many sentences the optimisation draws one in each step: 1 or 24."""

    def __post_init__(self) -> None:
        for name in ("epochs", "steps", "batch_size", "alike", "hidden_width", *_COUNTS_OF_SEARLE):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise TrainingError(f"{name} is {value}, but must be at least 1.")
        for name in ("learning_rate", "temperature", "composed_temperature", "clip_norm", "attribute_gain", "epsilon"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise TrainingError(f"{name} is {value}, but must be above 0.")
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                shown = ", ".join(map(str, known))
                raise TrainingError(f"{name} is {getattr(self, name)!r}, but must be one of {shown}.")
        for name in ("average", "attribute_masking", "beta2", "inversion_average"):
            if not 0 <= getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must lie in [0, 1).")
        if not any(vars(self.weights).values()):
            raise TrainingError("All losses have the weight 0, so there is nothing to learn from.")
        if not 0 <= self.word_edits <= 1:
            raise TrainingError(f"word_edits is {self.word_edits}, but must lie in [0, 1].")
        for name in (
            "weight_decay",
            "warmup_steps",
            "validation",
            "decay_epoch",
            "seed",
            "chunk_size",
            "noise",
            "negatives",
        ):
            if getattr(self, name) < 0:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must not be negative.")

    @classmethod
    def from_json(cls, entries: Mapping[str, Any]) -> TrainingConfig:
        """What `dataclasses.asdict` made of a configuration; TypeError if a field is unknown."""
        weights = LossWeights(**entries.get("weights", {}))
        template = Template(**entries.get("template", {}))
        return cls(**{**entries, "weights": weights, "template": template})

    def network(self, encoder: DualEncoder) -> InversionConfig:
        """The network's configuration for an encoder."""
        return InversionConfig(
            encoder.joint_width, encoder.vision_width, encoder.token_width, self.num_latent, self.max_attributes,
            self.threshold, self.layers, self.heads, self.dropout, self.template, self.hidden_width, self.activation,
        )  # fmt: skip

    def total_steps(self, steps_per_epoch: int) -> int:
        """How many steps the training takes."""
        return self.epochs * steps_per_epoch if self.steps is None else self.steps

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0."""
        total_steps = self.total_steps(steps_per_epoch)
        if self.schedule == "warmup-cosine":
            if step < self.warmup_steps:
                return self.learning_rate * (step + 1) / self.warmup_steps
            done = (step - self.warmup_steps) / (total_steps - self.warmup_steps)
            return self.learning_rate * 0.5 * (1 + math.cos(math.pi * done))
        warmup = min(self.warmup_steps, total_steps // 10)
        rate = self.learning_rate * min(1.0, (step + 1) / max(1, warmup))
        if self.schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * step / total_steps))
        if self.schedule == "step" and step >= self.decay_epoch * steps_per_epoch:
            return rate * 0.1
        return rate
