"""The network's configuration, and the pseudo-words it makes."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import pytest
import torch

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ModelError
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion, InversionConfig, PseudoWords, WordMapping
from fti4cir.inversion.prompts import Slot, Template
from tinyclip import JOINT, TOKEN, VISION, random_inversion

pytestmark = pytest.mark.numeric


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
        {"hidden_width": 0},
        {"activation": "tanh"},
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


# -- words that are left out ----------------------------------------------------------------------------------
def all_words() -> PseudoWords:
    """Of 200 images with one to four words each."""
    torch.manual_seed(1)
    words = random_inversion(threshold=0.15)(torch.randn(200, JOINT) * 3, torch.randn(200, 17, VISION))
    assert set(words.counts.tolist()) == {1, 2, 3, 4}
    return words


def test_words_that_stay_keep_their_order_and_one_always_stays() -> None:
    words = all_words()
    fewer = words.without_some(0.6)
    assert fewer.counts.min() == 1
    assert fewer.subject is words.subject
    for row in range(200):
        before = words.indices[row, : words.counts[row]].tolist()
        after = fewer.indices[row, : fewer.counts[row]].tolist()
        assert after == [index for index in before if index in after]
        # The rest follows, so that nothing is lost that is not a word.
        assert sorted(fewer.indices[row].tolist()) == sorted(words.indices[row].tolist())
        for name in ("attributes", "selected"):  # moved along
            moved = dict(zip(fewer.indices[row].tolist(), getattr(fewer, name)[row], strict=True))
            for index, value in zip(words.indices[row].tolist(), getattr(words, name)[row], strict=True):
                assert torch.equal(moved[index], value)
    several = words.counts > 2
    assert (1 - fewer.counts[several].sum() / words.counts[several].sum()).item() == pytest.approx(0.5, abs=0.1)


def test_no_share_leaves_all_words() -> None:
    words = all_words()
    same = words.without_some(0.0)
    for name, value in vars(words).items():
        assert torch.equal(getattr(same, name), value), name


def test_leaving_words_out_keeps_the_gradient() -> None:
    words = all_words()
    attributes = words.attributes.detach().requires_grad_()
    fewer = PseudoWords(**{**vars(words), "attributes": attributes}).without_some(0.9)
    fewer.attributes[:, 0].sum().backward()
    assert attributes.grad is not None
    assert (attributes.grad.sum(dim=(1, 2)) == TOKEN).all()


def test_words_of_subjects_alone(encoder: ClipEncoder) -> None:
    words = PseudoWords.of_subjects(torch.randn(3, TOKEN))
    assert words.attributes.shape == (3, 0, TOKEN)
    assert words.counts.tolist() == [0, 0, 0]
    features = encode_sentences(encoder, [Template().pseudo("is red", with_attributes=False)] * 3, words)
    assert features.shape == (3, JOINT)


# -- the mapping to words -------------------------------------------------------------------------------------
def by_hand(state: dict[str, torch.Tensor], x: list[float], activation: Callable[[float], float]) -> list[float]:
    """Two hidden layers and an output, number by number."""

    def layer(name: str, values: list[float]) -> list[float]:
        rows, biases = state[f"{name}.weight"].tolist(), state[f"{name}.bias"].tolist()
        return [sum(w * v for w, v in zip(row, values, strict=True)) + b for row, b in zip(rows, biases, strict=True)]

    hidden = [activation(value) for value in layer("first", x)]
    return layer("third", [activation(value) for value in layer("second", hidden)])


@pytest.mark.parametrize(
    ("changes", "width", "activation"),
    [
        ({}, 24, lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2)))),
        ({"hidden_width": 5, "activation": "relu"}, 5, lambda x: max(x, 0.0)),  # as Pic2Word's, with 512
    ],
)
def test_a_mapping_by_hand(changes: dict[str, object], width: int, activation: Callable[[float], float]) -> None:
    torch.manual_seed(0)
    mapping = WordMapping(InversionConfig(6, 8, 7, dropout=0.3, **changes)).eval()
    state = mapping.state_dict()
    assert {name: tuple(value.shape) for name, value in state.items()} == {
        "first.weight": (width, 6), "first.bias": (width,), "second.weight": (width, width), "second.bias": (width,),
        "third.weight": (7, width), "third.bias": (7,),
    }  # fmt: skip
    x = torch.randn(4, 6)
    expected = torch.tensor([by_hand(state, row, activation) for row in x.tolist()])
    torch.testing.assert_close(mapping(x), expected)
    mapping.train()
    assert not torch.allclose(mapping(x), expected)  # dropout


# -- the template ---------------------------------------------------------------------------------------------
def test_the_sentence_is_the_templates() -> None:
    shape = {"joint_width": 8, "vision_width": 8, "token_width": 8}
    template = Template(modification="that {text}")
    assert InversionConfig(**shape, template=template).sentence("is red") == template.pseudo("is red")
    alone = InversionConfig(**shape, max_attributes=0).sentence("is red")
    assert alone == ("a photo of", Slot.SUBJECT, "but is red")


def test_round_trip_by_json() -> None:
    config = InversionConfig(8, 8, 8, threshold=None, template=Template("an image of"))
    assert InversionConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
    older = {"joint_width": 8, "vision_width": 8, "token_width": 8}
    assert InversionConfig.from_json(older).template == Template()
    for wrong in ({**older, "colour": 1}, {"joint_width": 8}, {**older, "template": {"colour": 1}}):
        with pytest.raises(TypeError):
            InversionConfig.from_json(wrong)


def test_a_config_of_an_older_version_means_the_papers_mapping() -> None:
    config = InversionConfig.from_json({"joint_width": 8, "vision_width": 8, "token_width": 8})
    assert (config.hidden_width, config.activation) == (None, "gelu")
    assert FineGrainedInversion(config).subject.first.out_features == 32
