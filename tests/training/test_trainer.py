"""Training on a tiny CLIP and generated images."""

import importlib
import itertools
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

import fti4cir
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.captions.split import SplitCaption
from fti4cir.errors import ModelError, TrainingError
from fti4cir.features.cache import Features
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.methods import _concepts, registry, searle
from fti4cir.methods.fti4cir import InversionObjective, InversionOptions, InversionWeights
from fti4cir.methods.registry import create, preset, train
from fti4cir.models import loading as checkpoint
from fti4cir.models.queries import Queries
from fti4cir.training import trainer as training
from fti4cir.training.batches import EpochOrder, grouped_order
from fti4cir.training.config import TrainingConfig
from fti4cir.training.data import TrainingData
from fti4cir.training.distributed import World
from fti4cir.training.state import make_optimizer
from fti4cir.training.step import Stepper
from fti4cir.training.trainer import Training
from tinydata import SMALL, SMALL_ATTRIBUTES, log_of, logged, weights_of

pytestmark = pytest.mark.usefixtures("one_thread")

FINE = {**SMALL, **SMALL_ATTRIBUTES}
CONFIG = preset("composed", **FINE)


@pytest.fixture(scope="module")
def trained(data: SimpleNamespace, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("trained") / "model"
    return train(CONFIG, data.pictures, data.captions, clip_folder, output)


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
        terms = sum(weight * float(row[name]) for name, weight in vars(CONFIG.options.weights).items() if weight)
        assert float(row["total"]) == pytest.approx(terms, rel=1e-5)
        assert 0 <= float(row["val_image_R@1"]) <= 1
        assert 0 <= float(row["val_composed_R@1"]) <= 1
        assert 1 <= float(row["attributes"]) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "composed"])
def test_the_loss_falls(name: str, data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path) -> None:
    config = preset(name, **{**FINE, "epochs": 12}, schedule="cosine")
    features = trained / "features"
    train(config, data.pictures, data.captions, clip_folder, tmp_path / "m", features=features)
    totals = [float(row["total"]) for row in log_of(tmp_path / "m")]
    assert totals[-1] < 0.85 * totals[0]


def test_the_same_seed_gives_the_same_model_and_another_another(
    data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path
) -> None:
    for seed in (0, 1):
        config = preset("composed", **FINE, seed=seed)
        output = tmp_path / str(seed)
        train(config, data.pictures, data.captions, clip_folder, output, features=trained / "features")
    assert weights_of(tmp_path / "0") == weights_of(trained)
    assert weights_of(tmp_path / "1") != weights_of(trained)


