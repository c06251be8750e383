"""Sentences of several lengths as one row of tokens, without padding.

Padding a batch to its longest sentence doubles the work of a text tower on typical captions. In a packed batch, linear
layers and norms see only real tokens, and attention runs once for all sentences of the same length.
"""

from __future__ import annotations

import torch
from torch import Tensor


class Packing:
    """How B sentences, padded to T tokens, stand in one row of N tokens: those of equal length side by side.

    Args:
        lengths: (B,) the number of tokens in each sentence.
        padded: T.
        exact: leave out all padding. Otherwise, on a GPU, all sentences count as T tokens long: many small attentions
            cost more there than the padding, and causal attention never sees the padding.

    """

    def __init__(self, lengths: Tensor, padded: int, *, exact: bool = False) -> None:
        spans = lengths if exact or lengths.device.type == "cpu" else torch.full_like(lengths, padded)
        order = spans.argsort(stable=True)  # (B,)
        places = torch.arange(padded, device=lengths.device).expand(len(lengths), -1)
        row, self.positions = (places < spans[order, None]).nonzero(as_tuple=True)  # (N,) each
        self._sentences = order[row]  # (N,)
        self._tokens = self._sentences * padded + self.positions
        starts = torch.empty_like(spans)
        starts[order] = spans[order].cumsum(0) - spans[order]
        self._ends = starts + lengths - 1
        self._lengths = lengths
        unique, counts = spans[order].unique_consecutive(return_counts=True)
        self._groups = list(zip(counts.tolist(), unique.tolist(), strict=True))

    def pack(self, padded: Tensor) -> Tensor:
        """(B, T, W) -> (N, W)."""
        return padded.flatten(0, 1).index_select(0, self._tokens)

    def ends(self, packed: Tensor) -> Tensor:
        """(N, W) -> (B, W), the last token of each sentence."""
        return packed.index_select(0, self._ends)

    def mean(self, packed: Tensor) -> Tensor:
        """(N, W) -> (B, W), the mean of each sentence's tokens; needs an exact packing."""
        sums = packed.new_zeros(len(self._lengths), packed.shape[1])
        return sums.index_add(0, self._sentences, packed) / self._lengths[:, None]

    def attend(self, qkv: Tensor, heads: int, *, causal: bool) -> Tensor:
        """Queries (scaled already), keys and values (N, 3 W) -> what each token reads of its sentence, (N, W).

        With `causal`, a token reads only itself and the tokens before it. PyTorch's fused attention is not used because
        its gradient is several times slower on a CPU.
        """
        read = [qkv[:0, : qkv.shape[1] // 3]]  # if there are no sentences
        for part, (count, length) in zip(qkv.split([n * t for n, t in self._groups]), self._groups, strict=True):
            query, key, value = part.view(count, length, 3, heads, -1).permute(2, 0, 3, 1, 4)
            scores = query @ key.transpose(-2, -1)  # (n, heads, t, t)
            if causal:
                scores = scores + torch.full_like(scores[0, 0], float("-inf")).triu(1)
            read.append((scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(count * length, -1))
        return torch.cat(read)
