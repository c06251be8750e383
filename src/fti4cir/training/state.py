"""The state of a training, its checkpoint, and the optimiser."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from ..backbones.base import DualEncoder
from ..errors import TrainingError
from ..files import replacing, writing
from ..inversion.network import FineGrainedInversion
from .config import TrainingConfig


@dataclass(kw_only=True)
class State:
    """Everything that changes from step to step. Random numbers are not part of it: each step seeds its own."""

    config: TrainingConfig
    network: FineGrainedInversion
    optimizer: torch.optim.Optimizer
    average: dict[str, Tensor]
    """The moving average of the weights, by name."""
    step: int = 0
    """Steps that were taken."""
    saved_step: int | None = None
    """The step of the last checkpoint."""
    first_total: float = math.inf
    """The first step's loss."""
    sums: dict[str, float] = field(default_factory=dict)
    """Of each figure, over the steps since the last report; and the number of steps."""

    @classmethod
    def initial(cls, config: TrainingConfig, encoder: DualEncoder) -> State:
        """The state before the first step, with random weights of the configuration's seed."""
        seed_torch(config.seed, 0)
        network = FineGrainedInversion(config.network.for_encoder(encoder)).to(encoder.device)
        if network.latent is not None:
            with torch.no_grad():
                network.latent.project.weight.mul_(config.attribute_gain)
        average = {name: value.detach().clone() for name, value in network.named_parameters()}
        return cls(config=config, network=network, optimizer=make_optimizer(config, network), average=average)

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights towards the present ones, faster in the first steps."""
        if self.config.ema_decay:
            decay = min(self.config.ema_decay, self.step / (self.step + 10))
            for name, value in self.network.named_parameters():
                self.average[name].lerp_(value, 1 - decay)

    def result(self) -> FineGrainedInversion:
        """A copy of the network to keep: with averaged weights if the configuration has them."""
        network = FineGrainedInversion(self.network.config).to(next(self.network.parameters()).device)
        network.load_state_dict(self.average if self.config.ema_decay else self.network.state_dict())
        return network.eval()

    def add(self, figures: dict[str, float]) -> None:
        """Add a step's figures to the sums."""
        for name, value in {**figures, "steps": 1.0}.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def take_means(self) -> dict[str, float]:
        """The means of the figures since the last call."""
        steps = self.sums.pop("steps")
        means = {name: value / steps for name, value in self.sums.items()}
        self.sums = {}
        return means

    def diverged(self, reason: str) -> TrainingError:
        """The error for a training that cannot go on."""
        kept = "nothing was saved yet" if self.saved_step is None else f"the state of step {self.saved_step} is kept"
        return TrainingError(f"At step {self.step} {reason}; {kept}. Try a smaller learning rate.")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """The file from which a training goes on, and what must be the same for that."""

    folder: Path
    encoder: DualEncoder
    data_key: str
    batch_size: int
    processes: int

    @property
    def file(self) -> Path:
        """The checkpoint."""
        return self.folder / "checkpoint.pt"

    def save(self, state: State) -> None:
        """Replace the file whole. TrainingError if the weights are not finite or the disk refuses it."""
        if not all(torch.isfinite(value).all() for value in state.network.parameters()):
            raise state.diverged("the weights are no longer finite")
        entries = {
            "config": asdict(state.config),
            "encoder": self.encoder.fingerprint,
            "data": self.data_key,
            "batch_size": self.batch_size,
            "step": state.step,
            "inversion": state.network.state_dict(),
            "average": state.average,
            "optimizer": state.optimizer.state_dict(),
            "sums": state.sums,
            "first_total": state.first_total,
        }
        with writing(self.folder, TrainingError), replacing(self.file) as file:
            _save(entries, file)
        state.saved_step = state.step

    def restore(self, state: State) -> None:
        """Take up the checkpoint. TrainingError if it is damaged or of another training."""
        try:
            entries = torch.load(self.file, map_location=self.encoder.device, weights_only=True)
            config = entries["config"]
        except Exception as error:  # of almost any class, depending on the damage
            raise TrainingError(f"The checkpoint {self.file} cannot be read; delete it to start again.") from error
        self._require_settings(config, state.config)
        if entries["encoder"] != self.encoder.fingerprint or entries["data"] != self.data_key:
            raise TrainingError(
                f"The training in {self.folder} was begun with another backbone or other images and captions; "
                "resume it with the same or choose another folder."
            )
        if entries["batch_size"] != self.batch_size:
            raise TrainingError(
                f"The training in {self.folder} was begun with {entries['batch_size']} images a step, which "
                f"{self.processes} processes cannot share evenly; resume it with as many processes as before."
            )
        state.network.load_state_dict(entries["inversion"])
        state.average = entries["average"]
        state.optimizer.load_state_dict(entries["optimizer"])
        state.step = state.saved_step = entries["step"]
        state.sums, state.first_total = entries["sums"], entries["first_total"]

    def _require_settings(self, theirs: dict[str, Any], config: TrainingConfig) -> None:
        """TrainingError unless the checkpoint's settings are the configuration's."""
        ours = config.settings()
        if theirs["method"] == config.method:
            begun = TrainingConfig.from_json(theirs, type(config.options)).settings()
        else:
            begun = {"method": theirs["method"]}
        for name, value in begun.items():
            if ours[name] != value:
                raise TrainingError(
                    f"The training in {self.folder} was begun with {name} = {value}, not {ours[name]}; "
                    "resume it with the same settings or choose another folder."
                )


def _save(entries: dict[str, Any], file: BinaryIO) -> None:
    try:
        torch.save(entries, file)
    except RuntimeError as error:  # torch's writer hides what the system said
        raise OSError(str(error)) from error


def make_optimizer(config: TrainingConfig, network: nn.Module) -> torch.optim.Optimizer:
    """The configuration's optimiser for the weights of a network."""
    # Fused: one pass over the weights instead of a dozen.
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    groups: list[dict[str, Any]] = [{"params": list(network.parameters())}]
    if not config.decay_biases:
        matrices = [value for value in network.parameters() if value.dim() > 1]
        vectors = [value for value in network.parameters() if value.dim() <= 1]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, **settings)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, betas=(0.9, config.beta2), eps=config.epsilon, **settings)


def seed_torch(*numbers: int) -> None:
    """Set PyTorch's random numbers to the stream of these numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))
