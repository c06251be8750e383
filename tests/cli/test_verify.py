"""`fti4cir verify` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import tinybench
from terminal import one_error_line, run


def test_complete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tinybench.cirr(tmp_path)
    assert run("verify", "cirr", "--root", tmp_path) == 0
    out, err = capsys.readouterr()
    assert out.splitlines() == [
        "12 images needed: 0 missing, 0 unreadable, 0 suspicious",
        "cirr, val: All 12 images are there and can be read.",
    ]
    assert err == ""


def test_incomplete(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tinybench.fashioniq(tmp_path)
    (tmp_path / "images" / "SHIRT1.png").unlink()
    (tmp_path / "images" / "TOPTEE4.png").write_bytes(b"")
    assert run("verify", "fashioniq", "--root", tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "15 images needed: 1 missing, 1 unreadable, 0 suspicious"
    assert lines[1] == "fashioniq-dress, val: All 5 images are there and can be read."
    assert "2 could never be answered, which bounds R@10 by 0.000" in lines[2]
    assert lines[4:6] == ["", "missing: SHIRT1"]
    assert lines[6] == ""
    assert lines[7].startswith("unreadable: TOPTEE4: ")
    assert len(lines) == 8
    assert run("verify", "fashioniq", "--root", tmp_path, "--json") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["counts"] == {"missing": 1, "unreadable": 1, "suspicious": 0}
    assert err == ""
    # The spoilt image is in no query of its category.
    assert run("verify", "fashioniq", "--root", tmp_path, "--category", "toptee", "--gallery", "union") == 0


def test_a_long_list_is_cut(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tinybench.fashioniq(tmp_path)
    pictures = sorted((tmp_path / "images").iterdir())
    for path in pictures[:3]:
        path.write_bytes(b"")
    for path in pictures[3:]:
        path.unlink()
    assert run("verify", "fashioniq", "--root", tmp_path) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("missing: ") for line in lines) == 10
    assert "... and 2 more missing; all of them with --json" in lines
    assert sum(line.startswith("unreadable: ") for line in lines) == 3
    assert not [line for line in lines if "more unreadable" in line]
    assert run("verify", "fashioniq", "--root", tmp_path, "--json") == 1
    told = json.loads(capsys.readouterr().out)
    assert told["missing"] == [path.stem for path in pictures[3:]]


def test_a_blank_modification_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is legal, so all is well."""
    tinybench.cirr(tmp_path, split="test1")
    path = tmp_path / "cirr" / "captions" / "cap.rc2.test1.json"
    queries = json.loads(path.read_text())
    tinybench.write_json(path, [{**queries[0], "caption": " "}, *queries[1:]])
    assert run("verify", "cirr", "--root", tmp_path, "--split", "test1") == 0
    assert "1 query has a blank modification, which is legal" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["cirr", "--root", "gone"], "The root gone is not a folder"),
        (["cirr", "--root", "."], "cap.rc2.val.json cannot be read"),
        (["circo", "--split", "test1"], "CIRCO has no split 'test1'"),
        (["fashioniq", "--split", "test"], "were never published"),
    ],
)
def test_mistakes(tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str) -> None:
    root = [] if "--root" in more else ["--root", tmp_path]
    assert run("verify", *more, *root) == 1
    assert says in one_error_line(capsys)


def test_what_is_no_benchmark_or_option(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "cirr", "--category", "dress", "--root", tmp_path) == 2
    assert "No such option: --category" in one_error_line(capsys)
    assert run("verify", "attributes", "--root", tmp_path) == 2
    assert "There is no benchmark 'attributes'; available are: circo, cirr, fashioniq." in one_error_line(capsys)
