"""`fti4cir explain` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import fti4cir
from standin import ColourModel
from terminal import run

pytestmark = pytest.mark.usefixtures("asked_models")


def test_explain_writes_what_it_is_asked_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Explanation:
        def to_json(self) -> dict[str, int]:
            return {"attributes": 3}

        def __str__(self) -> str:
            return "3 attributes"

    model = ColourModel()
    monkeypatch.setattr(model, "explain", lambda path: Explanation(), raising=False)
    monkeypatch.setattr(fti4cir, "load", lambda name: model, raising=False)
    monkeypatch.setattr(
        "fti4cir.report.explanation.write_html", lambda explanation, path: path.write_text(str(explanation))
    )
    assert run("explain", photos / "red.jpg") == 0
    assert capsys.readouterr().out == "3 attributes\n"
    assert run("explain", photos / "red.jpg", "--output", tmp_path / "x.html", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"attributes": 3}
    assert (tmp_path / "x.html").read_text() == "3 attributes"
