"""The record of queries refuses what does not fit together."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from fti4cir.backbones.base import VisionFeatures
from fti4cir.models.queries import Queries

TWO = VisionFeatures(torch.ones(2, 3), torch.ones(2, 1, 4))


def test_without_an_index_each_text_belongs_to_its_own_image() -> None:
    assert list(Queries(TWO, ["in red", "in blue"]).reference_index) == [0, 1]
    assert list(Queries(TWO, ["in red", "in blue", "smaller"], [1, 0, 1]).reference_index) == [1, 0, 1]


def test_images_without_any_text() -> None:
    assert list(Queries(TWO, []).reference_index) == []


@pytest.mark.parametrize(
    ("texts", "index", "paths", "says"),
    [
        (["in red"], (), (), "2 reference images but 1 texts"),
        (["in red"], [0, 1], (), "1 texts but 2 indexes"),
        (["in red"], [2], (), "index 2 is not a row of 2"),
        (["in red"], [-1], (), "index -1 is not a row of 2"),
        (["in red"], [0], [Path("a.png")], "2 reference images but 1 paths"),
    ],
)
def test_what_does_not_fit_is_refused(
    texts: Sequence[str], index: Sequence[int], paths: Sequence[Path], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        Queries(TWO, texts, index, paths)


def test_features_of_other_images_are_refused() -> None:
    with pytest.raises(ValueError, match="2 image features but 1 local"):
        Queries(VisionFeatures(TWO.image, TWO.local[:1]), ["in red", "in blue"])
