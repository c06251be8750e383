"""What the tests of indexing and searching share."""

from __future__ import annotations

from pathlib import Path

import pytest

from standin import save_colour


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "photos"
    save_colour(top / "red.jpg", "red")
    save_colour(top / "sub folder" / "grün blå.png", "green")
    save_colour(top / "日本" / "青.webp", "blue")
    return top
