"""FTI4CIR's losses: the release's figures, and what each switch leaves out."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.captions.split import SplitCaption
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.inversion.prompts import Template
from fti4cir.methods.fti4cir import InversionObjective, InversionWeights
from fti4cir.methods.registry import preset
from fti4cir.models import loading as checkpoint
from fti4cir.models.authors_pickle import read_released
from fti4cir.training.config import TrainingConfig
from fti4cir.training.objective import Batch, Choice, Corpus, Described, Found
from released import RELEASED
from tinydata import SMALL_ATTRIBUTES

pytestmark = pytest.mark.numeric

DOG = SplitCaption("a dog", "on grass")


def objective(config: TrainingConfig, encoder: ClipEncoder) -> InversionObjective:
    nothing = np.zeros((0, encoder.joint_width), np.float32)
    return InversionObjective(config, Corpus(encoder, nothing, [], [], Path()))


def a_batch(encoder: ClipEncoder, captions: list[SplitCaption], edited: list[str] | None = None) -> Batch:
    """Captions with random images, and maybe what an edit made of them."""
    torch.manual_seed(0)
    features = encoder.encode_pixels(torch.randn(len(captions), 3, 32, 32))
    real = encode_sentences(encoder, [(Template().real(*caption),) for caption in captions])
    edited, choice = edited or [], None
    if edited:
        choice = Choice(real, torch.eye(len(edited), 2 * len(edited), dtype=torch.bool))
    modifications = ["in red"] * len(edited)
    rows = list(range(len(captions)))
    return Batch(rows, captions, features.image, features.local, real, modifications, edited, choice)


def test_losses_of_the_paper_preset_are_the_releases(clip_tiny: Path) -> None:
    expected = load_file(RELEASED / "expected.safetensors")
    texts = json.loads((RELEASED / "texts.json").read_text(encoding="utf-8"))
    released = read_released(RELEASED / "released_checkpoint.pth")
    tiny = checkpoint.load_encoder(clip_tiny, device="cpu")
    assert isinstance(tiny, ClipEncoder)
    config = preset("paper")
    inversion = FineGrainedInversion(config.network.for_encoder(tiny)).eval()
    inversion.load_state_dict(released.state)
    captions = [SplitCaption(*parts) for parts in zip(texts["subjects"], texts["attributes"], strict=True)]
    features = tiny.encode_pixels(expected["pixel_values"])
    real = encode_sentences(tiny, [(config.network.template.real(*caption),) for caption in captions])
    batch = Batch(list(range(6)), captions, features.image, features.local, real)
    losses = objective(config, tiny)
    outputs = losses.outputs(inversion, batch)
    terms = losses.terms(outputs, batch)
    assert list(terms) == [name for name, weight in vars(losses.weights).items() if weight]
    assert outputs["count"].tolist() == expected["num_attributes"].tolist()
    torch.testing.assert_close(losses.weights.total(terms), expected["loss_total"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["contrastive", "orthogonality", "regularization_whole", "composed"])
def test_losses_of_weight_zero_are_left_out(name: str, encoder: ClipEncoder) -> None:
    batch = a_batch(encoder, [DOG] * 3, ["a red dog on grass"] * 3)
    weights = InversionWeights(**{**dict.fromkeys(vars(InversionWeights()), 0.0), name: 1.0})
    config = preset("paper", **SMALL_ATTRIBUTES, weights=weights)
    losses = objective(config, encoder)
    outputs = losses.outputs(FineGrainedInversion(config.network.for_encoder(encoder)), batch)
    assert list(losses.terms(outputs, batch)) == [name]


def test_training_for_the_subject_alone(encoder: ClipEncoder) -> None:
    config = preset("composed-no-attributes")
    inversion = FineGrainedInversion(config.network.for_encoder(encoder))
    batch = a_batch(encoder, [DOG] * 2, ["a red dog on grass"] * 2)
    losses = objective(config, encoder)
    terms = losses.terms(losses.outputs(inversion, batch), batch)
    assert list(terms) == ["contrastive", "regularization_subject", "regularization_whole", "composed"]
    losses.weights.total(terms).backward()
    assert all(parameter.grad is not None for parameter in inversion.parameters())


@pytest.mark.slow
def test_every_row_of_the_outputs_is_its_own_images(encoder: ClipEncoder) -> None:
    config = preset("composed", **SMALL_ATTRIBUTES)
    inversion = FineGrainedInversion(config.network.for_encoder(encoder)).eval()
    captions = [DOG, SplitCaption("a black cat", "in the deep snow"), SplitCaption("grass", "with a dog")]
    batch = a_batch(encoder, captions, ["a red dog on grass", "a cat", "grass with a red dog"])
    losses = objective(config, encoder)
    whole = losses.outputs(inversion, batch)
    parts = [losses.outputs(inversion, batch.part(start, start + 1)) for start in range(3)]
    together = {name: torch.cat([part[name] for part in parts]) for name in whole}
    torch.testing.assert_close(together, whole, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_the_loss_against_images_pulls_composed_sentences_to_them(encoder: ClipEncoder) -> None:
    config = preset("composed", **SMALL_ATTRIBUTES)
    red, blue = SplitCaption("a red shirt", "for men"), SplitCaption("a blue shirt", "for men")
    batch = a_batch(encoder, [red, blue], [str(blue), str(red)])
    losses = objective(config, encoder)
    outputs = losses.outputs(FineGrainedInversion(config.network.for_encoder(encoder)).eval(), batch)

    def loss(targets: torch.Tensor) -> torch.Tensor:
        found = Found([0, 1], targets, Choice(batch.image, torch.zeros(2, 4, dtype=torch.bool)))
        return losses.terms(outputs, Batch(**{**vars(batch), "found": found}))["composed_image"]

    assert loss(outputs["composed"]) < loss(-outputs["composed"])
    assert "composed_image" not in losses.terms(outputs, batch)  # nothing was found


@pytest.mark.slow
def test_the_description_loss_pulls_pseudo_sentences_to_their_own_captions(encoder: ClipEncoder) -> None:
    config = preset("composed", **SMALL_ATTRIBUTES, weights=InversionWeights(description=1.0))
    batch = a_batch(encoder, [DOG, SplitCaption("a black cat", "in the deep snow")])
    losses = objective(config, encoder)
    outputs = losses.outputs(FineGrainedInversion(config.network.for_encoder(encoder)).eval(), batch)

    def loss(captions: torch.Tensor) -> torch.Tensor:
        described = Described(captions, Choice(captions[:0], torch.eye(2, dtype=torch.bool)))
        return losses.terms(outputs, replace(batch, described=described))["description"]

    assert loss(outputs["whole"]) < loss(outputs["whole"].flip(0))
    assert "description" not in losses.terms(outputs, batch)  # there are no captions to tell it from


@pytest.mark.slow
def test_noise_and_left_out_words_change_what_is_seen(encoder: ClipEncoder) -> None:
    batch = a_batch(encoder, [DOG] * 4)
    plain = preset(
        "paper",
        **{"network.num_latent": 6, "network.max_attributes": 6, "network.threshold": None, "network.dropout": 0.0},
    )
    inversion = FineGrainedInversion(plain.network.for_encoder(encoder))
    results = {}
    for name, config in {
        "plain": plain,
        "noise": preset("paper", noise=0.5),
        "masked": preset("paper", attribute_masking=0.7),
    }.items():
        for turn in (0, 1):
            torch.manual_seed(3)
            results[name, turn] = objective(config, encoder).outputs(inversion, batch)
        torch.testing.assert_close(results[name, 0], results[name, 1], rtol=0, atol=0)
    assert (results["masked", 0]["count"] < results["plain", 0]["count"]).any()
    for name in ("noise", "masked"):
        assert not torch.allclose(results[name, 0]["whole"], results["plain", 0]["whole"], atol=1e-3)
