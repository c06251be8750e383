"""A benchmark is one file: the command line finds it, says what it takes, and measures with it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fti4cir import benchmarks, cli
from standin import save_colour
from terminal import one_error_line
from tinybench import colour

FILE = """
from pathlib import Path

from fti4cir.benchmarks.base import Benchmark, Gallery, Query
from fti4cir.benchmarks.published import Form, Option, Published


def load(root, split, *, allow_missing, order="up"):
    paths = tuple(sorted(Path(root).glob("*.png"), reverse=order == "down"))
    gallery = Gallery(tuple(path.stem for path in paths), paths)
    queries = tuple(Query(("is red",), n, (n,), None, (n + 1,)) for n in range(len(paths) - 1))
    return (Benchmark("twins", split, f"sorted {order}, images of twins", gallery, queries, (), (), (1, 5),
                      query_ids=tuple(range(len(queries))), compared_by="R@1"),)


BENCHMARK = Published(
    "twins", "Twins: each image beside the next.", ("val", "night"), load,
    options=(Option("order", ("up", "down"), "How images are sorted.", default="up"),),
    forms=(Form(4, {"by": "twins"}),),
)
"""


@pytest.fixture
def twins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Six images; the file that makes a benchmark of them is found while the test runs."""
    for number in range(6):
        save_colour(tmp_path / "root" / f"{number}.png", colour(number))
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "twins.py").write_text(FILE)
    monkeypatch.setattr(benchmarks, "__path__", [*benchmarks.__path__, str(tmp_path / "more")])
    yield tmp_path / "root"
    sys.modules.pop("fti4cir.benchmarks.twins", None)
    vars(benchmarks).pop("twins", None)


def run(*arguments: object) -> int:
    return cli.run([str(argument) for argument in arguments])


@pytest.mark.parametrize("command", ["evaluate", "verify"])
def test_help_and_errors_know_it(twins: Path, capsys: pytest.CaptureFixture[str], command: str) -> None:
    assert run(command, "--help") == 0
    assert "Twins: each image beside the next." in capsys.readouterr().out
    assert run(command, "twins", "--help") == 0
    out = capsys.readouterr().out
    assert all(text in out for text in ("--split", "val or night.", "--order", "up|down", "How images are sorted."))
    assert "--category" not in out
    assert ("--submission" in out) == ("--predictions" in out) == (command == "evaluate")
    assert run(command, "triplets") == 2
    assert "There is no benchmark 'triplets'; available are: circo, cirr, fashioniq, twins" in one_error_line(capsys)
    assert run(command, "twins", "--root", twins, "--order", "sideways") == 2
    assert "'sideways' is not one of 'up', 'down'" in one_error_line(capsys)


def test_a_shell_completes_it(twins: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_FTI4CIR_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_CWORD", "2")
    for typed, completed in (("tw", ["twins"]), ("ci", ["circo", "cirr"])):
        monkeypatch.setenv("COMP_WORDS", f"fti4cir evaluate {typed}")
        assert run() == 0
        out, err = capsys.readouterr()
        assert (out.split(), err) == (completed, "")


@pytest.mark.numeric
def test_it_is_measured(twins: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--root", twins, "--method", "image", "--json"]
    assert run("evaluate", "twins", *given, "--order", "down", "--submission", tmp_path / "ours.json") == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["benchmark"], found["split"], found["queries"], found["gallery"]) == ("twins", "val", 5, 6)
    assert found["protocol"] == "sorted down, images of twins"
    assert list(found["metrics"]) == ["R@1", "R@5"]
    assert json.loads((tmp_path / "ours.json").read_text())["by"] == "twins"


def test_it_is_verified(twins: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "twins", "--root", twins, "--split", "night") == 0
    assert "twins, night: All 6 images are there and can be read." in capsys.readouterr().out