# -- going on -------------------------------------------------------------------------------------------------
# One process forks a child for each moment, which is killed then; the last one runs to its end.
KILLED = """
import json, os, signal, sys
from pathlib import Path
import transformers, torch
from fti4cir.features import cache as features, matrix
from fti4cir.methods import registry
from fti4cir.models.queries import Queries
from fti4cir.training import trainer as training
from fti4cir.training.step import Stepper

images, captions, backbone, folder = map(Path, sys.argv[1:5])
config = registry.preset("composed", **json.loads(sys.argv[5]))
features._BLOCK, matrix._TEXT_BLOCK = 8, 4
training._SAVE_EVERY = 0.0
real_replace, real_rows, real_save, real_step = Path.replace, features.write_rows, torch.save, Stepper.take
real_sentences = matrix.encode_sentences
calls = 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def replacing(name):
    def replace(source, target):
        if Path(target).name == name:
            die()
        return real_replace(source, target)
    Path.replace = replace

def half_a_block():
    def write(path, start, rows):
        if start == 16:
            real_rows(path, start, rows[:3])
            die()
        real_rows(path, start, rows)
    features.write_rows = write

def before_its_line():
    def write(path, start, rows):
        real_rows(path, start, rows)
        if start == 24 and path.name == "local.f16":
            die()
    features.write_rows = write

def half_the_captions():
    blocks = []
    def encode(*arguments):
        blocks.append(0)
        if len(blocks) == 3:
            die()
        return real_sentences(*arguments)
    matrix.encode_sentences = encode

def half_a_checkpoint():
    def save(state, file):
        if state["step"] == 6:
            file.write(b"half")
            file.flush()
            die()
        real_save(state, file)
    torch.save = save

def at_step(number):
    def take(stepper, state, batch, *, rate):
        if state.step == number:
            die()
        return real_step(stepper, state, batch, rate=rate)
    Stepper.take = take

def run(output, patch):
    child = os.fork()
    if not child:
        patch()
        registry.train(config, images, captions, backbone, output, resume=True)
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
    journal.write('{"block": 3, "cut o')
assert run(killed, half_the_captions) == -9
[partial] = (killed / "features").glob("texts-*.part")
assert partial.stat().st_size == 2 * 4 * 24 * 4  # two blocks of four features each
with open(partial, "ab") as captions_:
    captions_.write(b"half a block")
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


@pytest.mark.slow
def test_killed_at_any_moment_it_ends_with_the_same_bits(
    data: SimpleNamespace, clip_folder: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", KILLED, data.pictures, data.captions, clip_folder, tmp_path, json.dumps(FINE)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    names = ["model.safetensors", "log.csv", "features/image.f32", "features/local.f16"]
    for name in [*names, *(f"features/{path.name}" for path in (whole / "features").glob("texts-*"))]:
        assert (killed / name).read_bytes() == (whole / name).read_bytes(), name
    journals = (
        map(json.loads, (folder / "features/blocks.jsonl").read_text().splitlines()) for folder in (whole, killed)
    )
    one, other = ({line["block"]: line for line in lines} for lines in journals)
    assert one == other
    one, other = (torch.load(folder / "checkpoint.pt", weights_only=True) for folder in (whole, killed))
    assert (one["step"], one["sums"], one["config"]) == (other["step"], other["sums"], other["config"])
    for part in ("inversion", "average", "optimizer"):
        torch.testing.assert_close(one[part], other[part], rtol=0, atol=0)
    assert not [*killed.glob("*.tmp"), *killed.glob(".*.tmp"), *killed.glob("features/*.part")]


@pytest.fixture
def halfway(data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path) -> SimpleNamespace:
    """A training that was interrupted after its first epoch, and what goes on with it."""

    def go(config: TrainingConfig = CONFIG, *, captions: Path = data.captions, backbone: Path = clip_folder):
        features = trained / "features"
        return train(config, data.pictures, captions, backbone, output, resume=True, features=features)

    def interrupt(line: str) -> None:
        if line.startswith("step 8 "):
            raise KeyboardInterrupt

    output = tmp_path / "halfway"
    with pytest.raises(KeyboardInterrupt), logged(interrupt):
        go()
    state = torch.load(output / "checkpoint.pt", weights_only=True)
    assert state["step"] == 4
    return SimpleNamespace(go=go, output=output, bytes=(output / "checkpoint.pt").read_bytes())


def test_resume_after_an_interruption(halfway: SimpleNamespace, trained: Path) -> None:
    with logged() as lines:
        halfway.go()
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
        ({"weights": InversionWeights()}, "begun with weights"),
    ],
)
def test_resume_with_other_settings(halfway: SimpleNamespace, changes: dict[str, object], says: str) -> None:
    with pytest.raises(TrainingError, match=says):
        halfway.go(preset("composed", **{**FINE, **changes}))
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


def test_resume_with_other_captions(halfway: SimpleNamespace, data: SimpleNamespace, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_text(data.captions.read_text().replace("snow", "rain"))
    with pytest.raises(TrainingError, match="other images and captions"):
        halfway.go(captions=other)


def test_resume_of_a_damaged_checkpoint(halfway: SimpleNamespace) -> None:
    (halfway.output / "checkpoint.pt").write_bytes(halfway.bytes[:1000])
    with pytest.raises(TrainingError, match=r"checkpoint\.pt cannot be read; delete it"):
        halfway.go()


def test_without_resume_a_training_is_not_overwritten(
    data: SimpleNamespace, clip_folder: Path, halfway: SimpleNamespace
) -> None:
    with pytest.raises(TrainingError, match="holds a training already"):
        train(CONFIG, data.pictures, data.captions, clip_folder, halfway.output)
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


# -- what goes wrong ------------------------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_a_loss_that_is_no_number(halfway: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    steps, real = itertools.count(4), InversionObjective.terms

    def spoilt(objective, outputs, batch):
        terms = real(objective, outputs, batch)
        if next(steps) == 6:
            # The square root of zero is a number, but its slope is none.
            spoiler = (outputs["whole"].sum() * 0).sqrt() if where == "gradient" else torch.nan
            terms["composed"] = terms["composed"] + spoiler
        return terms

    monkeypatch.setattr(InversionObjective, "terms", spoilt)
    with pytest.raises(TrainingError, match=r"At step 6 .*nan.*the state of step 4 is kept.*smaller learning rate"):
        halfway.go()
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


def test_a_loss_that_explodes(halfway: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    steps, real = itertools.count(4), InversionObjective.terms

    def spoilt(objective, outputs, batch):
        terms = real(objective, outputs, batch)
        return {**terms, "composed": terms["composed"] + 1000} if next(steps) == 6 else terms

    monkeypatch.setattr(InversionObjective, "terms", spoilt)
    with pytest.raises(TrainingError, match=r"At step 6 the loss is .*where it began with .*state of step 4 is kept"):
        halfway.go()
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


def test_captions_too_long_for_the_encoder_are_told_once(
    data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path
) -> None:
    lines = data.captions.read_text().splitlines()
    record = json.loads(lines[3])
    lines[3] = json.dumps({**record, "attribute": "on grass " * 100})
    (tmp_path / "captions.jsonl").write_text("\n".join(lines))
    config = preset("composed", **{**SMALL, "epochs": 1})
    with warnings.catch_warnings(), logged() as lines:
        warnings.simplefilter("error")
        train(config, data.pictures, tmp_path / "captions.jsonl", clip_folder, tmp_path / "m")
    assert len([line for line in lines if "longer than" in line]) == 1


def test_weights_that_are_no_numbers_are_not_saved(halfway: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Stepper.take

    def spoilt(stepper, state, batch, *, rate):
        figures = real(stepper, state, batch, rate=rate)
        if state.step == 8:
            next(state.network.parameters()).data[0, 0] = torch.inf
        return figures

    monkeypatch.setattr(Stepper, "take", spoilt)
    monkeypatch.setattr(training, "validate", lambda *_, **__: {})
    with pytest.raises(TrainingError, match=r"At step 8 the weights .*the state of step 4 is kept"):
        halfway.go()
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes


def test_a_full_disk(halfway: SimpleNamespace, trained: Path) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(line: str) -> None:
        if line.startswith("step 8 "):
            resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))

    says = r"halfway cannot be written to: .*; what was saved before is kept"
    try:
        with pytest.raises(TrainingError, match=says), logged(fill):
            halfway.go()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert (halfway.output / "checkpoint.pt").read_bytes() == halfway.bytes
    assert not [*halfway.output.glob(".*.tmp")]
    halfway.go()
    assert weights_of(halfway.output) == weights_of(trained)


def test_an_output_that_cannot_be_written_to(data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nothing")):
        with pytest.raises(TrainingError, match="cannot be written to"):
            train(CONFIG, data.pictures, data.captions, clip_folder, output)


def test_an_output_that_holds_a_clip(data: SimpleNamespace, clip_folder: Path) -> None:
    with pytest.raises(ModelError, match="a model of another kind"):
        train(CONFIG, data.pictures, data.captions, clip_folder, clip_folder)
    assert not (clip_folder / "features").exists()


def test_too_few_images(data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    captions = tmp_path / "one.jsonl"
    captions.write_text("\n".join(data.captions.read_text().splitlines()[:2]))  # one of them is broken
    with pytest.raises(TrainingError, match="Only 1 images with usable captions"):
        train(CONFIG, data.pictures, captions, clip_folder, tmp_path / "m")


def test_a_saved_model_lends_its_encoder(data: SimpleNamespace, trained: Path, tmp_path: Path) -> None:
    """Also one whose inversion weights no longer fit: training new ones is the mend."""
    stale = tmp_path / "stale"
    shutil.copytree(trained, stale, ignore=shutil.ignore_patterns("checkpoint.pt", "features"))
    config = json.loads((stale / "config.json").read_text())
    (stale / "config.json").write_text(json.dumps({**config, "fingerprint": "another"}))
    with pytest.raises(ModelError, match="train them again"):
        checkpoint.load(stale)
    one_epoch = preset("composed", **{**FINE, "epochs": 1})
    train(one_epoch, data.pictures, data.captions, stale, tmp_path / "m", features=trained / "features")
    assert fti4cir.load(tmp_path / "m").encoder.name == config["backbone"]


# -- features -------------------------------------------------------------------------------------------------
def test_unreadable_images_are_told_once_a_run(
    data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path
) -> None:
    features = tmp_path / "features"
    for output in ("one", "two"):  # the second finds all features there
        with logged() as lines:
            train(CONFIG, data.pictures, data.captions, clip_folder, tmp_path / output, features=features)
        told = [line for line in lines if "broken.png" in line]
        assert told == ["left out: Cannot read 'broken.png': it is not an image, but a web page or text."]
        assert any(line.startswith("image features: ") for line in lines) == (output == "one")
        assert weights_of(tmp_path / output) == weights_of(trained)


# -- settings -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", registry.presets())
def test_every_preset_builds_its_network(name: str, encoder: ClipEncoder) -> None:
    config = preset(name)
    network = FineGrainedInversion(config.network.for_encoder(encoder))
    assert network.config.joint_width == encoder.joint_width
    assert network.config.dropout == config.network.dropout


def test_the_paper_preset_is_the_releases_recipe() -> None:
    config = preset("paper")
    assert (config.epochs, config.batch_size, config.learning_rate, config.weight_decay) == (60, 256, 4e-5, 0.01)
    network, options = config.network, config.options_as(InversionOptions)
    assert (network.num_latent, network.max_attributes, network.threshold, network.dropout) == (24, 12, 0.05, 0.5)
    assert list(vars(options.weights).values()) == [1.0, 1.0, 1.4, 1.4, 1.4, 0.0, 0.0, 0.0]
    assert options.temperature == 0.2


def test_unknown_preset() -> None:
    with pytest.raises(TrainingError, match="no preset 'big'; there are paper, composed"):
        preset("big")


def test_ablations_take_away_one_part_each() -> None:
    changed = {
        "no-attributes": {"network.max_attributes": 0},
        "no-selection": {"network.threshold": None},
        "no-orthogonality": {"weights.orthogonality": 0.0},
        "no-subject-regularization": {"weights.regularization_subject": 0.0},
        "no-attributes-regularization": {"weights.regularization_attributes": 0.0},
        "no-whole-regularization": {"weights.regularization_whole": 0.0},
    }

    for base in ("paper", "composed"):
        names = {name.removeprefix(f"{base}-") for name in registry.presets() if name.startswith(f"{base}-")}
        assert names == set(changed)
        whole = preset(base).settings()
        for name in names:
            assert dict(preset(f"{base}-{name}").settings().items() - whole.items()) == changed[name]


METHODS = ("pic2word", "searle", "lincir")


def test_each_other_method_has_a_published_and_a_quick_preset_of_its_name() -> None:
    for name in METHODS:
        assert preset(name).method == preset(f"{name}-quick").method == name
        assert preset(name) != preset(f"{name}-quick")


def test_the_published_figures_are_of_the_quick_presets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of docs/results.md, which `research/methods.py` trains and measures."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "research"))
    jobs = importlib.import_module("methods").JOBS
    assert {name: jobs[name][0] for name in METHODS} == {name: f"{name}-quick" for name in METHODS}
    for name, changes in jobs.values():
        preset(name, **changes)


def test_epochs_take_the_place_of_a_presets_steps() -> None:
    assert preset("lincir").total_steps(10) == 20_000
    assert preset("lincir", epochs=3).total_steps(10) == 30
    assert preset("lincir", seed=3).total_steps(10) == 20_000
    assert preset("lincir", epochs=3, steps=5).total_steps(10) == 5


@pytest.mark.parametrize("name", METHODS)
def test_a_published_recipe_ends_loads_composes_and_goes_on(
    name: str, data: SimpleNamespace, clip_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven steps of it, the last of which ends no epoch."""
    for module in (_concepts, searle):
        monkeypatch.setattr(module, "class_names", lambda: ("Cat", "Dog", "Grass", "Snow", "Zebra"))
    monkeypatch.setattr(training, "_SAVE_EVERY", 0.0)
    config = preset(name, steps=7, batch_size=8)
    if name == "searle":
        config = config.with_settings({"inversion.steps": 3})

    def go(output: Path) -> None:
        train(config, data.pictures, data.captions, clip_folder, output, resume=True, features=tmp_path / "features")

    def interrupt(line: str) -> None:
        if line.startswith("step 4 "):
            raise KeyboardInterrupt

    with logged() as lines:
        go(tmp_path / "whole")
    assert any("rises over 10000 steps, but this training has only 7" in line for line in lines) == (name == "pic2word")
    with pytest.raises(KeyboardInterrupt), logged(interrupt):
        go(tmp_path / "halfway")
    go(tmp_path / "halfway")
    assert weights_of(tmp_path / "halfway") == weights_of(tmp_path / "whole")
    assert [row["step"] for row in log_of(tmp_path / "whole")] == ["4", "7"]
    assert torch.load(tmp_path / "whole" / "checkpoint.pt", weights_only=True)["step"] == 7
    model = fti4cir.load(tmp_path / "whole")
    assert model.method == name
    composed = create(name, model).compose(Queries(model.features([data.pictures / "00.png"]), ["in red"]))
    assert composed.isfinite().all()


