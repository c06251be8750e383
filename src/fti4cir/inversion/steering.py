"""How far a modification moves a query, and how much the reference image itself counts: arithmetic on features.

A query has three features of unit length: v of the image itself, t0 of its pseudo-sentence without the modification,
and t of the composed sentence. With a strength a and a balance b the steered query is

    q = (1 - b) t0 + b v + a (t - t0)

scaled to unit length. Strength 1 and balance 0 give t, the query as trained. With strength 0 the text has no effect.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import InputError

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class ComposedQueries:
    """The features of B queries of an image and a text. Each is unit length, (B, D).

    They are computed once; `at` then gives the query for any strength and balance without an encoder.
    """

    image: Tensor
    """Of the reference images."""
    plain: Tensor
    """Of the pseudo-sentences without the modification."""
    composed: Tensor
    """Of the composed sentences: the queries as trained."""

    def at(self, *, strength: float = 1.0, balance: float = 0.0) -> Tensor:
        """The queries for a strength and a balance, unit length, (B, D).

        Raises:
            InputError: as of `check_steering`.

        """
        check_steering(strength, balance=balance)
        if (strength, balance) == (1.0, 0.0):  # so that it is this one to the bit
            return self.composed
        start = (1 - balance) * self.plain + balance * self.image
        mixed = start + strength * (self.composed - self.plain)
        return mixed / mixed.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def check_steering(strength: float, *, balance: float) -> None:
    """InputError unless the strength is a number of at least 0 and the balance one from 0 to 1."""
    if not (math.isfinite(strength) and strength >= 0):
        raise InputError(f"The strength is {strength}, but must be a number of at least 0; 1 is as trained.")
    if not 0 <= balance <= 1:
        raise InputError(f"The balance is {balance}, but must be from 0 (as trained) to 1.")
