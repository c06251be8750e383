"""LinCIR: masked captions, and what it learns of the tiny data."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fti4cir
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.captions.split import SplitCaption
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.inversion.prompts import Slot
from fti4cir.methods.lincir import LinCirObjective, cleaned, masked, masked_runs
from fti4cir.methods.registry import create, preset, train
from fti4cir.models.queries import Queries
from fti4cir.training.objective import Batch, Corpus
from tinydata import SMALL, log_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.mark.parametrize(
    ("caption", "spans", "pieces"),
    [
        ("a dog on grass", [(2, 5), (9, 14)], ("a", Slot.SUBJECT, "on", Slot.SUBJECT)),
        ("a dog, asleep", [(2, 5)], ("a", Slot.SUBJECT, ", asleep")),
        ("dog", [(0, 3)], (Slot.SUBJECT,)),
        ("dogs cats", [(0, 4), (5, 9)], (Slot.SUBJECT, Slot.SUBJECT)),
        ("so red", [], ("so red",)),
        ("", [], ()),
    ],
)
def test_masked(caption: str, spans: list[tuple[int, int]], pieces: tuple[str | Slot, ...]) -> None:
    assert masked(caption, spans) == pieces


# -- the published recipe -------------------------------------------------------------------------------------
# navervision/lincir: the README's training command (8 processes of 64), defaults of `train_phi.py` (weight decay,
# dropout, learning rate, network), its loop (noise, loss); `loader.py` (keywords, cleaning).
PUBLISHED = {
    "steps": 20_000,
    "batch_size": 512,
    "learning_rate": 1e-4,
    "weight_decay": 0.01,
    "optimizer": "adamw",
    "schedule": "constant",
    "warmup_steps": 0,
    "clip_norm": None,
    "ema_decay": 0.0,
    "network.max_attributes": 0,
    "network.hidden_width": None,  # 4 D
    "network.activation": "gelu",
    "network.dropout": 0.5,
    "keywords": "runs",
    "text_noise": "unit",
    "masked_loss": "squared",
}


def test_the_published_recipe() -> None:
    config = preset("lincir")
    assert {name: config.settings()[name] for name in PUBLISHED} == PUBLISHED
    assert {name for name, weight in vars(config.options.weights).items() if weight} == {"masked"}


def test_the_quick_recipe_stays_as_it_was_measured() -> None:
    quick = preset("lincir-quick")
    expected = {"epochs": 5, "steps": None, "batch_size": 128, "learning_rate": 1e-4, "schedule": "constant",
                "network.dropout": 0.5, "keywords": "nouns", "text_noise": "relative",
                "masked_loss": "cosine"}  # fmt: skip
    assert {name: quick.settings()[name] for name in expected} == expected


SLOT = Slot.SUBJECT


@pytest.mark.parametrize(
    ("caption", "runs", "pieces"),
    [
        ("a dog on the grass", ["a dog", "the grass"], (SLOT, "on", SLOT)),
        ("a dog by a dog", ["a dog", "a dog"], (SLOT, "by", SLOT)),
        ("a dog by a dogcart", ["a dog", "a dogcart"], (SLOT, "by", SLOT, "cart")),  # letters, not words
        ("a walking man", ["a", "man"], (SLOT, "w", SLOT, "lking m", SLOT, "n")),
        ("so very red", [], ("so", SLOT, "red")),  # a random word where there is none
        ("red so red", [], (SLOT, "so", SLOT)),
        ("a cat, a t-shirt on", ["a cat", "a t - shirt", "on"], (SLOT, ",", SLOT, "t-shirt on")),  # none that it holds
        ("", [], ("a photo of", SLOT)),
    ],
)
def test_masked_runs(caption: str, runs: list[str], pieces: tuple[str | Slot, ...]) -> None:
    drawn = {"so very red": 1, "red so red": 2, "a cat, a t-shirt on": 2}
    assert masked_runs(caption, runs, lambda count: drawn[caption]) == pieces


def test_captions_are_cleaned() -> None:
    assert cleaned(" <PERSON> pays $5 in Rome ") == "person pays 5 in rome"


@pytest.mark.slow
def test_published_noise_and_loss(encoder: ClipEncoder) -> None:
    """The network sees the raw feature with u * n, u uniform in [0, 1), n normal; images have no effect."""
    config = preset("lincir")
    objective = LinCirObjective(config, Corpus(encoder, np.zeros((0, 1), np.float32), [], [], Path()))
    network = FineGrainedInversion(config.network.for_encoder(encoder)).eval()
    inputs: list[torch.Tensor] = []
    network.register_forward_pre_hook(lambda module, arguments: inputs.append(arguments[0]))
    captions = [SplitCaption("A black dog", "on the grass"), SplitCaption("the red cat", "lies in the snow")] * 200
    torch.manual_seed(0)
    batch = Batch([], captions, torch.full((400, encoder.joint_width), torch.nan), None)
    outputs = objective.outputs(network, batch)
    plain = [(str(caption).lower(),) for caption in captions]
    torch.testing.assert_close(outputs["text"], encode_sentences(encoder, plain))
    [seen] = inputs
    noise = (seen - outputs["text"]).detach()
    amount = noise.square().mean(dim=1).sqrt()
    assert 0 < amount.min() < 0.05
    assert 0.9 < amount.max() < 1.5  # 24 dimensions scatter
    assert 0.45 < amount.mean() < 0.55
    unit = noise / amount[:, None]
    assert abs(unit.mean()) < 0.03
    terms = objective.terms(outputs, batch)
    expected = ((outputs["masked"] - outputs["text"]) ** 2).sum() / outputs["text"].numel()
    torch.testing.assert_close(terms["masked"], expected)
    words = network(seen, torch.zeros(400, 0, 0))
    masked_ = [(Slot.SUBJECT, "on", Slot.SUBJECT), (Slot.SUBJECT, "lies in", Slot.SUBJECT)] * 200
    torch.testing.assert_close(outputs["masked"], encode_sentences(encoder, masked_, words))


# -- the quick recipe -----------------------------------------------------------------------------------------
def test_images_lend_only_the_length_of_their_features(encoder: ClipEncoder) -> None:
    config = preset("lincir-quick")
    losses = LinCirObjective(config, Corpus(encoder, np.zeros((0, 1), np.float32), [], [], Path()))
    network = FineGrainedInversion(config.network.for_encoder(encoder)).eval()
    # The second has no noun, so nothing to mask.
    captions = [SplitCaption("a black dog", "on the grass"), SplitCaption("very", "red and wet")]
    image = torch.nn.functional.normalize(torch.randn(2, encoder.joint_width), dim=-1)

    def terms(image: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        batch = Batch([0, 1], captions, image, None)
        outputs = losses.outputs(network, batch)
        torch.testing.assert_close(outputs["masked"][1], outputs["text"][1])
        return losses.terms(outputs, batch)["masked"]

    loss = terms(image)
    torch.testing.assert_close(terms(image.flip(1)), loss)
    assert not torch.isclose(terms(3 * image), loss)
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.slow
def test_it_learns_and_composes_in_its_own_words(data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    config = preset("lincir-quick", **{**SMALL, "epochs": 6})
    train(config, data.pictures, data.captions, clip_folder, tmp_path / "m")
    rows = log_of(tmp_path / "m")
    assert float(rows[-1]["total"]) < 0.8 * float(rows[0]["total"])
    assert float(rows[-1]["total"]) == float(rows[-1]["masked"])
    model = fti4cir.load(tmp_path / "m")
    assert model.method == "lincir"
    assert model.require_inversion().config.sentence("is red") == ("a photo of", Slot.SUBJECT, "that is red")
    composed = create("lincir", model).compose(Queries(model.features([data.pictures / "00.png"]), ["is red"]))
    assert composed.isfinite().all()
