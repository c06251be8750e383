"""The table of methods, and what learned methods share."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

import fti4cir
from fti4cir.backbones.base import VisionFeatures
from fti4cir.errors import InputError, ModelError
from fti4cir.methods import registry
from fti4cir.methods.registry import assign, create, learner, trainable
from fti4cir.methods.searle import SEARLE
from fti4cir.models.queries import Queries
from fti4cir.training.objective import noised

WORDS = {"right": (1.0, 0.0), "up": (0.0, 1.0), "left": (-1.0, 0.0)}


class Compass:
    """A model in two dimensions: a text is a direction, and composing mirrors the image."""

    name = "compass"
    encoder = None

    def __init__(self, method: str) -> None:
        self.method, self.extra = method, {}

    def encode_texts(self, texts: Sequence[str], *, allow_blank: bool = False) -> Tensor:
        return torch.tensor([WORDS[text] for text in texts])

    def compose_features(self, queries: Queries, *, allow_blank: bool = False) -> Tensor:
        return torch.nn.functional.normalize(queries.features.image, dim=-1).flip(-1)[list(queries.reference_index)]

    def require_inversion(self) -> None:
        """It has one."""


def pictures(*vectors: tuple[float, float]) -> VisionFeatures:
    return VisionFeatures(torch.tensor(vectors), torch.zeros(len(vectors), 1, 1))


@pytest.mark.parametrize("name", [*trainable(), "image", "text", "sum"])
def test_every_method_has_its_name_and_gives_unit_vectors(name: str) -> None:
    method = create(name, Compass(name))
    assert method.name == name
    composed = method.compose(Queries(pictures((3.0, 4.0), (1.0, 2.0)), ["up", "up"]))
    torch.testing.assert_close(composed.norm(dim=-1), torch.ones(2))


@pytest.mark.parametrize("name", [*trainable(), "image", "text", "sum"])
def test_several_texts_of_one_image(name: str) -> None:
    method = create(name, Compass(name))
    features, texts = pictures((3.0, 4.0), (1.0, 2.0)), ["up", "right", "left"]
    repeated = method.compose(Queries(pictures((1.0, 2.0), (3.0, 4.0), (1.0, 2.0)), texts))
    torch.testing.assert_close(method.compose(Queries(features, texts, [1, 0, 1])), repeated)


def test_the_names() -> None:
    assert registry.names() == (
        "fti4cir", "lincir", "pic2word", "searle", "caption", "image", "searle-oti", "sum", "text",
    )  # fmt: skip
    assert trainable() == ("fti4cir", "lincir", "pic2word", "searle")
    for name in trainable():
        one = learner(name)
        assert {config.method for config in one.presets.values()} == {name}
        assert one.default in one.presets


@pytest.mark.parametrize("name", registry.names())
def test_what_the_source_says_of_a_method_is_what_its_module_says(name: str) -> None:
    entry = registry.find(name)
    assert (entry.learner is not None) == (name in trainable())


def test_a_learned_method_is_what_the_model_composes() -> None:
    composed = create("fti4cir", Compass("fti4cir")).compose(Queries(pictures((3.0, 4.0)), ["up"]))
    torch.testing.assert_close(composed, torch.tensor([[0.8, 0.6]]))


def test_without_weights_a_learned_method_is_refused_at_once() -> None:
    class Bare(Compass):
        def require_inversion(self) -> None:
            raise ModelError("no inversion weights")

    with pytest.raises(ModelError, match="no inversion weights"):
        create("fti4cir", Bare("fti4cir"))


def test_weights_of_another_method_are_refused_with_how_to_train_its_own() -> None:
    with pytest.raises(ModelError) as caught:
        create("pic2word", fti4cir.load("mini"))
    assert str(caught.value) == (
        "mini has weights of fti4cir, none of pic2word; train them with `fti4cir train --method pic2word --backbone "
        "mini --images FOLDER --captions FILE --output DIR` and give --model DIR."
    )


class Trained(Compass):
    """A model with a network, or without one."""

    def __init__(self, name: str, method: str, inversion: object = "weights") -> None:
        super().__init__(method)
        self.name, self.inversion = name, inversion


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], "fti4cir:a fti4cir:b searle:s searle:t"),
        (["fti4cir"], "fti4cir:a fti4cir:b"),
        (["sum", "searle", "fti4cir", "sum"], "sum:bare searle:s searle:t fti4cir:a fti4cir:b"),
        (["image", "caption", "searle-oti"], "image:bare caption:bare searle-oti:s"),
        (["pic2word"], "pic2word:bare"),
    ],
)
def test_which_method_stands_on_which_model(names: list[str], expected: str) -> None:
    models = [
        Trained("bare", "fti4cir", None), Trained("a", "fti4cir"), Trained("s", "searle"), Trained("b", "fti4cir"),
        Trained("t", "searle"),
    ]  # fmt: skip
    pairs = assign(names, models)
    assert " ".join(f"{name}:{model.name}" for name, model in pairs) == expected


def test_a_model_without_weights_is_asked_for_the_papers_method() -> None:
    assert [name for name, _ in assign([], [Trained("bare", "fti4cir", None)])] == ["fti4cir"]


def test_unknown_methods() -> None:
    with pytest.raises(InputError, match="no method 'magic'; available are: fti4cir, lincir, pic2word, searle, "):
        create("magic", Compass("fti4cir"))
    with pytest.raises(InputError, match="no method 'magic'"):
        learner("magic")
    with pytest.raises(InputError, match="no method 'magic'"):
        assign(["pic2word", "magic"], [Trained("bare", "fti4cir", None)])


def test_what_can_be_trained() -> None:
    assert learner("searle") is SEARLE
    with pytest.raises(
        InputError, match="'sum' has nothing to train; what can be trained: fti4cir, lincir, pic2word, searle"
    ):
        learner("sum")


def test_noise_is_as_long_as_it_says() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 10_000) * torch.tensor([[1.0], [20.0], [300.0]])
    for amount in (0.5, torch.tensor([[0.1], [0.0], [2.0]])):
        length = (noised(features, amount) - features).norm(dim=-1, keepdim=True) / features.norm(dim=-1, keepdim=True)
        torch.testing.assert_close(length, torch.zeros(3, 1) + amount, rtol=0.05, atol=1e-6)