def test_a_checkpoint_of_an_older_version_goes_on(
    data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path
) -> None:
    """It has all methods' settings side by side, and lacks those that came later, whose defaults are what it did."""
    output = tmp_path / "m"
    shutil.copytree(trained, output)
    state = torch.load(output / "checkpoint.pt", weights_only=True)
    flat = json.loads((Path(__file__).parent / "flat_configs.json").read_text())["composed"]
    flat.update(epochs=3, batch_size=8, learning_rate=2e-3, bfloat16=False, dropout=0.2, num_latent=6, max_attributes=3)
    for later in ("steps", "contrast", "hidden_width", "vocabulary"):
        del flat[later]
    torch.save({**state, "config": flat}, output / "checkpoint.pt")
    train(CONFIG, data.pictures, data.captions, clip_folder, output, resume=True)
    changed = CONFIG.with_settings({"contrast": "across"})
    with pytest.raises(TrainingError, match="was begun with contrast = all, not across"):
        train(changed, data.pictures, data.captions, clip_folder, output, resume=True)


def test_a_log_of_an_older_version_goes_on_with_its_rows(
    data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path
) -> None:
    """It has columns for the losses of all methods."""
    output = tmp_path / "m"
    shutil.copytree(trained, output)
    header, *rows = (line.split(",") for line in (trained / "log.csv").read_text().splitlines())
    place = header.index("attributes")
    widened = [[*header[:place], "masked", *header[place:]], *([*row[:place], "", *row[place:]] for row in rows)]
    (output / "log.csv").write_text("".join(",".join(row) + "\n" for row in widened))
    train(CONFIG, data.pictures, data.captions, clip_folder, output, resume=True)
    assert (output / "log.csv").read_text() == (trained / "log.csv").read_text()


