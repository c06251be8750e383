"""The methods that learn nothing, and the table of names."""

import pytest
import torch

from fti4cir.backbones.base import VisionFeatures
from fti4cir.baselines import METHODS, create, require_trainable
from fti4cir.baselines.simple import ImageOnly, TextOnly, WeightedSum
from fti4cir.errors import InputError, ModelError

DIRECTIONS = {"right": (1.0, 0.0), "up": (0.0, 1.0), "left": (-1.0, 0.0)}


class Compass:
    """Two dimensions; a text is a direction. Keeps what it was asked to encode."""

    def __init__(self):
        self.asked = []

    def encode_texts(self, texts):
        self.asked.append(list(texts))
        return torch.tensor([DIRECTIONS[text] for text in texts])

    def compose_features(self, features, texts, owner=None):
        return torch.flip(torch.nn.functional.normalize(features.image, dim=-1), (-1,))[owner or slice(None)]

    def require_inversion(self):
        pass


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
        create("sum", Compass(), image_weight=weight)


@pytest.mark.parametrize("name", METHODS)
def test_every_method_has_its_name_and_gives_unit_vectors(name):
    method = create(name, Compass())
    assert method.name == name
    composed = method.compose(pictures((3.0, 4.0), (1.0, 2.0)), ["up", "up"])
    assert torch.allclose(composed.norm(dim=-1), torch.ones(2))


@pytest.mark.parametrize("name", METHODS)
def test_several_texts_of_one_picture(name):
    method = create(name, Compass())
    features, texts, owner = pictures((3.0, 4.0), (1.0, 2.0)), ["up", "right", "left"], [1, 0, 1]
    repeated = method.compose(pictures((1.0, 2.0), (3.0, 4.0), (1.0, 2.0)), texts)
    assert torch.allclose(method.compose(features, texts, owner), repeated)


def test_fti4cir_without_weights_is_refused_at_once():
    class Bare(Compass):
        def require_inversion(self):
            raise ModelError("no inversion weights")

    with pytest.raises(ModelError, match="no inversion weights"):
        create("fti4cir", Bare())


def test_fti4cir_is_what_the_model_composes():
    assert torch.allclose(
        create("fti4cir", Compass()).compose(pictures((3.0, 4.0)), ["up"]), torch.tensor([[0.8, 0.6]])
    )


@pytest.mark.parametrize("name", ["pic2word", "searle", "lincir", "caption"])
def test_known_but_not_yet(name):
    with pytest.raises(ModelError, match=f"'{name}' is not available yet: .*available are: fti4cir, image, text, sum"):
        create(name, Compass())


def test_unknown():
    with pytest.raises(InputError, match="no method 'magic'; available are: fti4cir, image, text, sum"):
        create("magic", Compass())


def test_what_can_be_trained():
    require_trainable("fti4cir")
    with pytest.raises(InputError, match="'sum' learns nothing"):
        require_trainable("sum")
    with pytest.raises(ModelError, match="'searle' is not available yet"):
        require_trainable("searle")
    with pytest.raises(InputError, match="no method 'magic'"):
        require_trainable("magic")
