"""The methods that learn nothing."""

import pytest
import torch

from fti4cir.backbones.base import VisionFeatures
from fti4cir.baselines.simple import ImageOnly, TextOnly, WeightedSum
from fti4cir.errors import InputError

DIRECTIONS = {"right": (1.0, 0.0), "up": (0.0, 1.0), "left": (-1.0, 0.0)}


class Compass:
    """Two dimensions; a text is a direction. Keeps what it was asked to encode."""

    def __init__(self):
        self.asked = []

    def encode_texts(self, texts):
        self.asked.append(list(texts))
        return torch.tensor([DIRECTIONS[text] for text in texts])


def pictures(*vectors):
    return VisionFeatures(image=torch.tensor(vectors), local=torch.zeros(len(vectors), 1, 1))


def test_image_alone():
    composed = ImageOnly().compose(pictures((3.0, 4.0), (0.0, -2.0)), ["up", "right"])
    assert torch.allclose(composed, torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


def test_text_alone_encodes_each_text_once_and_keeps_the_order():
    model = Compass()
    composed = TextOnly(model).compose(pictures(*[(3.0, 4.0)] * 4), ["up", "left", "up", "right"])
    assert composed.tolist() == [[0, 1], [-1, 0], [0, 1], [1, 0]]
    assert model.asked == [["up", "left", "right"]]


def test_sum_weighs_unit_vectors():
    features = pictures((10.0, 0.0))  # ten times as long, of no more weight
    half = WeightedSum(Compass()).compose(features, ["up"])
    assert torch.allclose(half, torch.tensor([[0.5, 0.5]]) * 2**0.5)
    mostly_image = WeightedSum(Compass(), image_weight=0.8).compose(features, ["up"])
    assert torch.allclose(mostly_image, torch.nn.functional.normalize(torch.tensor([[0.8, 0.2]])))


def test_sum_at_its_ends_is_one_of_the_two():
    features = pictures((3.0, 4.0), (1.0, 0.0))
    texts = ["up", "left"]
    model = Compass()
    assert torch.allclose(WeightedSum(model, 1.0).compose(features, texts), ImageOnly().compose(features, texts))
    assert torch.allclose(WeightedSum(model, 0.0).compose(features, texts), TextOnly(model).compose(features, texts))


def test_opposites_have_no_sum():
    assert WeightedSum(Compass()).compose(pictures((1.0, 0.0)), ["left"]).tolist() == [[0, 0]]


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weights_out_of_range(weight):
    with pytest.raises(InputError, match="from 0 to 1"):
        WeightedSum(Compass(), weight)
