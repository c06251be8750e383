"""An image's feature, and a text's, is the same alone, in any batch and at any position, but for rounding."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import fti4cir
from fti4cir.models.model import Model
from tinyclip import picture, random_inversion

pytestmark = pytest.mark.numeric

IN_BFLOAT16, IN_FLOAT32 = 1e-3, 1e-5
"""The most by which a cosine may differ from 1. The image tower of `mini` runs in bfloat16 where the processor has
it in hardware: eight bits, which products of other sizes round at other places. All else is in float32."""
MOST = 6


@pytest.fixture(scope="module", params=["mini", "tiny"])
def model(request: pytest.FixtureRequest, encoder: object) -> Model:
    return fti4cir.load("mini") if request.param == "mini" else Model(encoder, random_inversion(), "tiny")


@pytest.fixture(scope="module")
def alone(model: Model) -> dict[str, torch.Tensor]:
    """Each image's and each sentence's features, made one by one."""
    pictures = [picture(seed) for seed in range(MOST)]
    return {
        "image": torch.cat([model.encode_images([one]) for one in pictures]),
        "text": torch.cat([model.encode_texts([text]) for text in texts()]),
        "composed": torch.cat([model.compose([one], [text]) for one, text in zip(pictures, texts(), strict=True)]),
    }


def texts() -> list[str]:
    """Of different lengths."""
    return [" and ".join(["a red dog"] * (1 + number % 5)) + f" {number}" for number in range(MOST)]


@settings(max_examples=5, deadline=None)
@given(st.lists(st.integers(0, MOST - 1), min_size=1, max_size=MOST), st.integers(1, MOST))
def test_batch_and_position_make_no_difference(
    model: Model, alone: dict[str, torch.Tensor], drawn: list[int], batch_size: int
) -> None:
    pictures, said = [picture(seed) for seed in drawn], [texts()[number] for number in drawn]
    together = {
        "image": model.encode_images(pictures, batch_size),
        "text": model.encode_texts(said, batch_size),
        "composed": model.compose(pictures, said, batch_size=batch_size),
    }
    fast = model.name == "mini" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    for kind, features in together.items():
        cosines = (features * alone[kind][drawn]).sum(dim=1)
        assert (1 - cosines).abs().max() <= (IN_BFLOAT16 if fast else IN_FLOAT32), kind
