"""Packed sentences against each sentence on its own, by PyTorch's own attention."""

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from fti4cir.backbones.packing import Packing

pytestmark = pytest.mark.numeric

LENGTHS = torch.tensor([3, 5, 1, 3, 6])
HEADS, WIDTH = 2, 8


@pytest.fixture
def padded() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(len(LENGTHS), 7, 3 * WIDTH)


def test_pack_keeps_each_real_token_once(padded: Tensor) -> None:
    packing = Packing(LENGTHS, 7)
    packed = packing.pack(padded)
    real = [sentence[:length] for sentence, length in zip(padded, LENGTHS, strict=True)]
    assert sorted(packed[:, 0].tolist()) == sorted(torch.cat(real)[:, 0].tolist())
    torch.testing.assert_close(packing.ends(packed), torch.stack([sentence[-1] for sentence in real]))


def test_mean_is_of_the_real_tokens(padded: Tensor) -> None:
    packing = Packing(LENGTHS, 7, exact=True)
    expected = [sentence[:length].mean(dim=0) for sentence, length in zip(padded, LENGTHS, strict=True)]
    torch.testing.assert_close(packing.mean(packing.pack(padded)), torch.stack(expected))


def test_positions_count_within_a_sentence(padded: Tensor) -> None:
    numbered = torch.arange(7.0).expand(len(LENGTHS), -1)[..., None]
    packing = Packing(LENGTHS, 7)
    assert packing.positions.tolist() == packing.pack(numbered)[:, 0].tolist()


@pytest.mark.parametrize("causal", [True, False])
def test_attention_and_its_gradient(padded: Tensor, causal: bool) -> None:
    packing = Packing(LENGTHS, 7)
    ours, theirs = padded.clone().requires_grad_(), padded.clone().requires_grad_()
    found = packing.ends(packing.attend(packing.pack(ours), HEADS, causal=causal))
    expected = []
    for sentence, length in zip(theirs, LENGTHS.tolist(), strict=True):
        query, key, value = sentence[:length].view(length, 3, HEADS, -1).permute(1, 2, 0, 3)  # (heads, t, width)
        read = F.scaled_dot_product_attention(query[None], key[None], value[None], is_causal=causal, scale=1.0)
        expected.append(read[0, :, -1].flatten())
    torch.testing.assert_close(found, torch.stack(expected))
    found.square().sum().backward()
    torch.stack(expected).square().sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_no_sentence_at_all() -> None:
    packing = Packing(torch.zeros(0, dtype=torch.long), 7)
    assert packing.attend(packing.pack(torch.randn(0, 7, 3 * WIDTH)), HEADS, causal=True).shape == (0, WIDTH)
