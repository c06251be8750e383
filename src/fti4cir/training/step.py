"""One step of a training: the gradient of a batch, in chunks or over several processes, and the optimiser's move."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ..backbones.base import DualEncoder
from ..features.cache import Features, StreamedFeatures
from .config import TrainingConfig
from .distributed import World
from .objective import Batch, Objective
from .state import State, seed_torch

_DIVERGED = 5.0
"""A loss of this many times the first step's ends the training."""


class Stepper:
    """Takes steps with an objective."""

    def __init__(
        self,
        config: TrainingConfig,
        objective: Objective,
        *,
        encoder: DualEncoder,
        features: Features | StreamedFeatures,
        world: World,
    ) -> None:
        self._config, self._objective, self._world = config, objective, world
        self._features, self._device = features, encoder.device

    def take(self, state: State, batch: Batch, *, rate: float) -> dict[str, float]:
        """Learn from one batch; gives the step's figures. TrainingError if they are no longer numbers."""
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        state.optimizer.zero_grad()
        terms, count = self.backward(state, batch)
        total = self._objective.weights.total(terms)
        norm = self._clip(state)
        if not (torch.isfinite(total) and torch.isfinite(norm)):
            raise state.diverged(f"the loss is {total.item()} and its gradient's norm {norm.item()}")
        if state.step == 0:
            state.first_total = total.item()
        # The losses are bounded or logarithms: an untrained network starts near the worst of them.
        elif total.item() > _DIVERGED * state.first_total:
            raise state.diverged(f"the loss is {total.item():.3g}, where it began with {state.first_total:.3g}")
        state.optimizer.step()
        state.step += 1
        state.update_average()
        figures = {**terms, "total": total, "attributes": count}
        return {name: value.item() for name, value in figures.items()}

    def _clip(self, state: State) -> Tensor:
        """The norm of the gradient, which is then scaled down to the configuration's limit."""
        gradients = [value.grad for value in state.network.parameters() if value.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(state.network.parameters(), self._config.clip_norm, norm)
        return norm

    def backward(self, state: State, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """Compute the gradient of a batch's loss; gives the losses by name, and the mean number of attribute words.

        Where the batch passes in chunks, the gradient of each output is computed first, from all of them, and then
        passed to the network chunk by chunk.
        """
        chunks = self._chunks(batch)
        first = self._world.rank * len(chunks)

        def outputs(number: int) -> dict[str, Tensor]:
            seed_torch(self._config.seed, 1 + state.step, first + number)
            with precision(self._config, self._device):
                return self._objective.outputs(state.network, chunks[number])

        if len(chunks) == 1:
            own = outputs(0)
        else:
            with torch.no_grad():
                parts = [outputs(number) for number in range(len(chunks))]
            own = {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in parts[0]}
        everything = {name: self._world.gather(values) for name, values in own.items()}
        terms = self._objective.terms(everything, batch)
        self._objective.weights.total(terms).backward()
        start = 0
        for number, chunk in enumerate(chunks if len(chunks) > 1 else []):
            stop = start + len(chunk.rows)
            _pass_on(outputs(number), own, start, stop)
            start = stop
        self._world.add_gradients(state.network.parameters())
        words = everything.get("count")
        return terms, torch.zeros(()) if words is None else words.detach().mean()

    def _chunks(self, batch: Batch) -> list[Batch]:
        """This process's share of a batch, in parts that pass the network together."""
        share = len(batch.rows) // self._world.size
        own = batch.part(self._world.rank * share, (self._world.rank + 1) * share)
        if self._objective.needs.local:
            own = replace(own, local=self._features.take(own.rows, self._device).local)
        size = self._config.chunk_size or share
        count = math.ceil(share / size)
        return [own.part(number * size, min((number + 1) * size, share)) for number in range(count)]


def _pass_on(outputs: dict[str, Tensor], whole: dict[str, Tensor], start: int, stop: int) -> None:
    """Pass the gradient of rows `start` to `stop` of the whole batch's outputs to the network, by a chunk's outputs."""
    wanted = {
        name: gradient[start:stop]
        for name, values in whole.items()
        if (gradient := values.grad) is not None and outputs[name].requires_grad
    }
    torch.autograd.backward([outputs[name] for name in wanted], list(wanted.values()))


@contextlib.contextmanager
def precision(config: TrainingConfig, device: torch.device) -> Iterator[None]:
    """bfloat16 where the configuration wants it and the processor multiplies it in hardware."""
    fast = config.bfloat16 and (
        torch.cuda.is_bf16_supported() if device.type == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )
    with torch.autocast(device.type, torch.bfloat16, enabled=bool(fast)):
        yield