@pytest.mark.parametrize("name", ["pic2word-quick", "lincir-quick", "searle-quick"])
def test_what_an_objective_does_not_read_is_not_computed(
    name: str, data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = tmp_path / "features"
    shutil.copytree(trained / "features", features, ignore=shutil.ignore_patterns("texts-*"))
    monkeypatch.setattr(Features, "take", lambda *_: pytest.fail("local features are read"))
    config = preset(name, **{**SMALL, "epochs": 1})
    train(config, data.pictures, data.captions, clip_folder, tmp_path / "m", features=features)
    assert not [*features.glob("texts-*")]


def test_the_optimisers_settings() -> None:
    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.LayerNorm(2))
    config = TrainingConfig(weight_decay=0.1, decay_biases=False, beta2=0.98, epsilon=1e-6)
    matrices, vectors = make_optimizer(config, network).param_groups
    assert [tuple(value.shape) for value in matrices["params"]] == [(2, 3)]
    assert [tuple(value.shape) for value in vectors["params"]] == [(2,)] * 3
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.1, 0.0)
    assert matrices["betas"] == vectors["betas"] == (0.9, 0.98)
    assert matrices["eps"] == 1e-6
    [group] = make_optimizer(TrainingConfig(), network).param_groups
    assert (group["weight_decay"], group["betas"], group["eps"]) == (0.01, (0.9, 0.999), 1e-8)


