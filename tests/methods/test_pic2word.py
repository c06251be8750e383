"""Pic2Word, trained on the tiny data."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fti4cir
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.captions.split import SplitCaption
from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.inversion.prompts import Slot
from fti4cir.methods.fti4cir import InversionObjective
from fti4cir.methods.registry import create, preset, train
from fti4cir.models.queries import Queries
from fti4cir.training import losses
from fti4cir.training.objective import Batch, Corpus
from tinydata import SMALL, log_of

pytestmark = pytest.mark.usefixtures("one_thread")

# google-research/composed_image_retrieval: the README's training command, `src/params.py` (get_default_params of
# ViT-L/14; middle_dim, n_layer), `IM2TEXT` in `model/model.py` (dropout), `get_loss_img2text` in `src/trainer.py`
# (logit scale, loss), `src/main.py` (no weight decay of biases), `cosine_lr` in `third_party/open_clip/scheduler.py`.
PUBLISHED = {
    "epochs": 30,
    "batch_size": 128,
    "learning_rate": 1e-4,
    "weight_decay": 0.1,
    "decay_biases": False,
    "optimizer": "adamw",
    "beta2": 0.98,
    "epsilon": 1e-6,
    "schedule": "warmup-cosine",
    "warmup_steps": 10_000,
    "clip_norm": None,
    "ema_decay": 0.0,
    "contrast": "across",
    "temperature": None,
    "network.max_attributes": 0,
    "network.hidden_width": 512,
    "network.activation": "relu",
    "network.dropout": 0.1,
    "noise": 0.0,
}


def test_the_published_recipe() -> None:
    config = preset("pic2word")
    assert {name: config.settings()[name] for name in PUBLISHED} == PUBLISHED
    assert {name for name, weight in vars(config.options.weights).items() if weight} == {"contrastive"}
    assert config.network.template.pseudo("in red", with_attributes=False) == ("a photo of", Slot.SUBJECT, ", in red")


def test_the_quick_recipe_stays_as_it_was_measured() -> None:
    quick = preset("pic2word-quick")
    expected = {"epochs": 5, "batch_size": 128, "learning_rate": 1e-4, "weight_decay": 0.1, "schedule": "cosine",
                "warmup_steps": 50, "temperature": 0.05, "contrast": "all", "network.hidden_width": None,
                "network.dropout": 0.1, "network.activation": "gelu", "decay_biases": True, "beta2": 0.999,
                "epsilon": 1e-8}  # fmt: skip
    assert {name: quick.settings()[name] for name in expected} == expected


def test_the_published_loss_is_at_the_encoders_own_temperature(encoder: ClipEncoder) -> None:
    config = preset("pic2word")
    nothing = np.zeros((0, encoder.joint_width), np.float32)
    objective = InversionObjective(config, Corpus(encoder, nothing, [], [], Path()))
    network = FineGrainedInversion(config.network.for_encoder(encoder)).eval()
    torch.manual_seed(0)
    image = torch.randn(4, encoder.joint_width)
    captions = [SplitCaption("a dog", "on grass")] * 4
    batch = Batch([0, 1, 2, 3], captions, image, torch.zeros(4, 0, 0))
    outputs = objective.outputs(network, batch)
    expected = losses.contrastive_across(image, outputs["whole"], 1 / encoder.model.logit_scale.exp().item())
    terms = objective.terms(outputs, batch)
    assert set(terms) == {"contrastive"}
    torch.testing.assert_close(terms["contrastive"], expected)
    assert fti4cir.load("mini").encoder.logit_scale == 100


def test_it_learns_and_composes_in_its_own_words(data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    config = preset("pic2word-quick", **{**SMALL, "epochs": 6})
    train(config, data.pictures, data.captions, clip_folder, tmp_path / "m")
    rows = log_of(tmp_path / "m")
    assert float(rows[-1]["total"]) < 0.9 * float(rows[0]["total"])
    assert float(rows[-1]["total"]) == float(rows[-1]["contrastive"])  # the only loss
    assert rows[-1]["val_image_R@1"] != ""
    assert json.loads((tmp_path / "m" / "config.json").read_text())["method"] == "pic2word"
    model = fti4cir.load(tmp_path / "m")
    assert model.method == "pic2word"
    assert model.require_inversion().config.sentence("in red") == ("a photo of", Slot.SUBJECT, ", in red")
    features = model.features([data.pictures / "00.png"])
    queries = Queries(features, ["in red", "in blue"], [0, 0])
    composed = create("pic2word", model).compose(queries)
    assert (composed == model.compose_features(queries)).all()
    assert (composed[0] != composed[1]).any()
