"""No command line ends in a traceback, whatever is typed, whatever files are called, whatever the terminal can show."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
import typer.main
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import fti4cir
from fti4cir import cli
from fti4cir.backbones import hub
from fti4cir.captions import generate as captioning
from fti4cir.cli import measuring
from fti4cir.errors import ModelError
from fti4cir.models import loading, names
from fti4cir.training import trainer as training
from standin import ColourModel, save_colour


def leaves(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    """All commands below a command that have no subcommands, by what a user types."""
    if not hasattr(command, "list_commands"):
        return {path: command}
    context = typer.Context(command)
    below = {name: command.get_command(context, name) for name in command.list_commands(context)}
    return {leaf: one for name, sub in below.items() for leaf, one in leaves(sub, (*path, name)).items()}


COMMANDS = leaves(typer.main.get_command(cli.app))
# Controls that would act on a terminal, and the marks that turn the direction of writing.
RAW = {chr(code) for code in [*range(32), *range(127, 160), 0x202E, 0x2066]} - {"\n"}
ODD_NAMES = [
    "two\nlines.png",
    "\x1b[31mred.png",
    "\u202egnp.png",
    os.fsdecode(b"caf\xe9.png"),
    "it's.png",
    "--text.png",
    "猫 ñ.png",
    "100%[bold]{x}.png",
]


class Model(ColourModel):
    def explain(self, image: Path) -> str:
        self.encode_images([image])
        return f"what {self.name} makes of it"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    top = tmp_path_factory.mktemp("fuzz")
    for number, name in enumerate(ODD_NAMES):
        save_colour(top / "photos" / name, (20 * number, 100, 0), (24, 24))
    (top / "photos" / "broken\n.jpg").write_bytes(b"\xff\xd8 not whole")
    (top / "empty").mkdir()
    (top / "table.csv").write_text('file,image,caption,colour\n"it\'s.png",x,y,red\n')
    (top / "bytes.csv").write_bytes(b"image,caption\n\xff\xfe\x00,\n")
    (top / "lines.jsonl").write_text('{"image": 5}\n[]\n')
    (top / "clip").mkdir()
    (top / "clip" / "config.json").write_text('{"model_type": ["clip"]}')
    before = Path.cwd()
    os.chdir(top)
    yield top
    os.chdir(before)


@pytest.fixture(autouse=True)
def no_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Nothing is downloaded, no weights are loaded, nothing is trained: that has tests of its own."""

    def stop(*_: object, **__: object) -> NoReturn:
        raise ModelError("Nothing is loaded here.")

    def load(name: str) -> Model:
        names.check(name)
        return Model(name=name, fingerprint=f"colours-{name}")

    monkeypatch.setattr(fti4cir, "load", load, raising=False)
    monkeypatch.setattr(hub, "snapshot", stop)
    monkeypatch.setattr(loading, "load_encoder", stop)
    monkeypatch.setattr(measuring, "load_models", stop)
    monkeypatch.setattr(training, "train", stop)
    monkeypatch.setattr(captioning, "caption_images", stop)
    monkeypatch.setattr("fti4cir.report.explanation.write_html", lambda explanation, path: None)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))


