"""The loss functions of all methods: tensors in, a scalar out. FTI4CIR's are those of section 3.3 of its paper.

B batch, D joint width, M selected attributes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import TrainingError


def contrastive(image: Tensor, text: Tensor, temperature: float = 0.20) -> Tensor:
    """Symmetric contrastive loss between image features and the features of their pseudo-sentences.

    Each of the 2B vectors has its partner as the positive and the 2B - 2 others, of both kinds, as
    negatives (NT-Xent; Chen et al., 2020). Mean over 2B.

    Args:
        image: (B, D), any length.
        text: (B, D), any length.
        temperature: above 0.

    Returns:
        A scalar, at least 0; 0 for a batch of one, which has no negatives.

    """
    if temperature <= 0:
        raise TrainingError(f"The temperature is {temperature}, but must be above 0.")
    batch = len(image)
    both = F.normalize(torch.cat([image, text]), dim=-1)  # (2B, D)
    logits = both @ both.T / temperature
    logits = logits.masked_fill(torch.eye(2 * batch, dtype=torch.bool, device=logits.device), float("-inf"))
    partner = torch.arange(2 * batch, device=logits.device).roll(batch)
    return F.cross_entropy(logits, partner)


def contrastive_across(image: Tensor, text: Tensor, temperature: float) -> Tensor:
    """Symmetric contrastive loss of CLIP and Pic2Word: each kind is told from the others of the other kind only.

    The mean of two cross-entropies: which of the B sentences is image i's, and which of the B images is
    sentence i's.

    Args:
        image: (B, D), any length.
        text: (B, D), any length.
        temperature: above 0; CLIP's is one by its logit scale, 0.01.

    Returns:
        A scalar, at least 0; 0 for a batch of one.

    """
    if temperature <= 0:
        raise TrainingError(f"The temperature is {temperature}, but must be above 0.")
    logits = F.normalize(image, dim=-1) @ F.normalize(text, dim=-1).T / temperature  # (B, B)
    own = torch.arange(len(image), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def orthogonality(selected: Tensor) -> Tensor:
    """Mean squared difference between the M x M cosine matrix of the attributes and the identity.

    Args:
        selected: (B, M, D), any length; all M count, kept or not.

    """
    unit = F.normalize(selected, dim=-1)
    identity = torch.eye(unit.shape[1], device=unit.device, dtype=unit.dtype)
    return (unit @ unit.transpose(1, 2) - identity).square().mean()


def regularization(pseudo: Tensor, real: Tensor) -> Tensor:
    """Mean of one minus the cosine between pseudo-sentences and real ones, both (B, D); 0 to 2."""
    return (1 - F.cosine_similarity(pseudo, real, dim=-1)).mean()


def squared_distance(pseudo: Tensor, real: Tensor) -> Tensor:
    """Mean squared difference between the raw features of sentences with pseudo-words and real ones, both (B, D).

    LinCIR's loss. Not bounded: it grows with the squared length of the encoder's features.
    """
    return (pseudo - real).square().mean()


def composed(
    query: Tensor, target: Tensor, others: Tensor, same: Tensor | None = None, temperature: float = 0.07
) -> Tensor:
    """Contrastive loss of sentences with pseudo-words against what they should find; not of the paper, but ours.

    The query "[pseudo-words of image i] but {modification i}" has target i as its positive: the edited
    caption's text feature, or the image feature of an image that this caption describes. Negatives are the
    other targets and the `others`: the captions before the edit, or the reference images, i's own included,
    so that a query which ignores its modification loses to it.

    Args:
        query: (B, D) text features of the composed sentences, any length.
        target: (B, D) features, any length.
        others: (N, D) features, any length.
        same: (B, B + N) bool, which targets and others say the same as target i and so are no negatives for
            query i; what it says of target i itself does not matter.
        temperature: above 0.

    Returns:
        A scalar, at least 0.

    """
    if temperature <= 0:
        raise TrainingError(f"The temperature is {temperature}, but must be above 0.")
    logits = F.normalize(query, dim=-1) @ F.normalize(torch.cat([target, others]), dim=-1).T / temperature
    own = torch.arange(len(query), device=query.device)
    if same is not None:
        same = same.clone()
        same[own, own] = False
        logits = logits.masked_fill(same, float("-inf"))
    return F.cross_entropy(logits, own)


@dataclass(frozen=True, kw_only=True)
class LossWeights:
    """The weight of each loss of a method, which adds a field per loss. Its objective's `terms` have the same names."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not 0 <= value < math.inf:
                raise TrainingError(f"The weight of the loss {name} is {value}, but must not be negative.")
        if vars(self) and not any(vars(self).values()):
            raise TrainingError("All losses have the weight 0, so there is nothing to learn from.")

    def total(self, terms: Mapping[str, Tensor]) -> Tensor:
        """The weighted sum of the named terms, the only place where they are summed."""
        weighted = [getattr(self, name) * value for name, value in terms.items()]
        return torch.stack(weighted).sum() if weighted else torch.zeros((), requires_grad=True)
