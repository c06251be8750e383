"""What is known of a model before it is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fti4cir.backbones import hub
from fti4cir.backbones.base import PIXELS
from fti4cir.errors import ModelError
from fti4cir.models import names


def saved(folder: Path, fingerprint: str, backbone: str = "mini") -> str:
    folder.mkdir()
    config = {"format": "fti4cir", "backbone": backbone, "fingerprint": fingerprint}
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


def clip(folder: Path) -> str:
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "clip"}')
    return str(folder)


def test_whether_another_model_may_have_made_a_store(tmp_path: Path) -> None:
    mine, other = saved(tmp_path / "mine", "abc-bfloat16"), saved(tmp_path / "other", "xyz")
    assert names.may_have_made("mini", "mini", fingerprint="abc")
    for of_store in ("abc", f"abc.{PIXELS}", f"abc-bfloat16.{PIXELS}"):
        assert names.may_have_made(mine, "mini", fingerprint=of_store)  # trained on the same encoder
    assert not names.may_have_made(other, "mini", fingerprint="abc")
    assert not names.may_have_made("vit-l-14", "mini", fingerprint="abc")
    assert not names.may_have_made("someone/clip", "mini", fingerprint="abc")
    assert not names.may_have_made("mini", "vit-l-14", fingerprint="abc")
    own = json.loads((Path(names.__file__).parents[1] / "weights" / "mini" / "inversion" / "config.json").read_text())
    assert names.may_have_made("mini", mine, fingerprint=own["fingerprint"])
    # The same CLIP has several names, and what a folder holds is seen when it is loaded.
    assert names.may_have_made("vit-l-14", names.CLIP_REPOSITORY, fingerprint="abc")
    assert names.may_have_made(names.CLIP_REPOSITORY, "vit-l-14", fingerprint="abc")
    assert names.may_have_made(clip(tmp_path / "clip"), "someone/clip", fingerprint="abc")


def test_names_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "empty").mkdir()
    for name in ("gone", "a/b/c", str(tmp_path / "file"), str(tmp_path / "empty"), "", "a\nb/c"):
        with pytest.raises(ModelError):
            names.check(name)
    names.check("mini")
    names.check("vit-l-14")
    names.check("someone/clip")


def test_what_a_model_needs_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def snapshot(repository: str, *_: object, **__: object) -> Path:
        asked.append(repository)
        return tmp_path

    monkeypatch.setattr(hub, "snapshot", snapshot)
    monkeypatch.setattr(names, "released_folder", lambda: tmp_path / "none")
    for name, needed in {
        "mini": [],
        clip(tmp_path / "clip"): [],
        saved(tmp_path / "a", "x"): [],
        saved(tmp_path / "b", "x", "someone/clip"): ["someone/clip"],
        "someone/clip": ["someone/clip"],
        "vit-l-14": [names.CLIP_REPOSITORY, names.RELEASE_REPOSITORY],
    }.items():
        asked.clear()
        names.fetch(name)
        assert asked == needed


def test_no_torch_is_needed() -> None:
    code = "import sys, fti4cir.models.names, huggingface_hub; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
