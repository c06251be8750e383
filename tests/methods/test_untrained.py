"""The methods that learn nothing."""

from pathlib import Path

import pytest
import torch

from fti4cir.backbones.base import VisionFeatures
from fti4cir.errors import InputError
from fti4cir.methods.caption import Captioned
from fti4cir.methods.image import ImageOnly
from fti4cir.methods.sum import WeightedSum
from fti4cir.methods.text import TextOnly
from fti4cir.models.queries import Queries

pytestmark = pytest.mark.numeric

DIRECTIONS = {"right": (1.0, 0.0), "up": (0.0, 1.0), "left": (-1.0, 0.0)}


class Compass:
    """Two dimensions; a text is a direction. Keeps what it was asked to encode."""

    def __init__(self):
        self.asked = []

    def encode_texts(self, texts, allow_blank=False):
        self.asked.append(list(texts))
        return torch.tensor([DIRECTIONS[text] for text in texts])


def pictures(*vectors):
    return VisionFeatures(image=torch.tensor(vectors), local=torch.zeros(len(vectors), 1, 1))


def test_image_alone():
    composed = ImageOnly().compose(Queries(pictures((3.0, 4.0), (0.0, -2.0)), ["up", "right"]))
    assert torch.allclose(composed, torch.tensor([[0.6, 0.8], [0.0, -1.0]]))


def test_text_alone_encodes_each_text_once_and_keeps_the_order():
    model = Compass()
    composed = TextOnly(model).compose(Queries(pictures(*[(3.0, 4.0)] * 4), ["up", "left", "up", "right"]))
    assert composed.tolist() == [[0, 1], [-1, 0], [0, 1], [1, 0]]
    assert model.asked == [["up", "left", "right"]]


def test_sum_weighs_unit_vectors():
    features = pictures((10.0, 0.0))  # ten times as long, of no more weight
    half = WeightedSum(Compass()).compose(Queries(features, ["up"]))
    assert torch.allclose(half, torch.tensor([[0.5, 0.5]]) * 2**0.5)
    mostly_image = WeightedSum(Compass(), image_weight=0.8).compose(Queries(features, ["up"]))
    assert torch.allclose(mostly_image, torch.nn.functional.normalize(torch.tensor([[0.8, 0.2]])))


def test_sum_at_its_ends_is_one_of_the_two():
    queries = Queries(pictures((3.0, 4.0), (1.0, 0.0)), ["up", "left"])
    model = Compass()
    assert torch.allclose(WeightedSum(model, 1.0).compose(queries), ImageOnly().compose(queries))
    assert torch.allclose(WeightedSum(model, 0.0).compose(queries), TextOnly(model).compose(queries))


def test_opposites_have_no_sum():
    assert WeightedSum(Compass()).compose(Queries(pictures((1.0, 0.0)), ["left"])).tolist() == [[0, 0]]


class Reader:
    """Keeps what it was asked to encode; each text is its own direction."""

    def __init__(self):
        self.asked = []

    def encode_texts(self, texts, allow_blank=False):
        self.asked += texts
        return torch.eye(len(texts))


def test_a_caption_stands_for_the_image(tmp_path, monkeypatch):
    photos = tmp_path / "photos"
    (photos / "in").mkdir(parents=True)
    for name in ("a.png", "in/b.png"):
        (photos / name).touch()
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\na.png,a red dog\na.png,another\nb.png,two cats\n")
    model = Reader()
    monkeypatch.chdir(tmp_path)
    method = Captioned.read(model, Path("photos"), table)
    files = [photos / "in" / "b.png", photos / "a.png"]
    features = pictures((1.0, 0.0), (0.0, 1.0))
    composed = method.compose(Queries(features, ["in blue", "running", "asleep"], [1, 0, 1], files))
    assert model.asked == [
        "a photo of a red dog but in blue", "a photo of two cats but running", "a photo of a red dog but asleep",
    ]  # fmt: skip
    assert composed.tolist() == torch.eye(3).tolist()
    method.compose(Queries(features, ["up", "down"], paths=files))
    assert model.asked[3:] == ["a photo of two cats but up", "a photo of a red dog but down"]


def test_an_image_without_a_caption_is_named():
    method = Captioned(Reader(), {Path("a.png").absolute(): "a dog"})
    queries = Queries(pictures((1.0, 0.0), (0.0, 1.0)), ["up"], [0], [Path("a.png"), Path("b.png")])
    with pytest.raises(InputError, match=r"^The image b\.png has no caption; .*`fti4cir caption FOLDER --output"):
        method.compose(queries)
    with pytest.raises(ValueError, match="paths"):
        method.compose(Queries(queries.features, ["up"], [0]))


@pytest.mark.parametrize("weight", [-0.1, 1.1, float("nan")])
def test_weights_out_of_range(weight):
    with pytest.raises(InputError, match="from 0 to 1"):
        WeightedSum(Compass(), weight)
