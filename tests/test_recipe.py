"""Settings of a training: the learning rate of each step, and what is refused."""

import json
from dataclasses import asdict

import pytest

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ModelError, TrainingError
from fti4cir.inversion.prompts import Template
from fti4cir.losses import LossWeights
from fti4cir.recipe import TrainingConfig
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
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(changes))):
        TrainingConfig(**changes)


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
        num_latent=7, max_attributes=5, threshold=0.1, layers=2, heads=4, dropout=0.3, template=template
    ).network(encoder)
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
