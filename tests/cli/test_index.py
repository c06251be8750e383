"""`fti4cir index` as a user types it."""

from __future__ import annotations

import json
import resource
import shutil
import signal
import time
from pathlib import Path

import pytest

from fti4cir.search.locations import default_location
from fti4cir.search.store import Store
from standin import save_colour
from terminal import error_line, one_error_line, run, start

pytestmark = pytest.mark.usefixtures("asked_models")


class TestIndex:
    def test_json_fields_are_exact(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("index", photos, "--json") == 0
        out, err = capsys.readouterr()
        report = json.loads(out)
        assert list(report) == ["added", "updated", "unchanged", "removed", "moved", "skipped", "total"]
        assert [report[key] for key in ("added", "updated", "unchanged", "removed", "total")] == [4, 0, 0, 0, 4]
        assert [list(skip) for skip in report["skipped"]] == [["path", "reason"]]
        assert report["skipped"][0]["path"] == str(photos / "broken.jpg")
        assert "broken.jpg" in err

    def test_for_people(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("index", photos) == 0
        assert capsys.readouterr().out == "4 images: 4 added, 0 updated, 0 unchanged, 0 removed, 0 moved, 1 skipped\n"
        assert run("index", photos) == 0
        assert "0 added, 0 updated, 4 unchanged" in capsys.readouterr().out

    def test_images_of_other_kinds_are_named_in_one_line_a_kind(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "raw"
        folder.mkdir()
        for name in ("a.CR2", "b.nef", "c.psd", "notes.txt"):
            (folder / name).touch()
        assert run("index", folder) == 0
        out, err = capsys.readouterr()
        assert out.startswith("0 images")
        lines = [line for line in err.splitlines() if "not supported" in line]
        assert len(lines) == 2
        assert "2 camera RAW files (.cr2, .nef)" in lines[1]
        assert "1 Photoshop file (.psd)" in lines[0]
        assert run("search", folder, "--text", "red") == 0
        assert "camera RAW" in capsys.readouterr().err
        assert run("index", folder, "--json") == 0
        skipped = json.loads(capsys.readouterr().out)["skipped"]
        assert [Path(one["path"]).name for one in skipped] == ["a.CR2", "b.nef", "c.psd"]
        assert all("export it as JPEG or PNG" in one["reason"] for one in skipped)

    def test_an_image_cut_short_is_indexed_and_said_to_be_cut(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = save_colour(tmp_path / "photos" / "cut.bmp", "red", (60, 60))
        path.write_bytes(path.read_bytes()[:-2000])
        assert run("index", tmp_path / "photos") == 0
        out, err = capsys.readouterr()
        assert out.startswith("1 image: 1 added")
        assert f"warning: The file '{path}' is cut short or damaged: 20 % of the image is missing" in err
        assert run("search", tmp_path / "photos", "--image", path) == 0
        assert capsys.readouterr().err.count("is cut short") == 1

    def test_another_place(self, photos: Path, tmp_path: Path) -> None:
        assert run("index", photos, "--store", tmp_path / "s") == 0
        assert len(Store.open(tmp_path / "s")) == 4
        assert not default_location(photos).exists()

    def test_the_model_is_named_and_a_better_one_once_a_folder(
        self, photos: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hints = []
        for command in (["index", photos], ["index", photos], ["search", photos, "--text", "red"]):
            assert run(*command) == 0
            err = capsys.readouterr().err
            assert err.count("model: mini") == 1
            hints.append(err.count("--model vit-l-14"))
        assert hints == [1, 0, 0]

    def test_no_hint_before_an_error(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("search", photos, "--text", "red", "--where", "1 / (width - width) > 0") == 1
        err = capsys.readouterr().err
        assert "vit-l-14" not in err
        assert "Cannot use the condition" in error_line(err)
        assert "ivide by zero" in error_line(err)

    def test_a_store_is_brought_up_to_date_with_its_own_model(self, photos: Path, asked_models: list[str]) -> None:
        assert run("index", photos, "--model", "vit-l-14") == 0
        assert run("index", photos) == 0
        assert run("search", photos, "--text", "red") == 0
        assert asked_models == ["vit-l-14"] * 3


class TestOneIndexAModel:
    def test_another_model_gets_an_index_of_its_own(
        self, photos: Path, asked_models: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        query = ["search", photos, "--text", "red", "--json"]
        assert run(*query) == 0
        assert run(*query, "--model", "vit-l-14") == 0
        assert "4 added" in capsys.readouterr().err  # made on demand
        places = sorted(path.name for path in default_location(photos).iterdir() if path.name[0].isdigit())
        assert places == ["2-vit-l-14"]
        assert len(Store.open(default_location(photos) / "2-vit-l-14")) == 4
        assert run(*query, "--model", "mini") == 0
        assert run(*query, "--model", "vit-l-14") == 0
        assert "added" not in capsys.readouterr().err  # each is kept
        assert asked_models == ["mini", "vit-l-14", "mini", "vit-l-14"]

    def test_without_a_model_the_index_that_was_made_last(self, photos: Path, asked_models: list[str]) -> None:
        for name in ("vit-l-14", "someone/clip", "mini"):
            assert run("index", photos, "--model", name) == 0
        save_colour(photos / "new.png", "white")
        assert run("index", photos, "--model", "vit-l-14") == 0  # to bring one up to date changes nothing
        assert run("search", photos, "--text", "red") == 0
        assert asked_models[-1] == "mini"
        places = sorted(path.name for path in default_location(photos).iterdir() if path.name[0].isdigit())
        assert places == ["2-clip", "3-mini"]

    def test_a_store_of_another_model_is_refused_before_that_is_loaded(
        self, photos: Path, tmp_path: Path, asked_models: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("index", photos, "--store", tmp_path / "s") == 0
        asked_models.clear()
        capsys.readouterr()
        for command in (["search", tmp_path / "s", "--text", "red"], ["index", photos, "--store", tmp_path / "s"]):
            assert run(*command, "--model", "vit-l-14") == 1
            message = one_error_line(capsys)
            assert "was made with the model 'mini', not 'vit-l-14'; leave the model out" in message
        assert asked_models == []


@pytest.mark.slow
def test_a_disk_that_takes_no_more(photos: Path) -> None:
    run("index", photos)  # the table is there; only its rows cannot grow
    for i in range(50):
        save_colour(photos / f"{i}.png", (i, i, i))
    limit = (1000, 1000)  # bytes a file
    process = start("index", photos, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    _, err = process.communicate(timeout=300)
    assert process.returncode == 1
    assert "Cannot write to the index" in error_line(err)
    assert run("index", photos) == 0
    assert len(Store.open(default_location(photos))) == 54


@pytest.mark.slow
def test_ctrl_c_loses_nothing(tmp_path: Path) -> None:
    for i in range(160):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))
    process = start("index", tmp_path, "--json", seconds=0.5)
    wait_until = time.monotonic() + 60
    while not default_location(tmp_path).exists() and time.monotonic() < wait_until:
        time.sleep(0.05)
    time.sleep(1.5)  # two or three batches of five
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert out == ""
    assert "what is done is kept" in error_line(err)
    kept = len(Store.open(default_location(tmp_path)))
    assert 0 < kept < 160
    process = start("index", tmp_path, "--json")
    out, _ = process.communicate(timeout=300)
    report = json.loads(out)
    assert (report["added"], report["unchanged"], report["total"]) == (160 - kept, kept, 160)


@pytest.mark.slow
def test_a_killed_process_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    for i in range(160):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))
    process = start("index", tmp_path, seconds=0.3)
    while not default_location(tmp_path).exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=300)
    assert run("index", tmp_path) == 0
    assert len(Store.open(default_location(tmp_path))) == 160
    shutil.rmtree(default_location(tmp_path))
