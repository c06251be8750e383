"""Several processes that train one network together, as `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """All processes of a training, seen from one of them; alone, every operation is trivial."""

    rank: int = 0
    size: int = 1
    device: torch.device | None = None
    """Where this process works; None: wherever a process that is alone would."""

    @property
    def is_first(self) -> bool:
        """Whether this is the process that speaks and writes."""
        return self.rank == 0

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.size > 1:
            distributed.barrier()

    def first(self, action: Callable[[], T]) -> T:
        """What `action` gives in the first process, told to all."""
        if self.size == 1:
            return action()
        result = [action() if self.is_first else None]
        distributed.broadcast_object_list(result, device=self.device)
        return result[0]  # type: ignore[return-value]

    def gather(self, part: Tensor) -> Tensor:
        """The rows (B, ...) of all processes, as many of each, in the order of their ranks: (size * B, ...).

        A gradient reaches this process's own rows only. Where every process derives the same loss from the result,
        the sum of their gradients over all processes is therefore the whole one; see `add_gradients`.
        """
        if self.size == 1:
            return part
        parts = [torch.empty_like(part) for _ in range(self.size)]
        distributed.all_gather(parts, part.detach().contiguous())
        parts[self.rank] = part
        return torch.cat(parts)

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients over all processes."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        # At one go, for each message costs a round trip.
        flat = torch.cat([gradient.flatten() for gradient in gradients])
        distributed.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))


@contextmanager
def world() -> Iterator[World]:
    """The processes that `torchrun` started this one with; else this one alone."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    device = None
    if torch.cuda.is_available():
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
    # The first process may validate for long while the others wait in an operation.
    distributed.init_process_group("nccl" if device else "gloo", timeout=timedelta(days=1))
    try:
        yield World(distributed.get_rank(), size, device)
    finally:
        distributed.destroy_process_group()