def test_progress_says_what_each_pass_is_of(
    data: SimpleNamespace, clip_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="fti4cir")
    train(CONFIG, data.pictures, data.captions, clip_folder, tmp_path / "m")
    passes = [line.partition(":")[0] for line in caplog.messages if "min left" in line and not line.startswith("step ")]
    assert passes == [
        "image features",
        "features of captions in the template",
        "features of captions as written",
    ]


# -- what a step sees -----------------------------------------------------------------------------------------
def a_run(
    captions: list[list[SplitCaption]],
    encoder: ClipEncoder,
    folder: Path,
    name: str = "composed",
    image: np.ndarray | None = None,
    **changes: object,
) -> Training:
    """A training on images with random local features, and a number for their image feature unless one is given."""
    count = len(captions)
    if image is None:
        image = np.arange(count, dtype=np.float32)[:, None].repeat(encoder.joint_width, axis=1)
    local = torch.randn(count, 5, encoder.vision_width, generator=torch.Generator().manual_seed(0)).half().numpy()
    names, rows = [f"{row}.png" for row in range(count)], list(range(count))
    config = preset(name, **{**FINE, **changes})
    return Training(
        config, registry.learner(config.method).objective, encoder=encoder,
        data=TrainingData(names, captions, Features(image, local, {}), rows, []), output=folder, cache=folder,
        world=World(),
    )  # fmt: skip


