"""The settings of a training, in one dataclass: the engine's, the network's, and those of the method that learns."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from ..captions.split import RULES, Rule
from ..errors import TrainingError
from ..inversion.network import NetworkConfig
from .losses import LossWeights

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "optimizer": ("adamw", "adam", "sgd"),
    "schedule": ("step", "cosine", "warmup-cosine", "constant"),
    "caption_split": RULES,
}


@dataclass(frozen=True, kw_only=True)
class Options:
    """The settings of an objective. Each method adds its own fields, all with defaults."""

    weights: LossWeights = field(default_factory=LossWeights)
    """The weight of each of its losses."""


AnyOptions = TypeVar("AnyOptions", bound=Options)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """All settings that decide the result of a training.

    The defaults are the paper's, as in its release, except for `caption_split`.
    """

    method: str = "fti4cir"
    """What learns: a name in `methods.registry.trainable()`."""
    network: NetworkConfig = field(default_factory=NetworkConfig)
    """The network that is trained."""
    options: Options = field(default_factory=Options)
    """The method's own settings."""

    # -- duration and optimiser
    epochs: int = 60
    """How often each image is seen, with one of its captions."""
    steps: int | None = None
    """All steps of the training, which then replaces `epochs`; None: as many as the epochs take."""
    batch_size: int = 256
    """Images a step, over all devices; with the contrastive losses, more is not only faster."""
    chunk_size: int = 0
    """Images that pass the network at a time on one device, for a batch that does not fit into memory; 0: all. The
    loss is that of the whole batch (cached gradients; Gao et al., 2021), at the price of a second forward pass."""
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    """`sgd` with a momentum of 0.9."""
    learning_rate: float = 4e-5
    weight_decay: float = 0.01
    decay_biases: bool = True
    """Whether the weight decay acts on biases and other vectors too, or on matrices alone."""
    beta2: float = 0.999
    """Adam's decay of the average of squared gradients."""
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
    """The largest norm of the gradient; None: no limit."""
    ema_decay: float = 0.0
    """Decay of the exponential moving average of the weights, which is then what is saved; 0: the last weights."""
    bfloat16: bool = False
    """Run the step in bfloat16 where the processor multiplies it in hardware."""
    attribute_gain: float = 1.0
    """Scale of the initial weights that turn the attribute transformer's outputs into latent attributes. With 1 all
    images start with nearly the same attributes; a small encoder then never learns to distinguish them."""

    # -- data
    caption_split: Rule = "words"
    """How a caption is split into subject and attribute: as the release does it, or ours; see `captions.split`."""
    hard_group_size: int = 1
    """Images that look alike come into a batch together in groups of this size: hard negatives."""
    validation: int = 500
    """Images kept out of training to measure on, at most a tenth of all."""
    seed: int = 0

    def __post_init__(self) -> None:
        require_at_least_one(self, "epochs", "steps", "batch_size", "hard_group_size")
        require_above_zero(self, "learning_rate", "clip_norm", "attribute_gain", "epsilon")
        require_choices(self, _CHOICES)
        require_shares(self, "ema_decay", "beta2")
        require_not_negative(self, "weight_decay", "warmup_steps", "validation", "decay_epoch", "seed", "chunk_size")

    @classmethod
    def from_json(cls, entries: Mapping[str, Any], options: type[Options] = Options) -> TrainingConfig:
        """What `dataclasses.asdict` made of a configuration with such options, by this version or an older one.

        Fields that are missing have their defaults. TypeError if a field is unknown.
        """
        nested = entries if "options" in entries else from_flat(entries, options)
        config: TrainingConfig = _rebuilt(cls(options=options()), nested)
        return config

    def options_as(self, kind: type[AnyOptions]) -> AnyOptions:
        """The options, of the kind that an objective has. TrainingError if they are another method's."""
        if not isinstance(self.options, kind):
            raise TrainingError(f"The options are {type(self.options).__name__}, but must be {kind.__name__}.")
        return self.options

    def settings(self) -> dict[str, Any]:
        """All settings by name, as `network.layers`; the method's options by their own names, as `weights.masked`."""
        entries = asdict(self)
        options = entries.pop("options")
        return _flat({**entries, **options})

    def with_settings(self, changes: Mapping[str, Any]) -> TrainingConfig:
        """A copy with some settings changed, by their names in `settings`, or a whole group, as `weights`.

        >>> TrainingConfig().with_settings({"network.layers": 2, "seed": 1}).network.layers
        2

        Raises:
            TrainingError: if a setting is unknown, or a value makes no sense.
            ModelError: if a value of the network makes no sense.

        """
        known = self.settings()
        groups = {name[:place] for name in known for place, sign in enumerate(name) if sign == "."}
        for name in changes:
            if name not in known and name not in groups:
                raise TrainingError(f"There is no setting {name!r}; there are {', '.join(sorted(known))}.")
        own = {part.name for part in fields(self)}
        ours = {name: value for name, value in changes.items() if name.partition(".")[0] in own}
        theirs = {name: value for name, value in changes.items() if name not in ours}
        if theirs:
            ours["options"] = _changed(self.options, theirs)
        config: TrainingConfig = _changed(self, ours)
        return config

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


