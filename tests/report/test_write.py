"""The files of a report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fti4cir.errors import ImageError
from fti4cir.report import write
from tinystudy import two_methods

FILES = {"index.html", "report.json", "table.csv", "table.md"}


def test_files(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "report"
    assert write(two_methods(tmp_path), folder) == folder / "index.html"
    assert {path.name for path in folder.iterdir()} == FILES
    summary = json.loads((folder / "report.json").read_text())
    assert summary["benchmark"] == "made-up"


def test_a_report_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    folder = tmp_path / "report"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    study = two_methods(tmp_path / "pictures")
    write(study, folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert set(before) == {*FILES, "notes.txt"}
    for path in (tmp_path / "pictures").iterdir():
        path.unlink()
    with pytest.raises(ImageError):
        write(study, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
