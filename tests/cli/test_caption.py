"""`fti4cir caption` as a user types it."""

from __future__ import annotations

import json
import re
import signal
import time
from pathlib import Path

import pytest
from torch import Tensor

from fti4cir import cli
from fti4cir.captions import generate as captioning
from fti4cir.captions.blip import BlipCaptioner
from fti4cir.captions.table import load_captioned_images
from terminal import one_error_line, run, start
from tinyclip import picture

# A process of its own, which takes its time over each batch.
SLOW = """
import sys, time
from fti4cir.captions.blip import BlipCaptioner
from fti4cir.__main__ import main
real = BlipCaptioner.caption
BlipCaptioner.caption = lambda self, pixels: time.sleep(1.0) or real(self, pixels)
main()
"""


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "my photos").mkdir()
    for number in range(9):
        picture(number).save(tmp_path / "my photos" / f"{number}.png")
    (tmp_path / "my photos" / "5.png").write_text("<html>")
    return tmp_path / "my photos"


def caption(photos: Path, blip: Path, output: Path, *more: str) -> list[str | Path]:
    return ["caption", photos, "--output", output, "--model", blip, "--batch-size", "2", *more]


def wait_for_a_line(output: Path) -> None:
    for _ in range(2400):  # importing takes long on a busy machine
        if output.exists() and b"\n" in output.read_bytes():
            return
        time.sleep(0.05)
    raise AssertionError("nothing was written")


@pytest.mark.slow
def test_captions_that_train_takes(
    photos: Path, blip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "captions.jsonl"
    assert run(*caption(photos, blip_folder, output)) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"8 images captioned in {output}, 1 left out")
    assert f"fti4cir train --images '{photos}' --captions {output} --output my-model" in out
    assert err.startswith(f"captioner: {blip_folder}\n")
    assert "left out: Cannot read '5.png'" in err
    assert load_captioned_images(photos, output).names == tuple(f"{number}.png" for number in range(9) if number != 5)
    assert re.search(r"captions: 9 of 9 images, [\d.]+ a second; about 0 min left", err)

    assert run(*caption(photos, blip_folder, output)) == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"8 images captioned in {output}, 1 left out")
    assert "left out: Cannot read '5.png'" in err


@pytest.mark.slow
def test_killed_and_interrupted(
    photos: Path,
    blip_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert run(*caption(photos, blip_folder, tmp_path / "whole.jsonl")) == 0
    output = tmp_path / "captions.jsonl"
    process = start(*caption(photos, blip_folder, output), program=SLOW)
    wait_for_a_line(output)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    killed = output.read_bytes()
    assert killed.count(b"\n") < 8

    real = BlipCaptioner.caption

    def interrupted(self: BlipCaptioner, pixels: Tensor) -> list[str]:
        if output.read_bytes() != killed:
            raise KeyboardInterrupt
        return real(self, pixels)

    monkeypatch.setattr(BlipCaptioner, "caption", interrupted)
    capsys.readouterr()
    assert run(*caption(photos, blip_folder, output)) == 130
    assert "what is done is kept, and the same command goes on from there." in one_error_line(capsys)
    monkeypatch.undo()

    assert run(*caption(photos, blip_folder, output)) == 0
    assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("more", "status", "says"),
    [
        (["--output", "gone/c.jsonl"], 1, "no folder 'gone' for the file 'c.jsonl'"),
        (["--output", "PHOTOS"], 1, "is a folder, but --output takes a file's name"),
        (["--output", "captions.csv"], 1, "end its name in .jsonl"),
        (["--model", "gone"], 1, "There is no captioner 'gone'"),
        (["--model", "PHOTOS"], 1, "holds no captioner"),
        (["--batch-size", "0"], 2, "--batch-size"),
        (["--preprocess", "stretch"], 2, "--preprocess"),
    ],
)
def test_mistakes(
    photos: Path,
    blip_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    status: int,
    says: str,
) -> None:
    given = [argument.replace("PHOTOS", str(photos)) for argument in more]
    assert run(*caption(photos, blip_folder, tmp_path / "c.jsonl", *given)) == status
    assert says in one_error_line(capsys)
    assert not (tmp_path / "c.jsonl").exists()


def test_sources_that_are_none(
    photos: Path, blip_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    for source, says in (("gone", "no folder or tar file"), ("empty", "no images in")):
        assert run(*caption(tmp_path / source, blip_folder, tmp_path / "c.jsonl")) == 1
        assert says in one_error_line(capsys)
    for path in photos.glob("*.png"):
        path.write_bytes(b"")
    assert run(*caption(photos, blip_folder, tmp_path / "c.jsonl")) == 1
    assert "None of the images" in one_error_line(capsys)


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("caption", "--help") == 0
    text = " ".join(capsys.readouterr().out.split())
    for part in (
        "FOLDER_OR_TAR",
        "--output",
        "--model",
        "--batch-size",
        "--preprocess",
        "the same command goes on from there",
    ):
        assert part in text


@pytest.mark.slow
def test_the_preprocessing_can_be_chosen(photos: Path, blip_folder: Path, tmp_path: Path) -> None:
    for more in ([], ["--preprocess", "target-pad"], ["--preprocess", "squeeze"]):
        output = tmp_path / f"{len(more)}{more[-1:]}.jsonl"
        assert run(*caption(photos, blip_folder, output, *more)) == 0
        noted = json.loads(Path(f"{output}.meta.json").read_text())["preprocess"]
        assert noted == (more[-1] if more else "target-pad")


def test_the_order_of_the_commands() -> None:
    names = list(cli.COMMANDS)
    assert names[names.index("explain") : names.index("train") + 1] == ["explain", "caption", "train"]
    assert captioning.caption_images.__kwdefaults__["batch_size"] == 16
