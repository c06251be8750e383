"""What the tests of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import fti4cir
from fti4cir.models import names

if TYPE_CHECKING:
    from fti4cir.backbones.clip import ClipEncoder


@pytest.fixture
def asked_models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Load the stand-in instead of real weights; gives the names that were asked for."""
    from standin import ColourModel

    asked: list[str] = []

    def load(name: str) -> ColourModel:
        asked.append(name)
        return ColourModel(name=name, fingerprint="colours-1" if name == "mini" else f"colours-{name}")

    monkeypatch.setattr(fti4cir, "load", load, raising=False)
    monkeypatch.setattr(names, "fetch", names.check)  # nothing to download
    return asked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Four images and a file that is none."""
    from standin import save_colour

    folder = tmp_path / "my photos"
    save_colour(folder / "red.jpg", (230, 20, 20))
    save_colour(folder / "más" / "синий.png", (20, 20, 230))
    save_colour(folder / "magenta.webp", (230, 20, 230))
    save_colour(folder / "green.gif", (20, 230, 20))
    (folder / "broken.jpg").write_text("<html>not found</html>")
    return folder


@pytest.fixture(scope="session")
def model(encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved model with random weights on the tiny CLIP."""
    from fti4cir.models.saved import save_model
    from tinyclip import random_inversion

    return save_model(tmp_path_factory.mktemp("model"), random_inversion(), encoder=encoder, trained={})
