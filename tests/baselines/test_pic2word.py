"""Pic2Word, trained on the tiny data."""

import json
from pathlib import Path
from types import SimpleNamespace

import fti4cir
from fti4cir.baselines import create
from fti4cir.inversion.prompts import Slot
from fti4cir.training import preset, train
from tinyclip import clip_folder
from tinydata import SMALL, data, log_of, one_thread, quiet

__all__ = ["clip_folder", "data", "one_thread"]


def test_it_learns_and_composes_in_its_own_words(data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    config = preset("pic2word", **{**SMALL, "epochs": 6})
    train(config, data.pictures, data.captions, clip_folder, tmp_path / "m", say=quiet)
    rows = log_of(tmp_path / "m")
    assert float(rows[-1]["total"]) < 0.9 * float(rows[0]["total"])
    assert float(rows[-1]["total"]) == float(rows[-1]["contrastive"])  # the only loss
    assert rows[-1]["val_image_R@1"] != ""
    assert json.loads((tmp_path / "m" / "config.json").read_text())["method"] == "pic2word"
    model = fti4cir.load(tmp_path / "m")
    assert model.method == "pic2word"
    assert model.require_inversion().config.sentence("in red") == ("a photo of", Slot.SUBJECT, ", in red")
    features = model.features([data.pictures / "00.png"])
    composed = create("pic2word", model).compose(features, ["in red", "in blue"], owner=[0, 0])
    assert (composed == model.compose_features(features, ["in red", "in blue"], owner=[0, 0])).all()
    assert (composed[0] != composed[1]).any()
