"""`fti4cir train` and `fti4cir convert` as a user types them."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import fti4cir
from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.training import trainer as training
from fti4cir.training.step import Stepper
from releasednetwork import SETTINGS
from standin import save_colour
from terminal import one_error_line, run
from tinyclip import random_inversion


@pytest.fixture
def captioned(tmp_path: Path) -> Path:
    """A folder of twelve images, one of them broken, with captions beside it."""
    lines = []
    for number in range(12):
        save_colour(tmp_path / "pictures" / f"{number}.png", (20 * number, 0, 255 - 20 * number))
        lines.append({"image": f"{number}.png", "subject": f"a red dog {number}", "attribute": "on the grass"})
    (tmp_path / "pictures" / "0.png").write_text("<html>")
    (tmp_path / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return tmp_path


def train(folder: Path, clip: Path, *more: str | Path) -> int:
    return run(
        "train", "--images", folder / "pictures", "--captions", folder / "captions.jsonl", "--backbone", clip,
        "--output", folder / "my model", *more,
    )  # fmt: skip


@pytest.mark.slow
def test_train(captioned: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--epochs", "2", "--batch-size", "4", "--learning-rate", "1e-3", "--seed", "3")
    assert train(captioned, clip_folder, *more) == 0
    out, err = capsys.readouterr()
    assert err.count("backbone: ") == 1
    assert "left out: Cannot read '0.png'" in err
    assert "step 4 of 4" in err
    output = captioned / "my model"
    assert out.endswith(f"  fti4cir search FOLDER --model '{output}' --image FILE --text \"in red\"\n")
    config = json.loads((output / "config.json").read_text())["trained"]["config"]
    assert [config[name] for name in ("epochs", "batch_size", "learning_rate", "seed")] == [2, 4, 1e-3, 3]
    assert config["options"]["weights"]["composed"] > 0  # the default preset
    assert run("search", captioned / "pictures", "--image", captioned / "pictures" / "3.png", "--text", "in blue",
               "--model", output, "--json") == 0  # fmt: skip
    assert json.loads(capsys.readouterr().out)["results"]

    assert train(captioned, clip_folder, *more) == 1
    assert "--resume" in one_error_line(capsys)
    assert train(captioned, clip_folder, *more, "--resume") == 0
    assert "going on from step 4 of 4" in capsys.readouterr().err
    assert train(captioned, clip_folder, "--resume") == 1
    assert "begun with epochs = 2" in one_error_line(capsys)


def test_train_by_the_papers_recipe_with_features_elsewhere(captioned: Path, clip_folder: Path) -> None:
    features = captioned / "features"
    assert train(captioned, clip_folder, "--preset", "paper", "--epochs", "1", "--features", features) == 0
    assert (features / "image.f32").exists()
    output = captioned / "my model"
    assert not (output / "features").exists()
    config = json.loads((output / "config.json").read_text())["trained"]["config"]
    assert (config["options"]["weights"]["composed"], config["learning_rate"]) == (0, 4e-5)


def test_train_another_method_in_chunks(captioned: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    more = ("--method", "pic2word", "--chunk-size", "3", "--epochs", "1", "--batch-size", "8")
    assert train(captioned, clip_folder, *more) == 0
    config = json.loads((captioned / "my model" / "config.json").read_text())
    assert config["method"] == "pic2word"
    trained = config["trained"]["config"]
    assert (trained["method"], trained["chunk_size"], trained["batch_size"]) == ("pic2word", 3, 8)
    assert (trained["options"]["contrast"], trained["options"]["temperature"]) == (
        "across",
        None,
    )  # of its published recipe


def test_an_ablation(captioned: Path, clip_folder: Path) -> None:
    assert train(captioned, clip_folder, "--preset", "composed-no-attributes", "--epochs", "1") == 0
    assert fti4cir.load(captioned / "my model").require_inversion().config.max_attributes == 0


def test_of_several_processes_only_the_first_speaks(
    captioned: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "train", lambda *_, **__: logging.getLogger("fti4cir.training").info("step 1"))
    for rank, speaks in (("0", True), ("1", False)):
        monkeypatch.setenv("RANK", rank)
        assert train(captioned, clip_folder) == 0
        out, err = capsys.readouterr()
        assert (bool(out), "step 1" in err, "backbone" in err) == (speaks, speaks, speaks)
    assert train(captioned, clip_folder, "--method", "sum") == 1
    assert "nothing to train" in one_error_line(capsys)  # what is wrong, whoever met it


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        (["--method", "sum"], 1, "'sum' has nothing to train; what can be trained: fti4cir, lincir, pic2word, searle"),
        (["--method", "pic2word", "--preset", "paper"], 1, "preset paper trains fti4cir, not pic2word; leave one"),
        (["--preset", "searle"], 1, "preset searle trains searle, not fti4cir"),
        (["--chunk-size", "0"], 2, "--chunk-size"),
        (["--method", "magic"], 1, "no method 'magic'"),
        (["--preset", "big"], 1, "there are paper, composed"),
        (["--learning-rate", "0"], 1, "learning_rate is 0.0"),
        (["--learning-rate", "nan"], 1, "learning_rate is nan"),
        (["--epochs", "0"], 2, "--epochs"),
        (["--seed", "-1"], 2, "--seed"),
        (["--images", "gone"], 1, "no folder or tar file 'gone'"),
        (["--captions", "gone.csv"], 1, "'gone.csv' does not exist"),
        (["--backbone", "gone"], 1, "There is no model 'gone'"),
        (["--output", "PICTURE/x"], 1, "is a file, not a folder; give another --output"),
    ],
)
def test_mistakes(
    captioned: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], status: int, says: str
) -> None:
    picture = str(captioned / "pictures" / "1.png")
    assert train(captioned, clip_folder, *(argument.replace("PICTURE", picture) for argument in more)) == status
    assert says in one_error_line(capsys)
    assert not (captioned / "my model" / "features").exists()


def test_ctrl_c_says_what_goes_on(
    captioned: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Stepper, "take", interrupted)
    assert train(captioned, clip_folder) == 130
    assert "the same command with --resume goes on from there" in one_error_line(capsys)
    monkeypatch.undo()
    assert train(captioned, clip_folder, "--resume", "--epochs", "1") == 0


def test_convert(
    release: Callable[[FineGrainedInversion], nn.Module],
    clip_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.save(release(random_inversion(**SETTINGS)), tmp_path / "model_59.pth")
    assert run("convert", tmp_path / "model_59.pth", "--backbone", clip_folder, "--output", tmp_path / "m") == 0
    out, err = capsys.readouterr()
    assert out.endswith(f'  fti4cir search FOLDER --model {tmp_path / "m"} --image FILE --text "in red"\n')
    assert err == f"backbone: {clip_folder}\n"
    assert fti4cir.load(tmp_path / "m").require_inversion().config.num_latent == SETTINGS["num_latent"]


def test_what_cannot_be_converted(clip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = save_colour(tmp_path / "a.png", "red")
    assert run("convert", picture, "--backbone", clip_folder, "--output", tmp_path / "m") == 1
    assert "is not a file that torch.save writes" in one_error_line(capsys)
    assert run("convert", tmp_path / "gone.pth", "--backbone", clip_folder, "--output", tmp_path / "m") == 1
    assert "gone.pth" in one_error_line(capsys)
    assert run("convert", picture, "--output", tmp_path / "m") == 2
    assert "--backbone" in one_error_line(capsys)
    assert not (tmp_path / "m").exists()
