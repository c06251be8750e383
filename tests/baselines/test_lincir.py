"""LinCIR: masked captions, and what it learns of the tiny data."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fti4cir
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.baselines import create
from fti4cir.baselines.base import Batch, Corpus
from fti4cir.baselines.lincir import LinCirObjective, masked
from fti4cir.captions.split import SplitCaption
from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.inversion.prompts import Slot
from fti4cir.training import preset, train
from tinyclip import clip_folder, encoder
from tinydata import SMALL, data, log_of, one_thread, quiet

__all__ = ["clip_folder", "data", "encoder", "one_thread"]


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


def test_pictures_lend_only_the_length_of_their_features(encoder: ClipEncoder) -> None:
    config = preset("lincir")
    losses = LinCirObjective(config, Corpus(encoder, np.zeros((0, 1), np.float32), [], [], Path(), quiet))
    network = FineGrainedInversion(config.network(encoder)).eval()
    # The second has no noun, so nothing to mask.
    captions = [SplitCaption("a black dog", "on the grass"), SplitCaption("very", "red and wet")]
    image = torch.nn.functional.normalize(torch.randn(2, encoder.joint_width), dim=-1)

    def terms(image: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        batch = Batch([0, 1], captions, image, None, torch.zeros(2, 0), [], [])
        outputs = losses.outputs(network, batch)
        torch.testing.assert_close(outputs["masked"][1], outputs["text"][1])
        return losses.terms(outputs, batch)["masked"]

    loss = terms(image)
    torch.testing.assert_close(terms(image.flip(1)), loss)
    assert not torch.isclose(terms(3 * image), loss)
    loss.backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_it_learns_and_composes_in_its_own_words(data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    config = preset("lincir", **{**SMALL, "epochs": 6})
    train(config, data.pictures, data.captions, clip_folder, tmp_path / "m", say=quiet)
    rows = log_of(tmp_path / "m")
    assert float(rows[-1]["total"]) < 0.8 * float(rows[0]["total"])
    assert float(rows[-1]["total"]) == float(rows[-1]["masked"])
    model = fti4cir.load(tmp_path / "m")
    assert model.method == "lincir"
    assert model.require_inversion().config.sentence("is red") == ("a photo of", Slot.SUBJECT, "that is red")
    composed = create("lincir", model).compose(model.features([data.pictures / "00.png"]), ["is red"])
    assert composed.isfinite().all()