# -- nested dataclasses ---------------------------------------------------------------------------------------
def _flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested entries by dotted names."""
    flat: dict[str, Any] = {}
    for name, value in entries.items():
        flat.update(_flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def _changed(part: Any, changes: Mapping[str, Any]) -> Any:
    """A dataclass with some fields changed, by dotted names, each dataclass in it replaced once."""
    whole = {name: value for name, value in changes.items() if "." not in name}
    for group in dict.fromkeys(name.partition(".")[0] for name in changes if "." in name):
        inner = {name[len(group) + 1 :]: value for name, value in changes.items() if name.startswith(f"{group}.")}
        whole[group] = _changed(whole.get(group, getattr(part, group)), inner)
    return replace(part, **whole)


def _rebuilt(blank: Any, entries: Mapping[str, Any]) -> Any:
    """A dataclass from what `asdict` made of it; `blank` is one with defaults, for the types of its parts."""
    values = {}
    for name, value in entries.items():
        default = getattr(blank, name, None)
        values[name] = _rebuilt(default, value) if is_dataclass(default) else value
    return replace(blank, **values)


# -- the format of older versions -----------------------------------------------------------------------------
_RENAMED = {"alike": "hard_group_size", "average": "ema_decay", "negatives": "extra_negatives"}
_OF_METHODS = frozenset({
    "contrast", "temperature", "composed_temperature", "attribute_masking", "noise", "word_edits", "extra_negatives",
    "keywords", "text_noise", "masked_loss", "vocabulary", "concepts", "inversion_concepts", "inversion_steps",
    "inversion_average", "inversion_start", "inversion_templates",
})  # fmt: skip
"""Settings that every configuration had, whatever its method."""


def from_flat(entries: Mapping[str, Any], options: type[Options]) -> dict[str, Any]:
    """THE OLD FORMAT: up to version 1, a configuration had all methods' settings side by side; to today's entries.

    Checkpoints with it can be resumed. What belongs to other methods is left out: it had no effect.
    """
    flat = {_RENAMED.get(name, name): value for name, value in entries.items()}
    network = {part.name: flat.pop(part.name) for part in fields(NetworkConfig) if part.name in flat}
    weights = flat.pop("weights", {})
    mine: dict[str, Any] = {}
    for name, value in vars(options()).items():
        if name == "weights":
            mine[name] = {loss: weights[loss] for loss in vars(value) if loss in weights}
        elif is_dataclass(value):  # such as inversion.steps, which was inversion_steps
            mine[name] = {
                part.name: flat[f"{name}_{part.name}"] for part in fields(value) if f"{name}_{part.name}" in flat
            }
        elif name in flat:
            mine[name] = flat[name]
    rest = {name: value for name, value in flat.items() if name not in _OF_METHODS}
    return {**rest, "network": network, "options": mine}


# -- what makes sense -----------------------------------------------------------------------------------------
def require_at_least_one(settings: Any, *names: str) -> None:
    """TrainingError unless the settings of these names are at least 1, or None."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise TrainingError(f"{name} is {value}, but must be at least 1.")


def require_above_zero(settings: Any, *names: str) -> None:
    """TrainingError unless they are finite and above 0, or None."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise TrainingError(f"{name} is {value}, but must be above 0.")


def require_not_negative(settings: Any, *names: str) -> None:
    """TrainingError if one of them is below 0."""
    for name in names:
        if getattr(settings, name) < 0:
            raise TrainingError(f"{name} is {getattr(settings, name)}, but must not be negative.")


def require_shares(settings: Any, *names: str) -> None:
    """TrainingError unless they lie in [0, 1)."""
    for name in names:
        if not 0 <= getattr(settings, name) < 1:
            raise TrainingError(f"{name} is {getattr(settings, name)}, but must lie in [0, 1).")


def require_choices(settings: Any, choices: Mapping[str, tuple[str | int, ...]]) -> None:
    """TrainingError unless each is one of its choices."""
    for name, known in choices.items():
        if getattr(settings, name) not in known:
            shown = ", ".join(map(str, known))
            raise TrainingError(f"{name} is {getattr(settings, name)!r}, but must be one of {shown}.")
