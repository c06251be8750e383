"""A backbone is one file: it is found, loaded and listed without any other file naming it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image

import fti4cir.backbones as package
from fti4cir.backbones import registry
from fti4cir.errors import ModelError
from fti4cir.methods.registry import preset, train
from fti4cir.models.loading import load, load_encoder
from fti4cir.models.saved import save_model
from tinyclip import build, picture, random_inversion
from tinydata import SMALL, write_data

FILE = '''"""A CLIP whose images are mirrored."""

from PIL import ImageOps

from fti4cir.backbones import clip
from fti4cir.backbones.registry import Backbone

BACKBONE = Backbone(kind="Mirror", model_types=("mirror",))


class MirrorEncoder(clip.ClipEncoder):
    def preprocess(self, image):
        return super().preprocess(ImageOps.mirror(image))


def load_encoder(folder, name, dtype):
    encoder = clip.load_encoder(folder, name, dtype)
    encoder.__class__ = MirrorEncoder
    return encoder
'''


@pytest.fixture
def backbone_folder(tmp_path: Path) -> Path:
    folder = tmp_path / "backbones"
    folder.mkdir()
    (folder / "mirror.py").write_text(FILE)
    return folder


@pytest.fixture
def mirror(backbone_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A model of the new kind, while its backbone is there."""
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(backbone_folder)])
    folder = build(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mirror"}))
    yield folder
    sys.modules.pop("fti4cir.backbones.mirror", None)


def test_what_is_there() -> None:
    assert registry.kinds() == ["CLIP"]
    assert registry.model_types() == ["clip"]
    assert registry.bundled_folder("clip") is None
    folder = registry.bundled_folder("mini")
    assert folder is not None
    assert (folder / "model.safetensors").exists()


def test_a_new_backbone_encodes_composes_and_is_saved(mirror: Path, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(mirror, tmp_path / "plain"))
    config = json.loads((plain / "config.json").read_text())
    (plain / "config.json").write_text(json.dumps({**config, "model_type": "clip"}))
    image = picture()
    mirrored = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    model = load(mirror, "cpu")
    torch.testing.assert_close(model.encode_images([image]), load(plain, "cpu").encode_images([mirrored]))
    saved = save_model(tmp_path / "saved", random_inversion(), encoder=model.encoder, trained={})
    assert load(saved, "cpu").compose([image], ["is red"]).norm().item() == pytest.approx(1, abs=1e-5)


def test_a_new_backbone_is_trained_for(mirror: Path, tmp_path: Path) -> None:
    data = write_data(tmp_path / "data")
    config = preset("pic2word", **{**SMALL, "epochs": 1})
    folder = train(config, data.pictures, data.captions, mirror, tmp_path / "trained")
    assert load(folder, "cpu").compose([picture()], ["is red"]).isfinite().all()


def test_the_error_lists_the_kinds(mirror: Path) -> None:
    (mirror / "config.json").write_text(json.dumps({"model_type": "x"}))
    with pytest.raises(ModelError) as caught:
        load_encoder(mirror, "cpu")
    assert str(caught.value) == (
        f"{mirror} is not a model that can be read: its config.json says 'x'; known are clip, mirror."
    )


@pytest.mark.parametrize(
    ("command", "option"), [("train", "--backbone"), ("evaluate cirr", "--model"), ("index", "--model")]
)
def test_the_help_lists_the_kinds(command: str, option: str, backbone_folder: Path) -> None:
    code = (
        "import sys, fti4cir.backbones as package; package.__path__.append(sys.argv.pop(1)); "
        "from fti4cir.__main__ import main; main()"
    )
    shown = subprocess.run(
        [sys.executable, "-c", code, str(backbone_folder), *command.split(), "--help"],
        env={**os.environ, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert option in shown.stdout
    assert "CLIP or Mirror" in " ".join(shown.stdout.replace("│", " ").split())


def test_no_torch_is_needed() -> None:
    code = "import sys; from fti4cir.backbones import registry; registry.kinds(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
