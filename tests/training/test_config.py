"""Settings of a training: the learning rate of each step, and what is refused."""

import json
import math
from dataclasses import asdict
from pathlib import Path

import pytest

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ModelError, TrainingError
from fti4cir.inversion.network import NetworkConfig
from fti4cir.inversion.prompts import Template
from fti4cir.methods.fti4cir import InversionOptions, InversionWeights
from fti4cir.methods.registry import preset, presets
from fti4cir.training.config import TrainingConfig
from tinyclip import JOINT, TOKEN, VISION


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
        {"ema_decay": 1.0},
        {"seed": -1},
        {"validation": -1},
        {"clip_norm": -1.0},
        {"optimizer": "lion"},
        {"hard_group_size": 0},
        {"chunk_size": -1},
        {"caption_split": "mine"},
        {"steps": 0},
        {"epsilon": 0.0},
        {"beta2": 1.0},
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(changes))):
        TrainingConfig(**changes)


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("composed", {"temperature": 0.0}),
        ("composed", {"composed_temperature": math.inf}),
        ("composed", {"contrast": "within"}),
        ("composed", {"extra_negatives": -1}),
        ("composed", {"noise": -0.1}),
        ("composed", {"attribute_masking": 1.0}),
        ("composed", {"word_edits": 1.5}),
        ("composed", {"network.hidden_width": 0}),
        ("composed", {"network.activation": "tanh"}),
        ("lincir", {"keywords": "verbs"}),
        ("lincir", {"text_noise": "much"}),
        ("lincir", {"masked_loss": "absolute"}),
        ("searle", {"vocabulary": "imagenet"}),
        ("searle", {"concepts": 0}),
        ("searle", {"inversion.concepts": 0}),
        ("searle", {"inversion.steps": 0}),
        ("searle", {"inversion.average": 1.0}),
        ("searle", {"inversion.start": "zero"}),
        ("searle", {"inversion.templates": 2}),
    ],
)
def test_nested_settings_that_make_no_sense(name: str, changes: dict[str, object]) -> None:
    with pytest.raises((TrainingError, ModelError), match=next(iter(changes)).rpartition(".")[2]):
        preset(name, **changes)


def test_settings_are_changed_by_their_dotted_names() -> None:
    config = preset("composed")
    changes = {"seed": 3, "weights.orthogonality": 0.2, "network.layers": 2, "network.template.opening": "an image of"}
    settings = config.with_settings(changes).settings()
    assert {name: value for name, value in settings.items() if config.settings()[name] != value} == changes
    # Together they make sense, one after the other they would not.
    shape = config.with_settings({"network.max_attributes": 30, "network.num_latent": 30})
    assert shape.network.max_attributes == 30
    assert config.with_settings({"weights": InversionWeights()}).options.weights == InversionWeights()


@pytest.mark.parametrize(
    "name", ["colour", "weights.masked", "network.colour", "keywords", "options.weights", "seed.x"]
)
def test_an_unknown_setting_is_refused_with_the_known_ones(name: str) -> None:
    with pytest.raises(TrainingError, match=rf"no setting '{name}'; there are .*network\.layers.*weights\.composed"):
        preset("composed").with_settings({name: 1})


def test_another_methods_options_are_refused() -> None:
    with pytest.raises(TrainingError, match="LinCirOptions, but must be InversionOptions"):
        preset("lincir").options_as(InversionOptions)


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


@pytest.mark.parametrize("name", presets())
def test_round_trip_by_json(name: str) -> None:
    config = preset(name, clip_norm=None, seed=3)
    entries = json.loads(json.dumps(asdict(config)))
    assert TrainingConfig.from_json(entries, type(config.options)) == config
    for wrong in ({"colour": 1}, {"network": {"colour": 1}}, {"options": {"colour": 1}}):
        with pytest.raises(TypeError, match="colour"):
            TrainingConfig.from_json({**entries, **wrong}, type(config.options))


FLAT = json.loads((Path(__file__).parent / "flat_configs.json").read_text())
"""Presets as the last version wrote them that had all methods' settings side by side."""


@pytest.mark.parametrize("name", FLAT)
def test_a_flat_configuration_of_an_older_version_is_read(name: str) -> None:
    config = preset(name)
    assert TrainingConfig.from_json(FLAT[name], type(config.options)) == config
    with pytest.raises(TypeError, match="colour"):
        TrainingConfig.from_json({**FLAT[name], "colour": 1}, type(config.options))


def test_fields_that_an_older_version_lacks_have_their_defaults() -> None:
    assert TrainingConfig.from_json({"epochs": 3}) == TrainingConfig(epochs=3)


def test_the_networks_settings(encoder: ClipEncoder) -> None:
    template = Template(modification="that {text}")
    config = NetworkConfig(
        num_latent=7, max_attributes=5, threshold=0.1, layers=2, heads=4, dropout=0.3, template=template,
        hidden_width=9, activation="relu",
    )  # fmt: skip
    network = config.for_encoder(encoder)
    assert (network.joint_width, network.vision_width, network.token_width) == (JOINT, VISION, TOKEN)
    assert {name: getattr(network, name) for name in vars(config)} == vars(config)
    with pytest.raises(ModelError, match="max_attributes"):
        NetworkConfig(num_latent=3, max_attributes=5)


def test_without_any_loss_there_is_nothing_to_learn() -> None:
    with pytest.raises(TrainingError, match="nothing to learn from"):
        InversionWeights(**dict.fromkeys(vars(InversionWeights()), 0.0))
    with pytest.raises(TrainingError, match="weight of the loss composed"):
        InversionWeights(composed=float("nan"))
