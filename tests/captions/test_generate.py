"""Captioning a folder or a tar with a tiny BLIP, interrupted in every way."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from fti4cir.captions import blip
from fti4cir.captions.blip import BlipCaptioner
from fti4cir.captions.generate import CaptionReport, caption_images
from fti4cir.captions.table import load_captioned_images
from fti4cir.errors import InputError
from tinyblip import build
from tinyclip import picture

PICTURES = 11
BATCH = 3
BROKEN = ["04.png", "05.png", "10.png"]  # inside a batch, at its end, and the very last image


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "más").mkdir(parents=True)
    for number in range(PICTURES):
        picture(number, (30 + number, 40)).save(folder / f"{number:02}.png")
    picture(99).save(folder / "más" / "синий.png")
    return folder


@pytest.fixture
def with_broken(photos: Path) -> Path:
    for name in BROKEN:
        (photos / name).write_text("<html>")
    return photos


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the batches that pass the captioner."""
    seen: list[int] = []
    real = BlipCaptioner.caption

    def caption(self: BlipCaptioner, pixels: Tensor) -> list[str]:
        seen.append(len(pixels))
        return real(self, pixels)

    monkeypatch.setattr(BlipCaptioner, "caption", caption)
    return seen


@pytest.fixture(autouse=True)
def logged(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """What the runs log."""
    caplog.set_level("INFO", logger="fti4cir")
    return caplog


def left_out(logged: pytest.LogCaptureFixture) -> int:
    """How many warnings of images that are left out there were since the last call."""
    lines = [record.message for record in logged.records if record.levelname == "WARNING"]
    logged.clear()
    return sum(line.startswith("left out: ") for line in lines)


def run(source: Path, output: Path, model: Path, batch_size: int = BATCH) -> CaptionReport:
    return caption_images(source, output, model=model, batch_size=batch_size)


def images_of(output: Path) -> list[str]:
    return [json.loads(line)["image"] for line in output.read_text().splitlines()]


# -- what comes out -------------------------------------------------------------------------------------------
def test_what_training_reads(photos: Path, tmp_path: Path, blip_folder: Path, sizes: list[int]) -> None:
    output = tmp_path / "captions.jsonl"
    assert run(photos, output, blip_folder) == (PICTURES + 1, {})
    data = load_captioned_images(photos, output)
    assert len(data) == PICTURES + 1
    assert data.missing == ()
    assert images_of(output) == sorted(data.names)
    assert "más/синий.png" in data.names
    assert sizes == [3, 3, 3, 3]
    captioner = blip.load_captioner(blip_folder)
    for name, (caption,) in zip(data.names, data.captions, strict=True):  # each image has its own, not its neighbour's
        number = 99 if "/" in name else int(name[:2])
        image = picture(number, (48, 40) if "/" in name else (30 + number, 40))
        assert caption.text == captioner.caption(captioner.preprocess(image)[None])[0]


def test_images_are_decoded_exactly_and_shown_as_asked(tmp_path: Path, blip_folder: Path) -> None:
    """A photograph's JPEG is not decoded at a fraction of its size, which gives other pixels."""
    (tmp_path / "photos").mkdir()
    picture(3, (600, 300)).resize((1200, 600)).save(tmp_path / "photos" / "a.jpg")
    seen: dict[str, Tensor] = {}
    real = BlipCaptioner.caption
    for how in blip.PREPROCESSINGS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(
                BlipCaptioner, "caption", lambda self, p, how=how: seen.setdefault(how, p) is None or real(self, p)
            )
            caption_images(tmp_path / "photos", tmp_path / f"{how}.jsonl", model=blip_folder, preprocessing=how)
        captioner = blip.load_captioner(blip_folder, preprocessing=how)
        with Image.open(tmp_path / "photos" / "a.jpg") as image:
            assert torch.equal(seen[how][0], captioner.preprocess(image.convert("RGB")))
        assert json.loads((tmp_path / f"{how}.jsonl.meta.json").read_text())["preprocess"] == how
    assert not torch.equal(seen["target-pad"], seen["squeeze"])


def test_a_tar(photos: Path, tmp_path: Path, blip_folder: Path) -> None:
    run(photos, tmp_path / "of folder.jsonl", blip_folder)
    with tarfile.open(tmp_path / "photos.tar", "w") as tar:
        tar.add(photos, ".")
    assert run(tmp_path / "photos.tar", tmp_path / "of tar.jsonl", blip_folder).captioned == PICTURES + 1
    assert (tmp_path / "of tar.jsonl").read_bytes() == (tmp_path / "of folder.jsonl").read_bytes()


def test_progress(
    photos: Path,
    tmp_path: Path,
    blip_folder: Path,
    logged: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("fti4cir.progress.EVERY", 0.0)
    run(photos, tmp_path / "c.jsonl", blip_folder)
    lines = logged.messages
    assert [line.split(" images")[0] for line in lines] == [f"captions: {done} of 12" for done in (3, 6, 9, 12)]
    assert "a second; about 0 min left" in lines[-1]


def test_each_run_warns_of_unreadable_images(
    with_broken: Path, tmp_path: Path, blip_folder: Path, sizes: list[int], logged: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "c.jsonl"
    report = run(with_broken, output, blip_folder)
    assert report.captioned == PICTURES + 1 - len(BROKEN)
    assert list(report.unreadable) == BROKEN
    assert all("web page" in reason for reason in report.unreadable.values())
    assert left_out(logged) == len(BROKEN)
    assert sizes == [3, 1, 3, 2]
    before = output.read_bytes()
    assert run(with_broken, output, blip_folder) == report
    assert left_out(logged) == len(BROKEN)
    assert output.read_bytes() == before
    assert sizes == [3, 1, 3, 2]  # nothing was captioned again


def test_a_repaired_image_gets_its_caption_in_its_place(with_broken: Path, tmp_path: Path, blip_folder: Path) -> None:
    output = tmp_path / "c.jsonl"
    run(with_broken, output, blip_folder)
    for number in (4, 5, 10):
        picture(number, (30 + number, 40)).save(with_broken / f"{number:02}.png")
    assert run(with_broken, output, blip_folder) == (PICTURES + 1, {})
    run(with_broken, tmp_path / "new.jsonl", blip_folder)
    assert output.read_bytes() == (tmp_path / "new.jsonl").read_bytes()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere, names are always text")
def test_a_name_that_is_not_utf8(photos: Path, tmp_path: Path, blip_folder: Path) -> None:
    shutil.copy(photos / "00.png", os.fsencode(photos) + b"/caf\xe9.png")
    report = run(photos, tmp_path / "c.jsonl", blip_folder)
    assert report.captioned == PICTURES + 1
    (reason,) = report.unreadable.values()
    assert "caf�.png" in reason
    assert "rename" in reason


# -- going on -------------------------------------------------------------------------------------------------
# One process forks a child for each moment, which is killed then; the last one runs to its end.
KILLED = """
import contextlib, os, signal, sys
from pathlib import Path
import transformers, torch
from fti4cir.captions import output as output_
from fti4cir.captions.generate import caption_images

photos, blip, folder = map(Path, sys.argv[1:4])
batch_size = int(sys.argv[4])
real_append = output_.append

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def cut(number, end):
    # Dies once the lines of batch `number` are written up to `end`.
    calls = 0
    def append(output, content):
        nonlocal calls
        if calls == number:
            text = content.decode()
            with open(output, "a") as file:
                file.write(text[: end(text)])
            die()
        calls += 1
        real_append(output, content)
    output_.append = append

def before_the_note():
    output_.replacing = lambda path: die()

def half_a_note():
    real = output_.replacing
    @contextlib.contextmanager
    def half(path):
        with real(path) as file:
            yield file
            file.truncate(9)
            file.flush()
            die()
    output_.replacing = half

def run(output, patch):
    torch.set_num_threads(1)
    child = os.fork()
    if not child:
        patch()
        caption_images(photos, output, model=blip, batch_size=batch_size)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

assert run(folder / "whole.jsonl", lambda: None) == 0
moments = [
    before_the_note,
    half_a_note,
    lambda: cut(0, lambda text: 0),
    lambda: cut(0, lambda text: 5),                         # nothing but a torn line
    lambda: cut(0, lambda text: text.index("\\n") + 9),      # a line and a torn one, inside a batch
    lambda: cut(0, lambda text: len(text) - 1),             # all but the end of the last line
    lambda: cut(1, len),
    lambda: cut(0, lambda text: text.index("\\n") + 1),      # a whole line, inside a batch
    lambda: cut(1, lambda text: 2),
]
for moment in moments:
    assert run(folder / "killed.jsonl", moment) == -signal.SIGKILL
assert run(folder / "killed.jsonl", lambda: None) == 0
"""


@pytest.mark.slow
def test_killed_at_any_moment(with_broken: Path, tmp_path: Path, blip_folder: Path) -> None:
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [sys.executable, "-c", KILLED, with_broken, blip_folder, tmp_path, str(BATCH)],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    whole = (tmp_path / "whole.jsonl").read_bytes()
    assert whole.count(b"\n") == PICTURES + 1 - len(BROKEN)
    assert (tmp_path / "killed.jsonl").read_bytes() == whole
    assert {path.name for path in tmp_path.glob("[!.]*.jsonl*")} == {
        f"{name}.jsonl{end}" for name in ("whole", "killed") for end in ("", ".meta.json")
    }


def test_batches_are_the_same_after_an_interruption(
    photos: Path, tmp_path: Path, blip_folder: Path, sizes: list[int], logged: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "c.jsonl"
    run(photos, output, blip_folder)
    whole = output.read_bytes()
    output.write_bytes(b"".join(whole.splitlines(keepends=True)[:4]))  # the second batch is begun
    sizes.clear()
    logged.clear()
    run(photos, output, blip_folder)
    assert sizes == [3, 3, 3]  # the second, whole, and the two after it
    assert output.read_bytes() == whole
    assert logged.messages[0] == "going on: 4 of 12 images captioned already"


def test_a_full_disk_loses_nothing(
    photos: Path, tmp_path: Path, blip_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "c.jsonl"
    real = os.fsync

    def full(descriptor: int) -> None:
        if output.exists() and output.stat().st_size > 400:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match=r"No space left on device; what was saved before is kept"):
        run(photos, output, blip_folder)
    monkeypatch.undo()
    assert run(photos, output, blip_folder).captioned == PICTURES + 1
    assert images_of(output) == sorted(images_of(output))


def test_a_caption_that_was_corrected_by_hand_stays(photos: Path, tmp_path: Path, blip_folder: Path) -> None:
    output = tmp_path / "c.jsonl"
    run(photos, output, blip_folder)
    lines = output.read_text().splitlines()
    lines[2] = '{"image": "02.png", "caption": "a black dog on the grass"}'
    output.write_text("\n".join([*lines[:5], ""]))
    run(photos, output, blip_folder)
    assert load_captioned_images(photos, output).captions[2][0].text == "a black dog on the grass"
    assert len(images_of(output)) == PICTURES + 1


# -- what is refused ------------------------------------------------------------------------------------------
def test_captions_that_are_made_of_something_else(photos: Path, tmp_path: Path, blip_folder: Path) -> None:
    output = tmp_path / "c.jsonl"
    run(photos, output, blip_folder)
    before = output.read_bytes()
    with pytest.raises(InputError, match="another captioner or precision"):
        run(photos, output, build(tmp_path / "other", seed=1))
    with pytest.raises(InputError, match="--batch-size 3, not 4"):
        run(photos, output, blip_folder, batch_size=4)
    with pytest.raises(InputError, match="--preprocess target-pad, not squeeze"):
        caption_images(photos, output, model=blip_folder, batch_size=BATCH, preprocessing="squeeze")
    with pytest.raises(InputError, match="other images than are now in"):
        run(shutil.copytree(photos, tmp_path / "elsewhere"), output, blip_folder)
    picture(7).save(photos / "new.png")
    with pytest.raises(InputError, match="other images than are now in"):
        run(photos, output, blip_folder)
    assert output.read_bytes() == before
    output.unlink()  # then there is nothing to be mixed up
    assert run(photos, output, blip_folder).captioned == PICTURES + 2


@pytest.mark.parametrize("note", [None, "", "[]", '{"source": ', "{}"])
def test_a_file_of_unknown_origin_is_not_touched(
    photos: Path, tmp_path: Path, blip_folder: Path, note: str | None
) -> None:
    output = tmp_path / "diary.txt"
    output.write_text("no line's end")
    if note is not None:
        (tmp_path / "diary.txt.meta.json").write_text(note)
    with pytest.raises(InputError, match="is not empty"):
        run(photos, output, blip_folder)
    assert output.read_text() == "no line's end"


def test_captions_damaged_by_hand(photos: Path, tmp_path: Path, blip_folder: Path) -> None:
    output = tmp_path / "c.jsonl"
    run(photos, output, blip_folder)
    output.write_text("nonsense\n" + output.read_text())
    with pytest.raises(InputError, match="Line 1 of"):
        run(photos, output, blip_folder)


def test_nothing_to_caption(tmp_path: Path, blip_folder: Path, logged: pytest.LogCaptureFixture) -> None:
    output = tmp_path / "c.jsonl"
    with pytest.raises(InputError, match="There is no folder or tar file"):
        run(tmp_path / "gone", output, blip_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="There are no images in"):
        run(tmp_path / "empty", output, blip_folder)
    (tmp_path / "empty" / "a.png").write_text("<html>")
    with pytest.raises(InputError, match=r"None of the images in .* can be read \(1\)"):
        run(tmp_path / "empty", output, blip_folder)
    assert left_out(logged) == 1


def test_outputs_that_cannot_be(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("the captioner was loaded first")

    monkeypatch.setattr(blip, "load_captioner", too_late)
    for output, says in (
        (tmp_path / "gone" / "c.jsonl", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (photos / "00.png" / "c.jsonl", "Not a directory"),
        (tmp_path / "c.csv", "end its name in .jsonl"),
    ):
        with pytest.raises(InputError, match=says):
            run(photos, output, Path("any"))
