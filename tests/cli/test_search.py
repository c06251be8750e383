"""`fti4cir search` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from standin import save_colour
from terminal import run

pytestmark = pytest.mark.usefixtures("asked_models")


class TestSearch:
    def search(self, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[str]:
        assert run("search", *arguments, "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["model"] == "mini"
        scores = [result["score"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert all(list(result) == ["path", "score"] and Path(result["path"]).is_file() for result in answer["results"])
        return [Path(result["path"]).stem for result in answer["results"]]

    def test_a_folder_is_indexed_on_first_use_and_kept_up_to_date(
        self, photos: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.search(capsys, photos, "--text", "green", "-k", "1") == ["green"]
        save_colour(photos / "purer.png", (0, 255, 0))
        (photos / "green.gif").unlink()
        assert self.search(capsys, photos, "--text", "green", "-k", "1") == ["purer"]

    def test_a_store(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run("index", photos, "--store", tmp_path / "s")
        capsys.readouterr()
        (photos / "green.gif").rename(photos / "renamed.gif")  # a store is searched as it is
        assert run("search", tmp_path / "s", "--text", "green", "--json", "-k", "1") == 0
        assert json.loads(capsys.readouterr().out)["results"][0]["path"].endswith("green.gif")

    def test_every_kind_of_query(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        red = photos / "red.jpg"
        assert self.search(capsys, photos, "--image", red)[0] == "magenta"
        assert self.search(capsys, photos, "--image", red, "--text", "blue", "-k", "1") == ["magenta"]
        assert "red" not in self.search(capsys, photos, "--image", red, "--text", "red")
        assert self.search(capsys, photos, "--image", red, "--include-reference")[0] == "red"
        two = self.search(capsys, photos, "--image", red, "--image", photos / "más" / "синий.png")
        assert two == ["magenta", "green"]
        assert self.search(capsys, photos, "--text", "red blue", "--without", "blue", "-k", "1") == ["red"]
        assert self.search(capsys, photos, "--text", "red", "--where", "path LIKE 'más/%'") == ["синий"]

    def test_for_people(
        self, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos)
        assert run("search", ".", "--text", "blue", "-k", "2") == 0
        head, first, _ = capsys.readouterr().out.splitlines()
        assert head.split() == ["rank", "score", "image"]
        assert first.split() == ["1", "1.000", "más/синий.png"]
        assert run("search", ".", "--text", "blue", "--where", "width > 9999") == 0
        assert capsys.readouterr().out == "no images\n"