SHIRTS = {colour: SplitCaption(f"a {colour} shirt", "for men") for colour in ("red", "blue", "green")}


EIGHT = [
    [SplitCaption(f"a {colour} {kind}", place)]
    for colour in ("red", "black")
    for kind in ("dog", "cat")
    for place in ("on the grass", "in the snow")
]


def test_edited_captions_find_the_images_that_carry_them(encoder: ClipEncoder, tmp_path: Path) -> None:
    red, blue, green = SHIRTS.values()
    run = a_run([[red], [blue], [blue, green], [red]], encoder, tmp_path)
    batch = run.batches.make([0, 1, 2, 3], [0, 1, 3], random.Random(0))
    edited = ["a blue shirt for men", "a pink shirt for men", "a green shirt for men"]
    found = run.batches.find(replace(batch, edited=edited), [2], random.Random(0))
    assert found is not None
    assert found.places == [0, 2]  # nobody carries the pink one
    assert found.image[0, 0].item() in (1, 2)
    assert found.image[1, 0].item() == 2
    assert found.choice.others[:, 0].tolist() == [0, 1, 3, 2]
    # The two that were found, then the others: which of them carry the blue one, and the green one?
    assert found.choice.same[0].tolist() == [True, True, False, True, False, True]
    assert found.choice.same[1].tolist() == [found.image[0, 0].item() == 2, True, False, False, False, True]
    assert run.batches.find(replace(batch, edited=["a pink shirt for men"] * 3), [], random.Random(0)) is None


def test_edited_captions_are_told_from_the_batchs_and_from_others(encoder: ClipEncoder, tmp_path: Path) -> None:
    red, blue, green = SHIRTS.values()
    run = a_run([[red], [blue], [green], [red]], encoder, tmp_path)
    batch = run.batches.make([0, 1, 2, 3], [0, 1], random.Random(0))
    batch = replace(batch, edited=["a blue shirt for men", "a red shirt for men"])
    others = list(map(str, (red, blue, green, red)))
    choice = run.batches.choose(batch.edited, others)
    sentences = [(text,) for text in others]  # as people write them, like the edited ones
    torch.testing.assert_close(choice.others, encode_sentences(encoder, sentences), rtol=1e-5, atol=1e-5)
    assert choice.same.tolist() == [  # both edited ones, then the others
        [True, False, False, True, False, False],
        [False, True, True, False, False, True],
    ]


