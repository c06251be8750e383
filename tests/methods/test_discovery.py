"""A method is one file: what is written here in a temporary folder is found by name everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

import fti4cir
from fti4cir import methods
from fti4cir.errors import InputError
from fti4cir.methods import registry
from fti4cir.models.queries import Queries
from tinydata import SMALL, log_of

pytestmark = pytest.mark.usefixtures("one_thread")

UNTRAINED = '''"""Opposite: the image that is least like the reference."""

from fti4cir.methods.base import Entry


class Opposite:
    name = "the-opposite"

    def compose(self, queries):
        image = queries.features.image[list(queries.reference_index)]
        return -image / image.norm(dim=-1, keepdim=True)


METHOD = Entry(create=lambda model, options: Opposite())
'''
LEARNED = '''"""Echo: one pseudo-word an image, whose sentence has the image's own feature."""

from dataclasses import dataclass, field
from types import MappingProxyType

from fti4cir.inversion.compose import encode_sentences
from fti4cir.methods.base import Entry, Learner
from fti4cir.inversion.network import NetworkConfig
from fti4cir.methods.fti4cir import Inversion
from fti4cir.training import losses
from fti4cir.training.config import Options, TrainingConfig
from fti4cir.training.losses import LossWeights
from fti4cir.training.objective import Needs


@dataclass(frozen=True, kw_only=True)
class EchoWeights(LossWeights):
    echo: float = 1.0


@dataclass(frozen=True, kw_only=True)
class EchoOptions(Options):
    weights: EchoWeights = field(default_factory=EchoWeights)


class EchoObjective:
    needs = Needs()
    extra = MappingProxyType({"heard": True})

    def __init__(self, config, corpus):
        self._encoder = corpus.encoder
        self.weights = config.options_as(EchoOptions).weights

    def outputs(self, network, batch):
        words = network(batch.image, batch.image.new_zeros(len(batch.rows), 0, 0))
        return {"whole": encode_sentences(self._encoder, [network.config.sentence()] * len(batch.rows), words)}

    def terms(self, outputs, batch):
        return {"echo": losses.regularization(outputs["whole"], batch.image)}


ECHO = Learner(
    presets={
        "echo-loud": TrainingConfig(method="echo", network=NetworkConfig(max_attributes=0), options=EchoOptions())
    },
    default="echo-loud",
    objective=EchoObjective,
)
METHOD = Entry(create=lambda model, options: Inversion("echo", model), learner=ECHO)
'''


@pytest.fixture
def more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with two methods and a module that is none."""
    folder = tmp_path / "more methods"
    folder.mkdir()
    for name, source in (("the_opposite", UNTRAINED), ("echo", LEARNED), ("_shared", '"""No method."""')):
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    monkeypatch.setattr(methods, "__path__", [*methods.__path__, str(folder)])
    yield folder
    for name in ("the_opposite", "echo"):
        sys.modules.pop(f"fti4cir.methods.{name}", None)
        vars(methods).pop(name, None)


def test_a_new_file_is_found_by_its_name(more: Path) -> None:
    assert registry.names() == (
        "fti4cir", "echo", "lincir", "pic2word", "searle", "caption", "image", "searle-oti", "sum", "text",
        "the-opposite",
    )  # fmt: skip
    assert registry.trainable() == ("fti4cir", "echo", "lincir", "pic2word", "searle")
    with pytest.raises(InputError, match=r"no method 'magic'; available are: fti4cir, echo, .*, the-opposite\."):
        registry.check_methods(["image", "magic"])
    with pytest.raises(InputError, match=r"what can be trained: fti4cir, echo, lincir"):
        registry.learner("the-opposite")


def test_a_new_method_composes(more: Path) -> None:
    model = fti4cir.load("mini")
    method = registry.create("the-opposite", model)
    queries = Queries(model.features([Image.new("RGB", (32, 32), "red")]), ["in red"])
    (composed,), (image,) = method.compose(queries), registry.create("image", model).compose(queries)
    assert (composed @ image).item() == pytest.approx(-1.0, abs=1e-5)


def test_a_new_method_learns(more: Path, data: SimpleNamespace, clip_folder: Path, tmp_path: Path) -> None:
    assert "echo-loud" in registry.presets()
    config = registry.preset("echo-loud", **{**SMALL, "epochs": 4})
    output = tmp_path / "model"
    registry.train(config, data.pictures, data.captions, clip_folder, output)
    rows = log_of(output)
    assert float(rows[-1]["echo"]) < float(rows[0]["echo"])
    assert "contrastive" not in rows[0]
    assert json.loads((output / "config.json").read_text())["method"] == "echo"
    model = fti4cir.load(output)
    assert model.extra == {"heard": True}
    assert [(name, one.method) for name, one in registry.assign([], [model])] == [("echo", "echo")]
    composed = registry.create("echo", model).compose(Queries(model.features([data.pictures / "00.png"]), ["is red"]))
    assert composed.isfinite().all()


def run_with(more: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command line in a process of its own, which finds the methods in this folder, too."""
    program = (
        "import sys; from fti4cir import methods; methods.__path__.append(sys.argv.pop(1));"
        "from fti4cir.cli import run; status = run(sys.argv[1:]);"
        "print('torch' in sys.modules, status)"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(more), *arguments],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "", "COLUMNS": "300", "TERM": "dumb"},
        check=True,
    )


@pytest.mark.slow
def test_the_command_line_names_a_new_method_in_its_help(more: Path) -> None:
    assert "the-opposite" in run_with(more, "evaluate", "cirr", "--help").stdout
    assert "echo" in run_with(more, "train", "--help").stdout


@pytest.mark.slow
def test_an_unknown_method_is_refused_before_torch_is_imported(more: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("image,caption\n")
    for arguments in (
        ("evaluate", "cirr", "--root", str(tmp_path), "--method", "image,magic"),
        ("train", "--images", str(tmp_path), "--captions", str(tmp_path / "a.csv"), "--output",
         str(tmp_path / "out"), "--method", "magic"),
    ):  # fmt: skip
        result = run_with(more, *arguments)
        assert "There is no method 'magic'" in result.stderr
        assert "echo" in result.stderr
        assert result.stdout.split() == ["False", "1"]
