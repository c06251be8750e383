"""Training on a tiny CLIP and generated pictures."""

import csv
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import fti4cir
from fti4cir import checkpoint, training
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.captions.split import SplitCaption
from fti4cir.errors import ModelError, TrainingError
from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.losses import LossWeights
from fti4cir.released import read_released
from fti4cir.training import Batch, TrainingConfig, compute_features, preset, train
from tinyclip import clip_folder, encoder

__all__ = ["clip_folder", "encoder"]

REFERENCE = Path(__file__).parents[2] / "shared" / "reference"
PICTURES = 40  # of which four are kept out of training
COLOURS = {"red": (220, 30, 30), "black": (10, 10, 10), "blue": (30, 30, 220), "white": (240, 240, 240)}
SMALL = {"epochs": 3, "batch_size": 8, "num_latent": 6, "max_attributes": 3, "learning_rate": 2e-3, "dropout": 0.2}
CONFIG = preset("composed", **SMALL, bfloat16=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Plain pictures of a few colours and shapes, and a file that is none."""
    folder = tmp_path_factory.mktemp("data")
    lines = [{"image": "broken.png", "subject": "a red dog", "attribute": "on grass"}]
    for number in range(PICTURES):
        colour, pixel = list(COLOURS.items())[number % 4]
        kind, place = ("dog", "cat")[number // 4 % 2], ("on the grass", "in the snow")[number // 8 % 2]
        image = Image.new("RGB", (40, 36), (60, 160, 60) if "grass" in place else (200, 210, 230))
        image.paste(pixel, (5, 5, 25, 20) if kind == "dog" else (20, 10, 32, 34))
        image.putpixel((0, 0), (number, 0, 0))
        (folder / "pictures").mkdir(exist_ok=True)
        image.save(folder / "pictures" / f"{number:02}.png")
        lines.append({"image": f"{number:02}.png", "subject": f"a {colour} {kind}", "attribute": place})
    (folder / "pictures" / "broken.png").write_text("<html>")
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return SimpleNamespace(pictures=folder / "pictures", captions=folder / "captions.jsonl")


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """For so small a network, several threads only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def quiet(line: str) -> None:
    pass


def log_of(output: Path) -> list[dict[str, str]]:
    with open(output / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def weights_of(output: Path) -> bytes:
    return (output / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def trained(data: SimpleNamespace, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "model"
    return train(CONFIG, data.pictures, data.captions, clip_folder, output, say=quiet)


# -- what comes out -------------------------------------------------------------------------------------------
def test_a_trained_model_composes(trained: Path, data: SimpleNamespace) -> None:
    model = fti4cir.load(trained)
    features = model.compose([data.pictures / "00.png"], ["in blue"])
    assert features.isfinite().all()
    trained_by = json.loads((trained / "config.json").read_text())["trained"]
    assert (trained_by["steps"], trained_by["pictures"]) == (12, 36)
    assert trained_by["config"] == asdict(CONFIG)


def test_log(trained: Path) -> None:
    rows = log_of(trained)
    assert [row["step"] for row in rows] == ["4", "8", "12"]
    assert [row["epoch"] for row in rows] == ["1.0", "2.0", "3.0"]
    for row in rows:
        terms = sum(weight * float(row[name]) for name, weight in vars(CONFIG.weights).items() if weight)
        assert float(row["total"]) == pytest.approx(terms, rel=1e-5)
        assert 0 <= float(row["val_image_R@1"]) <= 1
        assert 0 <= float(row["val_composed_R@1"]) <= 1
        assert 1 <= float(row["attributes"]) <= 3


@pytest.mark.parametrize("name", ["paper", "composed"])
def test_the_loss_falls(name: str, data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path) -> None:
    config = preset(name, **{**SMALL, "epochs": 12}, bfloat16=False, schedule="cosine")
    features = trained / "features"
    train(config, data.pictures, data.captions, clip_folder, tmp_path / "m", say=quiet, features=features)
    totals = [float(row["total"]) for row in log_of(tmp_path / "m")]
    assert totals[-1] < 0.85 * totals[0]


def test_the_same_seed_gives_the_same_model_and_another_another(
    data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        config = preset("composed", **SMALL, bfloat16=False, seed=seed)
        output = tmp_path / str(seed)
        train(config, data.pictures, data.captions, clip_folder, output, say=quiet, features=trained / "features")
    assert weights_of(tmp_path / "0") == weights_of(trained)
    assert weights_of(tmp_path / "1") != weights_of(trained)


# -- going on -------------------------------------------------------------------------------------------------
# One process forks a child for each moment, which is killed then; the last one runs to its end.
KILLED = """
import os, signal, sys
from pathlib import Path
import transformers, torch
from fti4cir import training
from test_training import CONFIG

pictures, captions, backbone, folder = map(Path, sys.argv[1:])
training._BLOCK = 8
training._SAVE_EVERY = 0.0
real_replace, real_rows, real_save, real_step = os.replace, training._write_rows, torch.save, training._Run.take_step
calls = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def replacing(name):
    def replace(source, target, **options):
        if Path(target).name == name:
            die()
        real_replace(source, target, **options)
    os.replace = replace

def half_a_block():
    def write(path, start, rows):
        if start == 16:
            real_rows(path, start, rows[:3])
            die()
        real_rows(path, start, rows)
    training._write_rows = write

def before_its_line():
    def write(path, start, rows):
        real_rows(path, start, rows)
        if start == 24 and path.name == "local.f16":
            die()
    training._write_rows = write

def half_a_checkpoint():
    def save(state, file):
        if state["step"] == 6:
            file.write(b"half")
            file.flush()
            die()
        real_save(state, file)
    torch.save = save

def at_step(number):
    def take_step(run, rate):
        if run.step == number:
            die()
        return real_step(run, rate)
    training._Run.take_step = take_step

def run(output, patch):
    child = os.fork()
    if not child:
        patch()
        training.train(CONFIG, pictures, captions, backbone, output, resume=True, say=lambda line: None)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

def rarely_saved():
    training._SAVE_EVERY = 60.0

assert run(folder / "whole", rarely_saved) == 0
killed = folder / "killed"
assert run(killed, lambda: replacing("key")) == -9
assert run(killed, half_a_block) == -9
assert run(killed, before_its_line) == -9
with open(killed / "features" / "blocks.jsonl", "a") as journal:
    journal.write('{"24": "cut o')
assert run(killed, lambda: at_step(0)) == -9
assert run(killed, lambda: at_step(3)) == -9
assert run(killed, half_a_checkpoint) == -9
with open(killed / "log.csv", "a") as log:
    log.write("7,1.7")
assert run(killed, lambda: replacing("checkpoint.pt")) == -9
assert run(killed, lambda: at_step(8)) == -9
assert run(killed, lambda: replacing("model.safetensors")) == -9
assert run(killed, lambda: None) == 0
"""


def test_killed_at_any_moment_it_ends_with_the_same_bits(
    data: SimpleNamespace, clip_folder: Path, tmp_path: Path
) -> None:
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, data.pictures, data.captions, clip_folder, tmp_path],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for name in ("model.safetensors", "log.csv", "features/image.f32", "features/local.f16", "features/blocks.jsonl"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    one, other = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, killed))
    assert (one["step"], one["sums"], one["config"]) == (other["step"], other["sums"], other["config"])
    for part in ("inversion", "average", "optimizer"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
    assert not list(killed.glob("*.tmp"))


@pytest.fixture
def halfway(data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path) -> SimpleNamespace:
    """A training that was interrupted after its first epoch, and what goes on with it."""

    def go(config: TrainingConfig = CONFIG, say=quiet, captions: Path = data.captions, backbone: Path = clip_folder):
        features = trained / "features"
        return train(config, data.pictures, captions, backbone, output, resume=True, say=say, features=features)

    def interrupt(line: str) -> None:
        if line.startswith("step 8 "):
            raise KeyboardInterrupt

    output = tmp_path / "halfway"
    with pytest.raises(KeyboardInterrupt):
        go(say=interrupt)
    state = torch.load(output / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    return SimpleNamespace(go=go, output=output, bytes=(output / "checkpoint.pt").read_bytes())


def test_resume_after_an_interruption(halfway: SimpleNamespace, trained: Path) -> None:
    lines: list[str] = []
    halfway.go(say=lines.append)
    assert "going on from step 4 of 12" in lines
    assert weights_of(halfway.output) == weights_of(trained)
    assert (halfway.output / "log.csv").read_bytes() == (trained / "log.csv").read_bytes()


def test_resume_of_a_finished_training(halfway: SimpleNamespace, trained: Path) -> None:
    halfway.go()
    (halfway.output / "model.safetensors").unlink()
    halfway.go()
    assert weights_of(halfway.output) == weights_of(trained)
    assert [row["step"] for row in log_of(halfway.output)] == ["4", "8", "12"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"epochs": 4}, "begun with epochs = 3, not 4"),
        ({"seed": 1}, "begun with seed = 0, not 1"),
        ({"weights": LossWeights()}, "begun with weights"),
    ],
)
def test_resume_with_other_settings(halfway: SimpleNamespace, changes: dict[str, object], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        halfway.go(preset("composed", **{**SMALL, "bfloat16": False, **changes}))
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


def test_resume_with_other_captions(halfway: SimpleNamespace, data: SimpleNamespace, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(data.captions.read_text().replace("snow", "rain"))
    with pytest.raises(TrainingError, match="other pictures and captions"):
        halfway.go(captions=other)


def test_resume_of_a_damaged_checkpoint(halfway: SimpleNamespace) -> None:
    (halfway.output / "checkpoint.pt").write_bytes(halfway.bytes[:1000])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read; delete it"):
        halfway.go()


def test_without_resume_a_training_is_not_overwritten(
    data: SimpleNamespace, clip_folder: Path, halfway: SimpleNamespace
) -> None:
    with pytest.raises(TrainingError, match="holds a training already"):
        train(CONFIG, data.pictures, data.captions, clip_folder, halfway.output, say=quiet)
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


# -- what goes wrong ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number(halfway: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    steps, real = itertools.count(4), training.loss_terms

    def spoilt(*arguments):
        terms, words = real(*arguments)
        if next(steps) == 6:
            # The square root of zero is a number, but its slope is none.
            spoiler = (words.subject.sum() * 0).sqrt() if where == "gradient" else torch.nan
            terms["composed"] = terms["composed"] + spoiler
        return terms, words

    monkeypatch.setattr(training, "loss_terms", spoilt)
    with pytest.raises(TrainingError, match=r"At step 6 .*nan.*the state of step 4 is kept.*smaller learning rate"):
        halfway.go()
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


def test_weights_that_are_no_numbers_are_not_saved(halfway: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    real = training._Run.take_step

    def spoilt(run, rate):
        figures = real(run, rate)
        if run.step == 8:
            next(run.inversion.parameters()).data[0, 0] = torch.inf
        return figures

    monkeypatch.setattr(training._Run, "take_step", spoilt)
    monkeypatch.setattr(training._Run, "validate", lambda run: {})
    with pytest.raises(TrainingError, match=r"At step 8 the weights .*the state of step 4 is kept"):
        halfway.go()
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


def test_a_full_disk(halfway: SimpleNamespace, trained: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(line: str) -> None:
        if line.startswith("step 8 "):
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))

    try:
        with pytest.raises(TrainingError, match=r"halfway cannot be written to: .*; what was saved before is kept"):
            halfway.go(say=fill)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes
    assert not (halfway.output / "checkpoint.tmp").exists()
    halfway.go()
    assert weights_of(halfway.output) == weights_of(trained)


def test_an_output_that_cannot_be_written_to(data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(TrainingError, match="cannot be written to"):
            train(CONFIG, data.pictures, data.captions, clip_folder, output, say=quiet)


def test_an_output_that_holds_a_clip(data: SimpleNamespace, clip_folder: Path) -> None:
    with pytest.raises(ModelError, match="a model of another kind"):
        train(CONFIG, data.pictures, data.captions, clip_folder, clip_folder, say=quiet)
    assert not (clip_folder / "features").exists()


def test_too_few_pictures(data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    captions = tmp_path / "one.jsonl"
    captions.write_text("\n".join(data.captions.read_text().splitlines()[:2]))  # one of them is broken
    with pytest.raises(TrainingError, match="Only 1 pictures with usable captions"):
        train(CONFIG, data.pictures, captions, clip_folder, tmp_path / "m", say=quiet)


def test_a_saved_model_lends_its_encoder(data: SimpleNamespace, trained: Path, tmp_path: Path) -> None:
    """Also one whose inversion weights no longer fit: training new ones is the mend."""
    stale = tmp_path / "stale"
    shutil.copytree(trained, stale, ignore=shutil.ignore_patterns("checkpoint.pt", "features"))
    config = json.loads((stale / "config.json").read_text())
    (stale / "config.json").write_text(json.dumps({**config, "fingerprint": "another"}))
    with pytest.raises(ModelError, match="train them again"):
        checkpoint.load(stale)
    one_epoch = preset("composed", **{**SMALL, "epochs": 1})
    train(one_epoch, data.pictures, data.captions, stale, tmp_path / "m", say=quiet, features=trained / "features")
    assert fti4cir.load(tmp_path / "m").encoder.name == config["backbone"]


# -- features -------------------------------------------------------------------------------------------------
def test_unreadable_pictures_are_told_once_a_run(
    data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path
) -> None:
    features = tmp_path / "features"
    for output in ("one", "two"):  # the second finds all features there
        lines: list[str] = []
        train(CONFIG, data.pictures, data.captions, clip_folder, tmp_path / output, say=lines.append, features=features)
        told = [line for line in lines if "broken.png" in line]
        assert told == ["left out: Cannot read 'broken.png': it is not a picture, but a web page or text."]
        assert any(line.startswith("features: ") for line in lines) == (output == "one")
        assert weights_of(tmp_path / output) == weights_of(trained)


def load_data(data: SimpleNamespace):
    return training.captioned.load(data.pictures, data.captions)


def test_features_are_the_encoders(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    features = compute_features(tmp_path / "f", encoder, load_data(data), quiet)
    names = load_data(data).names
    assert list(features.unreadable) == [names.index("broken.png")]
    rows = [names.index("07.png"), names.index("03.png")]
    pictures = [encoder.preprocess(Image.open(data.pictures / names[row])) for row in rows]
    expected = encoder.encode_pixels(torch.stack(pictures))
    image, local = features.take(rows, torch.device("cpu"))
    torch.testing.assert_close(image, expected.image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(local, expected.local, rtol=2e-3, atol=2e-3)


def test_features_of_others_are_kept(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "f"
    compute_features(folder, encoder, load_data(data), quiet)
    before = (folder / "image.f32").read_bytes()
    monkeypatch.setattr(encoder, "fingerprint", "another")
    with pytest.raises(TrainingError, match="of other pictures or of another backbone; delete it"):
        compute_features(folder, encoder, load_data(data), quiet)
    assert (folder / "image.f32").read_bytes() == before


def test_a_folder_with_other_things_keeps_them(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("dear")
    compute_features(tmp_path, encoder, load_data(data), quiet)
    assert (tmp_path / "photo.jpg").read_text() == "dear"


def test_damaged_features(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    compute_features(tmp_path / "f", encoder, load_data(data), quiet)
    os.truncate(tmp_path / "f" / "local.f16", 1000)
    with pytest.raises(TrainingError, match=r"damaged: local\.f16"):
        compute_features(tmp_path / "f", encoder, load_data(data), quiet)


def test_too_little_room(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(training.shutil, "disk_usage", lambda folder: usage(10))
    with pytest.raises(TrainingError, match=r"has only 0\.0 GB left"):
        compute_features(tmp_path / "f", encoder, load_data(data), quiet)


def test_a_disk_that_fills_up_while_features_are_computed(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training, "_BLOCK", 8)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limit[1]))
        with pytest.raises(TrainingError, match="cannot be written to"):
            compute_features(tmp_path / "f", encoder, load_data(data), quiet)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert 0 < len((tmp_path / "f" / "blocks.jsonl").read_text().splitlines()) < 6
    interrupted = compute_features(tmp_path / "f", encoder, load_data(data), quiet)
    whole = compute_features(tmp_path / "g", encoder, load_data(data), quiet)
    assert (interrupted.image == whole.image).all()
    assert (interrupted.local == whole.local).all()


def test_features_that_are_no_numbers(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encoder.encode_pixels
    monkeypatch.setattr(
        encoder, "encode_pixels", lambda pixels: real(pixels)._replace(local=real(pixels).local + 1e6), raising=False
    )
    with pytest.raises(ModelError, match="half precision cannot hold"):
        compute_features(tmp_path / "f", encoder, load_data(data), quiet)


# -- settings -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", training.PRESETS)
def test_every_preset_builds_its_network(name: str, encoder: ClipEncoder) -> None:
    config = preset(name)
    network = FineGrainedInversion(config.network(encoder))
    assert network.config.joint_width == encoder.joint_width
    assert network.config.dropout == config.dropout


def test_the_paper_preset_is_the_releases_recipe() -> None:
    config = preset("paper")
    assert (config.epochs, config.batch_size, config.learning_rate, config.weight_decay) == (60, 256, 4e-5, 0.01)
    assert (config.num_latent, config.max_attributes, config.threshold, config.dropout) == (24, 12, 0.05, 0.5)
    assert config.weights == LossWeights(1.0, 1.0, 1.4, 1.4, 1.4)
    assert config.temperature == 0.2


def test_steps_of_the_learning_rate() -> None:
    config = preset("paper", learning_rate=1.0)
    rates = [config.learning_rate_at(step, steps_per_epoch=7) for step in range(60 * 7)]
    assert rates[:70] == [1.0] * 70  # epochs 0 to 9
    assert rates[70:] == pytest.approx([0.1] * 350)


def test_cosine_with_warm_up() -> None:
    config = preset("composed", learning_rate=1.0, epochs=10, warmup_steps=5)
    rates = [config.learning_rate_at(step, steps_per_epoch=10) for step in range(100)]
    assert rates[:4] == sorted(rates[:4])
    assert rates[0] == pytest.approx(0.2, rel=1e-3)
    assert rates[50] == pytest.approx(0.5)
    assert rates[-1] < 0.001
    short = preset("composed", learning_rate=1.0, epochs=1, warmup_steps=50)
    assert short.learning_rate_at(1, steps_per_epoch=20) == pytest.approx(1.0, rel=0.01)


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": 0},
        {"batch_size": 0},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
        {"schedule": "linear"},
        {"average": 1.0},
        {"seed": -1},
        {"validation": -1},
        {"temperature": 0.0},
        {"clip_norm": -1.0},
    ],
)
def test_settings_that_make_no_sense(changes: dict[str, object]) -> None:
    with pytest.raises(TrainingError, match=next(iter(changes))):
        preset("paper", **changes)


def test_unknown_preset() -> None:
    with pytest.raises(TrainingError, match="no preset 'big'; there are paper, composed"):
        preset("big")


# -- the losses -----------------------------------------------------------------------------------------------
@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"the figures of the authors' release are not at {REFERENCE}")
def test_losses_of_the_paper_preset_are_the_releases() -> None:
    expected = load_file(REFERENCE / "expected.safetensors")
    texts = json.loads((REFERENCE / "texts.json").read_text(encoding="utf-8"))
    released = read_released(REFERENCE / "released_checkpoint.pth")
    tiny = checkpoint.load_encoder(REFERENCE / "clip-tiny", device="cpu")
    config = preset("paper")
    inversion = FineGrainedInversion(config.network(tiny)).eval()
    inversion.load_state_dict(released.state)
    captions = [SplitCaption(*parts) for parts in zip(texts["subjects"], texts["attributes"], strict=True)]
    features = tiny.encode_pixels(expected["pixel_values"])
    batch = Batch(list(range(6)), captions, [], [])
    terms, words = training.loss_terms(config, tiny, inversion, features.image, features.local, batch)
    assert list(terms) == [name for name, weight in vars(config.weights).items() if weight]
    assert words.counts.tolist() == expected["num_attributes"].tolist()
    torch.testing.assert_close(config.weights.total(terms), expected["loss_total"], rtol=1e-5, atol=1e-5)


def test_losses_of_weight_zero_are_left_out(encoder: ClipEncoder) -> None:
    features = encoder.encode_pixels(torch.randn(3, 3, 32, 32))
    batch = Batch([0, 1, 2], [SplitCaption("a dog", "on grass")] * 3, ["in red"] * 3, ["a red dog on grass"] * 3)
    for name in ("contrastive", "orthogonality", "regularization_whole", "composed"):
        weights = LossWeights(**{**dict.fromkeys(vars(LossWeights()), 0.0), name: 1.0})
        config = TrainingConfig(num_latent=6, max_attributes=3, weights=weights)
        inversion = FineGrainedInversion(config.network(encoder))
        terms, _ = training.loss_terms(config, encoder, inversion, features.image, features.local, batch)
        assert list(terms) == [name]


def test_training_for_the_subject_alone(encoder: ClipEncoder) -> None:
    config = preset("composed", max_attributes=0)
    inversion = FineGrainedInversion(config.network(encoder))
    features = encoder.encode_pixels(torch.randn(2, 3, 32, 32))
    batch = Batch([0, 1], [SplitCaption("a dog", "on grass")] * 2, ["in red"] * 2, ["a red dog on grass"] * 2)
    terms, _ = training.loss_terms(config, encoder, inversion, features.image, features.local, batch)
    assert list(terms) == ["contrastive", "regularization_subject", "regularization_whole", "composed"]
    config.weights.total(terms).backward()
    assert all(parameter.grad is not None for parameter in inversion.parameters())


def a_run(captions: list[list[SplitCaption]], encoder: ClipEncoder, folder: Path, **changes: object) -> training._Run:
    """A run over pictures of which nothing but a number is known, in their image feature."""
    count = len(captions)
    image = torch.arange(count, dtype=torch.float32)[:, None].expand(-1, encoder.joint_width).numpy()
    local = torch.zeros(count, 5, encoder.vision_width).half().numpy()
    config = preset("composed", **{**SMALL, **changes})
    names = [f"{row}.png" for row in range(count)]
    features = training.Features(image, local, {})
    return training._Run(config, encoder, features, names, captions, list(range(count)), [], folder, print)


def test_edited_captions_find_the_pictures_that_carry_them(encoder: ClipEncoder, tmp_path: Path) -> None:
    red, blue, green = (SplitCaption(f"a {colour} shirt", "for men") for colour in ("red", "blue", "green"))
    run = a_run([[red], [blue], [blue, green], [red]], encoder, tmp_path)
    edited = ["a blue shirt for men", "a pink shirt for men", "a green shirt for men"]
    batch = Batch([0, 1, 3], [red, blue, red], ["in blue", "in pink", "in green"], edited)
    found = run.find(batch, random.Random(0))
    assert found is not None
    assert found.places == [0, 2]  # nobody carries the pink one
    assert found.image[0, 0].item() in (1, 2)
    assert found.image[1, 0].item() == 2
    blue_of = [found.image[0, 0].item() in (1, 2), True, False, True, False]  # found two, then rows 0, 1 and 3
    assert found.same[0].tolist() == blue_of
    assert found.same[1].tolist() == [found.image[0, 0].item() == 2, True, False, False, False]
    pinks = Batch([0, 1], [red, blue], ["in pink"] * 2, ["a pink shirt for men"] * 2)
    assert run.find(pinks, random.Random(0)) is None


def test_the_loss_against_pictures_pulls_composed_sentences_to_them(encoder: ClipEncoder, tmp_path: Path) -> None:
    red, blue = SplitCaption("a red shirt", "for men"), SplitCaption("a blue shirt", "for men")
    run = a_run([[red], [blue]], encoder, tmp_path)
    batch = Batch([0, 1], [red, blue], ["in blue", "in red"], [str(blue), str(red)])
    image, local = torch.randn(2, encoder.joint_width), torch.randn(2, 5, encoder.vision_width)
    same = torch.zeros(2, 4, dtype=torch.bool)

    def loss(targets: torch.Tensor) -> torch.Tensor:
        found = training.Found([0, 1], targets, same)
        return training.loss_terms(run.config, encoder, run.inversion.eval(), image, local, batch, found)[0][
            "composed_image"
        ]

    words = run.inversion.eval()(image, local)
    sentences = [training.pseudo_sentence(words, text) for text in batch.modifications]
    query = training.encode_sentences(encoder, sentences, words)
    assert loss(query) < loss(-query)


def test_attribute_gain_scales_only_the_projection_of_the_attributes(encoder: ClipEncoder, tmp_path: Path) -> None:
    caption = [[SplitCaption("a dog", "on grass")]] * 2
    one, six = (a_run(caption, encoder, tmp_path, attribute_gain=gain).inversion for gain in (1.0, 6.0))
    for (name, ours), theirs in zip(one.state_dict().items(), six.state_dict().values(), strict=True):
        torch.testing.assert_close(theirs, ours * (6 if name == "latent.project.weight" else 1))