def test_negatives_of_the_whole_set_are_drawn_for_each_step(encoder: ClipEncoder, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(16, encoder.joint_width)).astype(np.float32)
    run = a_run([*EIGHT, *EIGHT], encoder, tmp_path, image=image, extra_negatives=5)
    few = a_run([*EIGHT, *EIGHT], encoder, tmp_path, image=image, extra_negatives=0)
    for step in range(6):
        choices = []
        for batch, more in ((run.batches.batch(step), 5), (few.batches.batch(step), 0)):
            assert batch.choice is not None
            assert batch.choice.others.shape == (8 + more, encoder.joint_width)
            assert batch.choice.same.shape == (8, 16 + more)
            if batch.found is not None:
                assert len(batch.found.choice.others) == 8 + more
            choices.append(batch.choice.others)
        torch.testing.assert_close(choices[0][:8], choices[1])
    assert not torch.equal(run.batches.batch(0).choice.others[8:], run.batches.batch(1).choice.others[8:])
    assert torch.equal(run.batches.batch(0).choice.others, run.batches.batch(0).choice.others)


def test_a_description_is_told_from_other_images_captions(encoder: ClipEncoder, tmp_path: Path) -> None:
    changes = {"extra_negatives": 8, "weights": InversionWeights(description=1.0)}
    run = a_run(EIGHT, encoder, tmp_path, **changes)
    batch = run.batches.batch(0)
    assert batch.described is not None
    assert batch.choice is None  # there is no composed loss
    captions = [(str(caption),) for caption in batch.captions]
    own = encode_sentences(encoder, captions)
    torch.testing.assert_close(batch.described.captions, own, rtol=1e-5, atol=1e-5)
    assert batch.described.choice.others.shape == (8, encoder.joint_width)
    # The batch is all there is, and so are the eight that were drawn: each caption is among them once.
    same = batch.described.choice.same
    assert torch.equal(same[:, :8], torch.eye(8, dtype=torch.bool))
    assert same[:, 8:].sum(dim=1).tolist() == [1] * 8
    drawn = same[:, 8:].int().argmax(dim=1)
    torch.testing.assert_close(batch.described.choice.others[drawn], own, rtol=1e-5, atol=1e-5)


def test_no_caption_of_the_same_image_is_wrong_for_a_description(encoder: ClipEncoder, tmp_path: Path) -> None:
    two = [[caption, SplitCaption(f"{caption.subject}s", caption.attribute)] for (caption,) in EIGHT]
    run = a_run(two, encoder, tmp_path, extra_negatives=8, weights=InversionWeights(description=1.0))
    for step in range(4):
        described = run.batches.batch(step).described
        assert described is not None
        # All eight images are drawn, with either of their captions: each row knows its own image's.
        assert described.choice.same[:, 8:].sum(dim=1).tolist() == [1] * 8
        assert torch.equal(described.choice.same[:, :8], torch.eye(8, dtype=torch.bool))


def test_real_features_are_the_captions_own(encoder: ClipEncoder, tmp_path: Path) -> None:
    run = a_run([[caption] for caption in SHIRTS.values()], encoder, tmp_path)
    batch = run.batches.make([0, 1, 2, 3], [2, 0], random.Random(0))
    sentences = [(run.config.network.template.real(*caption),) for caption in batch.captions]
    assert batch.captions == [SHIRTS["green"], SHIRTS["red"]]
    torch.testing.assert_close(batch.real, encode_sentences(encoder, sentences), rtol=1e-5, atol=1e-5)


def test_attribute_gain_scales_only_the_projection_of_the_attributes(encoder: ClipEncoder, tmp_path: Path) -> None:
    caption = [[SplitCaption("a dog", "on grass")]] * 2
    one, six = (a_run(caption, encoder, tmp_path, attribute_gain=gain).state.network for gain in (1.0, 6.0))
    for (name, ours), theirs in zip(one.state_dict().items(), six.state_dict().values(), strict=True):
        torch.testing.assert_close(theirs, ours * (6 if name == "latent.project.weight" else 1))