# What a process can be given: no null character; bytes that are no UTF-8 arrive as these surrogates.
typed = st.text(
    st.one_of(
        st.characters(blacklist_categories=["Cs"], blacklist_characters="\0:"),
        st.characters(min_codepoint=0xDC80, max_codepoint=0xDCFF, whitelist_categories=["Cs"]),
    ),
    max_size=12,
)
paths = st.sampled_from(
    ["photos", "empty", "gone", "table.csv", "bytes.csv", "lines.jsonl", "clip", ".", "", "~", "x" * 300, "photos/a\nb"]
    + [f"photos/{name}" for name in ODD_NAMES]
)
numbers = st.one_of(
    st.integers(), st.integers(0, 30), st.sampled_from([2**31, 2**63, 2**70]), st.floats(), st.just("1e400")
).map(str)
CONDITIONS = [
    "1=1) or (1=1", "1=1 --", "1=1 /*", "width > 1; drop table images", "path", "1=1 order by path", "width / 0 > 1",
    "cast(path as int) = 1", "path = 'it''s.png'", "'", "((width = 1", "vector = 1", "$$", "x in (select 1)", "?",
]  # fmt: skip
SQL = ["(", ")", "'", '"', "width", "path", "=", "or", "not", "1", "--", "/*", "*/", "\n", ","]
conditions = st.one_of(st.sampled_from(CONDITIONS), st.lists(st.sampled_from(SQL)).map(" ".join))
WORDS = [
    "mini", "vit-l-14", "someone/clip", "red", "in {value}", "{}", "fti4cir", "image,text", "sum", "file", "colour",
    "paper", "composed", "val", "test1", "cirr", "circo", "attributes", "dress", "-", "--", "*", " ", "\u202e",
]  # fmt: skip
words = st.sampled_from(WORDS)
values = st.one_of(typed, paths, numbers, conditions, words)


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with options that it has, most of them with a value, and whatever else."""
    name = draw(st.sampled_from([*COMMANDS, ("serach",), ("evaluate",), ("verify", "coco")]))
    options = [option for one in getattr(COMMANDS.get(name), "params", []) for option in one.opts if option[0] == "-"]
    line = [*name, *draw(st.lists(st.one_of(paths, words), max_size=1))]
    for option in draw(st.lists(st.sampled_from(options or ["--x"]), max_size=5)):
        line += [option, draw(values)] if draw(st.integers(0, 9)) else [option]
    return line + draw(st.lists(values, max_size=1))


searches = st.fixed_dictionaries(
    {"--text": typed},
    optional={
        "--where": conditions,
        "-k": numbers,
        "--image": paths,
        "--without": typed,
        "--strength": numbers,
        "--balance": numbers,
        "--model": words,
    },
).map(lambda given: ["search", "photos", *(word for pair in given.items() for word in pair)])


def run(line: list[str], encoding: str) -> tuple[int, str, str]:
    """Run a command line before a terminal of some encoding: its status, and what it shows there."""
    terminal = [io.TextIOWrapper(io.BytesIO(), encoding=encoding, newline="") for _ in range(2)]
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = terminal
    try:
        status = cli.run(line)
        for stream in terminal:
            stream.flush()
    finally:
        sys.stdout, sys.stderr = before
    out, err = (stream.buffer.getvalue().decode(encoding) for stream in terminal)  # type: ignore[attr-defined]
    return status, out, err


def check(line: list[str], encoding: str) -> None:
    status, out, err = run(line, encoding)
    assert "Traceback" not in err
    assert "Unexpected error" not in err
    assert status in {0, 1, 2}
    assert not RAW & set(out + err)
    if status and not (line[:1] == ["verify"] and out):  # it ends so where it has found something
        assert err.splitlines()[-1].startswith("fti4cir: error: ")
        assert len([one for one in err.splitlines() if one.startswith("fti4cir: error: ")]) == 1


quick = settings(
    max_examples=int(os.environ.get("FUZZ_EXAMPLES", "60")),
    deadline=None,
    derandomize="FUZZ_EXAMPLES" not in os.environ,
    suppress_health_check=list(HealthCheck),
)
encodings = st.sampled_from(["utf-8", "ascii", "latin-1", "cp1252"])


@quick
@given(command_lines(), encodings)
def test_any_command_line(folder: Path, line: list[str], encoding: str) -> None:
    check(line, encoding)


@pytest.mark.slow
@quick
@given(searches, encodings)
def test_any_search(folder: Path, line: list[str], encoding: str) -> None:
    check(line, encoding)


@quick
@given(st.lists(values, min_size=1, max_size=4), encodings)
def test_anything_at_all(folder: Path, line: list[str], encoding: str) -> None:
    check(line, encoding)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_odd_names_are_shown_escaped(folder: Path, encoding: str) -> None:
    status, out, err = run(["search", "photos", "--text", "red"], encoding)
    assert status == 0
    assert not RAW & set(out + err)
    shown = out.splitlines()[1:]
    assert len(shown) == len(ODD_NAMES) - 1
    for escaped in (r"photos/two\nlines.png", r"photos/\x1b[31mred.png", r"photos/\u202egnp.png", "100%[bold]{x}.png"):
        assert any(line.endswith(escaped) for line in shown)
    assert any(line.endswith("猫 ñ.png" if encoding == "utf-8" else r"\u732b \xf1.png") for line in shown) or (
        encoding == "latin-1" and any(line.endswith("\\u732b ñ.png") for line in shown)
    )
    status, _, err = run(["index", "photos"], encoding)
    assert status == 0
    assert r"broken\n.jpg" in err
    assert r"caf\udce9.png" in err or "caf\ufffd.png" in err or r"caf\ufffd.png" in err
