"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path

import pytest

import fti4cir
from fti4cir.models import names
from standin import ColourModel, save_colour


@pytest.fixture
def asked_models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Load the stand-in instead of real weights; gives the names that were asked for."""
    asked: list[str] = []

    def load(name: str) -> ColourModel:
        asked.append(name)
        return ColourModel(name=name, fingerprint="colours-1" if name == "mini" else f"colours-{name}")

    monkeypatch.setattr(fti4cir, "load", load, raising=False)
    monkeypatch.setattr(names, "fetch", names.check)  # nothing to download
    return asked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    save_colour(folder / "red.jpg", (230, 20, 20))
    save_colour(folder / "más" / "синий.png", (20, 20, 230))
    save_colour(folder / "magenta.webp", (230, 20, 230))
    save_colour(folder / "green.gif", (20, 230, 20))
    (folder / "broken.jpg").write_text("<html>not found</html>")
    return folder