def test_an_epoch_shows_each_image_once_whatever_the_order() -> None:
    image = np.random.default_rng(0).normal(size=(30, 6)).astype(np.float32)
    rows = list(range(30))
    data_ = TrainingData([], [], Features(image, image, {}), rows, [])
    for size in (1, 4):
        order, again = (EpochOrder(data_, seed=0, group_size=size) for _ in range(2))
        other = EpochOrder(data_, seed=1, group_size=size)
        first, second = order.of(0).tolist(), order.of(1).tolist()
        assert sorted(first) == sorted(second) == rows
        assert first != second
        assert again.of(1).tolist() == second
        assert other.of(1).tolist() != second


def test_images_that_look_alike_come_in_groups() -> None:
    random_ = np.random.default_rng(0)
    image = random_.normal(size=(70, 6)).astype(np.float32)
    image[3] *= 100  # of no more weight than the others, should it be a pivot
    rows = list(range(3, 67))  # 64 of them, with 8 pivots
    for seed in range(5):
        order = grouped_order(image, rows, size=4, random_=np.random.default_rng(seed))
        assert sorted(order.tolist()) == list(range(64))
        # The pivots are what the generator gives first.
        pivots = image[np.random.default_rng(seed).choice(rows, size=8, replace=False)]
        pivots /= np.linalg.norm(pivots, axis=1, keepdims=True)
        nearest = (image[rows] @ pivots.T).argmax(axis=1)[order].reshape(-1, 4)
        mixed = [group for group in nearest if len(set(group.tolist())) > 1]
        assert len(mixed) <= 7  # where one pivot's images end and the next one's begin


# -- a batch in chunks ----------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["paper", "composed", "composed-no-attributes", "pic2word"])
def test_a_batch_in_chunks_has_the_gradient_of_the_whole(name: str, encoder: ClipEncoder, tmp_path: Path) -> None:
    image = np.random.default_rng(0).normal(size=(8, encoder.joint_width)).astype(np.float32)
    results = []
    for size in (0, 2, 3):  # of eight: the last one has an uneven end
        most = min(3, preset(name).network.max_attributes)
        changes = {"network.num_latent": 6, "network.max_attributes": most, "network.dropout": 0.0}
        run = a_run(EIGHT, encoder, tmp_path, name, image, chunk_size=size, **changes)
        batch = run.batches.batch(0)
        if batch.edited:  # into what the other images carry
            batch = replace(batch, edited=[str(EIGHT[row - 3][0]) for row in batch.rows])
            batch = replace(
                batch,
                choice=run.batches.choose(batch.edited, [str(EIGHT[row][0]) for row in (*batch.rows, 5, 6)]),
                found=run.batches.find(batch, [5, 6], random.Random(0)),
            )
            assert batch.found is not None
        terms, count = run.stepper.backward(run.state, batch)
        gradients = {name: parameter.grad for name, parameter in run.state.network.named_parameters()}
        results.append((terms, gradients, count))
    for part in results[1:]:
        torch.testing.assert_close(part, results[0], rtol=1e-4, atol=1e-6)
    assert all(gradient is not None for gradient in results[0][1].values())


@pytest.mark.slow
def test_training_in_chunks_goes_on_after_an_interruption(
    data: SimpleNamespace, clip_folder: Path, trained: Path, tmp_path: Path
) -> None:
    """Dropout included: both passes of a chunk, and a step that is done again, see the same."""

    def go(output: Path) -> None:
        config = replace(CONFIG, chunk_size=3)
        train(
            config,
            data.pictures,
            data.captions,
            clip_folder,
            output,
            resume=True,
            features=trained / "features",
        )

    def interrupt(line: str) -> None:
        if line.startswith("step 8 "):
            raise KeyboardInterrupt

    go(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), logged(interrupt):
        go(tmp_path / "halfway")
    go(tmp_path / "halfway")
    assert weights_of(tmp_path / "halfway") == weights_of(tmp_path / "whole")
    assert weights_of(tmp_path / "whole") != weights_of(trained)  # other dropout
