"""`fti4cir demo` as a user types it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fti4cir.search import demo
from fti4cir.search.locations import default_location
from terminal import one_error_line, run

pytestmark = pytest.mark.usefixtures("asked_models")


def test_images_of_ones_own(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (photos / "broken.jpg").unlink()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert run("demo", "--folder", photos) == 0
    out = capsys.readouterr().out
    assert out.startswith(f"4 images of {photos}\n")
    assert 'green.gif, but "in red"' in out
    assert "fti4cir search FOLDER" in out
    assert not default_location(photos).exists()  # nothing is left in the folder


def test_photos_within_scikit_image(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("skimage")
    monkeypatch.setattr(demo, "STAMPS", Path("/nowhere"))
    chosen = demo.choose_images()
    for example in chosen.examples:
        assert example.image is None or (chosen.folder / example.image).is_file()


def test_no_images(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "STAMPS", Path("/nowhere"))
    monkeypatch.setattr(demo, "find_spec", lambda name: None)
    assert run("demo") == 1
    assert "--folder" in one_error_line(capsys)
    assert run("demo", "--folder", tmp_path) == 1
    assert "There are no images" in one_error_line(capsys)
