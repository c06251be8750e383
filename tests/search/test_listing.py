"""Which files of a folder are indexed, and with what name and time."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fti4cir.search.listing import _in_int64
from standin import save_colour
from tinyindex import counts, index


def test_a_name_that_is_not_utf8(folder: Path) -> None:
    shutil.copy(folder / "red.jpg", os.fsencode(folder) + b"/caf\xe9.jpg")
    report = index(folder)
    assert counts(report) == (3, 0, 0, 0, 1, 3)
    assert "rename" in report.skipped[0][1]
    assert report.to_json()["skipped"][0]["path"].endswith("caf�.jpg")
    str(report.to_json()).encode()


@pytest.mark.parametrize("year", [1601, 2400])
def test_a_date_that_the_store_cannot_hold(folder: Path, year: int) -> None:
    seconds = (year - 1970) * 31_556_952
    try:
        os.utime(folder / "red.jpg", (seconds, seconds))
    except OSError:
        pytest.skip("this file system keeps no such date")
    if (folder / "red.jpg").stat().st_mtime != seconds:
        pytest.skip("this file system keeps no such date")
    assert counts(index(folder)) == (3, 0, 0, 0, 0, 3)
    assert counts(index(folder)) == (0, 0, 3, 0, 0, 3)
    os.utime(folder / "red.jpg", ns=(1, 1))
    assert counts(index(folder)) == (0, 1, 2, 0, 0, 3)


def test_dates_beyond_the_range_come_closest() -> None:
    assert [_in_int64(ns) for ns in (-(2**70), -5, 2**63 - 1, 2**63)] == [-(2**63), -5, 2**63 - 1, 2**63 - 1]


@pytest.mark.parametrize("name", ["Trip: Rome", "memory:", "C:"])
def test_a_folder_that_looks_like_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    save_colour(tmp_path / name / "red.png", "red")
    monkeypatch.chdir(tmp_path)
    assert counts(index(Path(name))) == (1, 0, 0, 0, 0, 1)
    assert counts(index(Path(name))) == (0, 0, 1, 0, 0, 1)
    assert (tmp_path / name / ".fti4cir" / "pictures.lance").is_dir()
    assert os.listdir(tmp_path) == [name]
