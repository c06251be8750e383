"""Two commands at once on the same folder: each image is in the index once, and nobody is shown an error."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

import fti4cir
from fti4cir.cli import searching
from fti4cir.search.locations import default_location
from fti4cir.search.store import Store
from standin import ColourModel, save_colour
from terminal import run, start

IMAGES = 80


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i in range(IMAGES):
        save_colour(tmp_path / "photos" / f"{i:03}.png", (i, 0, 0))
    return tmp_path / "photos"


def finish(process: subprocess.Popen[str]) -> tuple[dict, str]:
    """The JSON that it printed, and what it said on stderr."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out), err


def wait_for(path: Path) -> None:
    until = time.monotonic() + 60
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert path.exists()


def paths_once(location: str | Path) -> None:
    store = Store.open(location)
    assert len(store) == len(store.files()) == IMAGES


@pytest.mark.slow
def test_two_index_a_fresh_folder(photos: Path) -> None:
    both = [start("index", photos, "--json", seconds=0.3) for _ in range(2)]
    results = [finish(process) for process in both]
    assert sorted(report["added"] for report, _ in results) == [0, IMAGES]  # nobody did the other's work again
    assert [report["total"] for report, _ in results] == [IMAGES, IMAGES]
    paths_once(default_location(photos))


@pytest.mark.slow
def test_the_second_goes_on_when_the_first_is_killed(photos: Path) -> None:
    first = start("index", photos, "--json", seconds=600.0)
    wait_for(default_location(photos) / "index.lock")
    second = start("index", photos, "--json")
    assert second.stderr is not None
    # Notes may come before.
    while "waiting for it" not in (line := second.stderr.readline()):
        assert line
    first.kill()
    first.communicate(timeout=60)
    report, _ = finish(second)
    assert (report["added"], report["total"]) == (IMAGES, IMAGES)
    paths_once(default_location(photos))


@pytest.mark.slow
def test_two_searches_of_a_fresh_folder(photos: Path) -> None:
    both = [start("search", photos, "--text", "red", "--json", seconds=0.3) for _ in range(2)]
    found = [finish(process)[0]["results"] for process in both]
    assert found[0] == found[1]
    assert len({hit["path"] for hit in found[0]}) == 10
    paths_once(default_location(photos))


def test_a_search_uses_what_is_there_while_another_process_indexes(
    photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fti4cir, "load", lambda name: ColourModel(), raising=False)
    monkeypatch.setattr(searching, "PATIENCE", 0.0)
    assert run("index", photos) == 0
    save_colour(photos / "new.png", "red")
    with Store.open(default_location(photos)).only_writer(lambda: True):
        capsys.readouterr()
        assert run("search", photos, "--text", "red", "-k", "100", "--json") == 0
    out, err = capsys.readouterr()
    assert len(json.loads(out)["results"]) == IMAGES
    assert f"It is still indexing; going on with the {IMAGES} images that it has written so far." in err


@pytest.mark.slow
def test_a_place_where_no_lock_can_be_had(photos: Path, tmp_path: Path) -> None:
    # A URI is not locked, whatever its scheme; this stands for an object store.
    place = f"file://{tmp_path}/store"
    both = [start("index", photos, "--store", place, "--json", seconds=0.1) for _ in range(2)]
    results = [finish(process) for process in both]
    assert [report["total"] for report, _ in results] == [IMAGES, IMAGES]
    assert not any("WARN" in said for _, said in results)
    paths_once(place)
