"""Settings of a training: the learning rate of each step, and what is refused."""

import json
import math
from dataclasses import asdict

import pytest

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ModelError, TrainingError
from fti4cir.inversion.prompts import Template
from fti4cir.training.config import TrainingConfig
from fti4cir.training.losses import LossWeights
from tinyclip import JOINT, TOKEN, VISION, clip_folder, encoder

__all__ = ["clip_folder", "encoder"]


def test_steps_of_the_learning_rate() -> None:
    config = TrainingConfig(learning_rate=1.0)
    rates = [config.learning_rate_at(step, steps_per_epoch=7) for step in range(60 * 7)]
    assert rates[:70] == [1.0] * 70  # epochs 0 to 9
    assert rates[70:] == pytest.approx([0.1] * 350)


def test_cosine_with_warm_up() -> None:
    config = TrainingConfig(schedule="cosine", learning_rate=1.0, epochs=10, warmup_steps=5)
    rates = [config.learning_rate_at(step, steps_per_epoch=10) for step in range(100)]
    assert rates[:4] == sorted(rates[:4])
    assert rates[0] == pytest.approx(0.2, rel=1e-3)
    assert rates[50] == pytest.approx(0.5)
    assert rates[-1] < 0.001
    short = TrainingConfig(schedule="cosine", learning_rate=1.0, epochs=1, warmup_steps=50)
    assert short.learning_rate_at(1, steps_per_epoch=20) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"schedule": "linear"},
        {"average": 1.0},
        {"seed": -1},
        {"validation": -1},
        {"temperature": 0.0},
        {"clip_norm": -1.0},
        {"optimizer": "lion"},
        {"alike": 0},
        {"negatives": -1},
        {"chunk_size": -1},
        {"noise": -0.1},
        {"attribute_masking": 1.0},
        {"inversion_steps": 0},
        {"word_edits": 1.5},
        {"caption_split": "mine"},
        {"steps": 0},
        {"hidden_width": 0},
        {"activation": "tanh"},
        {"epsilon": 0.0},
        {"beta2": 1.0},
        {"contrast": "within"},
        {"keywords": "verbs"},
        {"text_noise": "much"},
        {"masked_loss": "absolute"},
        {"vocabulary": "imagenet"},
        {"concepts": 0},
        {"inversion_concepts": 0},
        {"inversion_average": 1.0},
        {"inversion_start": "zero"},
        {"inversion_templates": 2},
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(changes))):
        TrainingConfig(**changes)


def test_a_cosine_that_begins_where_the_warmup_ends() -> None:
    config = TrainingConfig(schedule="warmup-cosine", learning_rate=2.0, epochs=4, warmup_steps=10)
    rates = [config.learning_rate_at(step, steps_per_epoch=10) for step in range(40)]
    assert rates[:10] == pytest.approx([0.2 * number for number in range(1, 11)])
    assert rates[10:] == pytest.approx([1 + math.cos(math.pi * number / 30) for number in range(30)])
    longer = TrainingConfig(schedule="warmup-cosine", learning_rate=2.0, epochs=1, warmup_steps=10_000)
    rates = [longer.learning_rate_at(step, steps_per_epoch=10) for step in range(10)]
    assert rates == pytest.approx([2e-4 * number for number in range(1, 11)])  # not shortened


def test_steps_take_the_place_of_epochs() -> None:
    assert TrainingConfig(epochs=3).total_steps(7) == 21
    assert TrainingConfig(epochs=3, steps=10).total_steps(7) == 10
    config = TrainingConfig(schedule="cosine", learning_rate=1.0, epochs=60, steps=100)
    assert config.learning_rate_at(50, steps_per_epoch=3) == pytest.approx(0.5)


def test_a_constant_learning_rate() -> None:
    config = TrainingConfig(schedule="constant", learning_rate=1.0, epochs=20, warmup_steps=4)
    rates = [config.learning_rate_at(step, steps_per_epoch=10) for step in range(200)]
    assert rates == [0.25, 0.5, 0.75] + [1.0] * 197


def test_round_trip_by_json() -> None:
    config = TrainingConfig(
        method="searle", weights=LossWeights(composed=2.0), template=Template("an image of"), clip_norm=None, seed=3
    )
    assert TrainingConfig.from_json(json.loads(json.dumps(asdict(config)))) == config
    assert TrainingConfig.from_json({"epochs": 3}) == TrainingConfig(epochs=3)  # an older version's, with fewer fields
    with pytest.raises(TypeError, match="colour"):
        TrainingConfig.from_json({"colour": 1})


def test_the_networks_settings(encoder: ClipEncoder) -> None:
    template = Template(modification="that {text}")
    network = TrainingConfig(
        num_latent=7, max_attributes=5, threshold=0.1, layers=2, heads=4, dropout=0.3, template=template,
        hidden_width=9, activation="relu",
    ).network(encoder)  # fmt: skip
    assert (network.hidden_width, network.activation) == (9, "relu")
    assert (network.joint_width, network.vision_width, network.token_width) == (JOINT, VISION, TOKEN)
    assert (network.num_latent, network.max_attributes, network.threshold) == (7, 5, 0.1)
    assert (network.layers, network.heads, network.dropout, network.template) == (2, 4, 0.3, template)
    with pytest.raises(ModelError, match="max_attributes"):
        TrainingConfig(num_latent=3, max_attributes=5).network(encoder)


def test_without_any_loss_there_is_nothing_to_learn() -> None:
    with pytest.raises(TrainingError, match="nothing to learn from"):
        TrainingConfig(weights=LossWeights(0, 0, 0, 0, 0))
    with pytest.raises(TrainingError, match="weight of the loss composed"):
        LossWeights(composed=float("nan"))
