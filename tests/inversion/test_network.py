"""The network's configuration, and what it makes without attributes."""

from typing import Any

import pytest
import torch

from fti4cir.errors import ModelError
from fti4cir.inversion.network import InversionConfig
from tinyclip import JOINT, TOKEN, VISION, random_inversion


@pytest.mark.parametrize(
    "wrong",
    [
        {"joint_width": 0},
        {"num_latent": 0},
        {"max_attributes": 25},
        {"max_attributes": -1},
        {"heads": 5},
        {"threshold": 1.0},
        {"threshold": -0.1},
        {"dropout": 1.0},
    ],
    ids=str,
)
def test_contradictions_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ModelError, match=next(iter(wrong))):
        InversionConfig(**{"joint_width": 8, "vision_width": 8, "token_width": 8, **wrong})


def test_shapes() -> None:
    words = random_inversion()(torch.randn(3, JOINT), torch.randn(3, 17, VISION))
    assert words.subject.shape == (3, TOKEN)
    assert words.attributes.shape == (3, 4, TOKEN)
    assert words.relevance.shape == (3, 6)
    torch.testing.assert_close(words.selected.norm(dim=-1), torch.ones(3, 4))


def test_without_attributes_there_is_only_a_subject() -> None:
    inversion = random_inversion(max_attributes=0)
    words = inversion(torch.randn(3, JOINT), torch.randn(3, 17, VISION))
    assert words.subject.shape == (3, TOKEN)
    assert words.attributes.shape == (3, 0, TOKEN)
    assert words.counts.tolist() == [0, 0, 0]
    assert all(name.startswith("subject.") for name in inversion.state_dict())
