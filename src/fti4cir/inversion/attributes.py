"""Latent local attributes and their dynamic selection (FTI4CIR, section 3.2).

B: batch; P: tokens of the image tower; V: their width; D: joint width; K: latent attributes; M: at most kept.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class AttributeLayer(nn.Module):
    """Pre-norm transformer layer: query, key and value without bias, output with bias; ReLU MLP of ratio 2."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * width, bias=False)
        self.output = nn.Linear(width, width)
        self.norm_mlp = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 2 * width)
        self.narrow = nn.Linear(2 * width, width)

    def forward(self, x: Tensor, outputs: int | None = None) -> Tensor:
        """(B, T, V) -> (B, T, V), or (B, outputs, V): only the first `outputs` tokens are computed."""
        weights, value = self._attend(x, outputs)
        mixed = (weights @ value).transpose(1, 2).flatten(2)
        x = x[:, :outputs] + self.output(mixed)
        return x + self.narrow(F.relu(self.widen(self.norm_mlp(x))))

    def attention(self, x: Tensor) -> Tensor:
        """The attention weights of this layer on input `x`, (B, T, T), mean over the heads."""
        return self._attend(x, None)[0].mean(dim=1)

    def _attend(self, x: Tensor, outputs: int | None) -> tuple[Tensor, Tensor]:
        """Attention weights (B, heads, outputs, T) and values (B, heads, T, V / heads).

        Written out, because on a CPU the gradient of PyTorch's fused attention is several times slower.
        """

        def split(x: Tensor) -> Tensor:  # (B, T, V) -> (B, heads, T, V / heads)
            return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        normed = self.norm_attention(x)
        key, value = map(split, self.key_value(normed).chunk(2, dim=-1))
        query = split(self.query(normed[:, :outputs]))
        return (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(dim=-1), value


class LatentAttributes(nn.Module):
    """K learned queries that gather latent local attributes from the local features."""

    def __init__(self, count: int, width: int, joint_width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(1, count, width))
        self.layers = nn.ModuleList(AttributeLayer(width, heads) for _ in range(layers))
        self.project = nn.Linear(width, joint_width)

    def forward(self, local: Tensor) -> Tensor:
        """Local features (B, P, V) -> latent local attributes (B, K, D), each value in (0, 1)."""
        count = self.queries.shape[1]
        x = torch.cat([self.queries.expand(len(local), -1, -1), local], dim=1)  # (B, K + P, V)
        for layer in self.layers[:-1]:
            x = layer(x)
        x = self.layers[-1](x, outputs=count)  # (B, K, V)
        return torch.sigmoid(self.project(x))

    @torch.no_grad()
    def attention(self, local: Tensor) -> Tensor:
        """Where each attribute looked: (B, K, P), rows summing to one.

        Attention rollout (Abnar and Zuidema, 2020): the product of the layers' attention matrices, each averaged
        with the identity for the residual path. The share on the other queries is dropped, and each row is
        normalised to sum to one.
        """
        count = self.queries.shape[1]
        x = torch.cat([self.queries.expand(len(local), -1, -1), local], dim=1)
        identity = torch.eye(x.shape[1], device=x.device, dtype=x.dtype)
        rollout = identity.expand(len(x), -1, -1)
        for layer in self.layers:
            assert isinstance(layer, AttributeLayer)  # the type of a module list does not name its items
            rollout = (layer.attention(x) + identity) / 2 @ rollout
            x = layer(x)
        looked = rollout[:, :count, count:]
        return looked / looked.sum(dim=-1, keepdim=True)


class Selection(NamedTuple):
    """Which attributes of an image become words.

    `indices` (B, M): the n kept attributes first, in the order of their index, then the remaining M - n by
    decreasing relevance. `counts` (B,): n, at least 1. `relevance` (B, K): sums to one over K.
    """

    indices: Tensor
    counts: Tensor
    relevance: Tensor


def select(latent: Tensor, image: Tensor, most: int, threshold: float | None) -> Selection:
    """Dynamic selection of the relevant attributes.

    Relevance is the softmax over the K attributes of their inner product with the image feature, which is
    not normalised. Attributes above `threshold` are kept, at least one and at most `most`.

    Args:
        latent: (B, K, D) latent local attributes.
        image: (B, D) image features.
        most: M, at most K.
        threshold: 0 to 1; None keeps all M (no dynamic selection).

    """
    relevance = torch.einsum("bkd,bd->bk", latent, image).softmax(dim=-1)
    order = relevance.topk(most, dim=-1).indices  # (B, M), by decreasing relevance
    if threshold is None:
        counts = torch.full((len(latent),), most, device=latent.device)
    else:
        counts = (relevance > threshold).sum(dim=-1).clamp(1, most)
    place = torch.arange(most, device=latent.device).expand_as(order)
    kept = place < counts[:, None]
    # One sort gives both orders: kept attributes by their index (< K), then the others by rank.
    key = torch.where(kept, order, latent.shape[1] + place)
    return Selection(order.gather(1, key.argsort(dim=-1)), counts, relevance)
