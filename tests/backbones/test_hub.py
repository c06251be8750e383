"""Files from the hub: found in the cache, downloaded, or missing for one plain reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from huggingface_hub import constants
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError

from fti4cir.backbones import hub
from fti4cir.errors import ModelError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def get() -> Path:
    return hub.snapshot(
        "someone/clip",
        None,
        choices=[["*.json"]],
        whole=lambda folder: (folder / "config.json").exists(),
        otherwise="use mini",
    )


def raising(error: Exception) -> Callable[..., None]:
    def raise_it(*_: object) -> None:
        raise error

    return raise_it


def refused(kind: type[HfHubHTTPError], status: int) -> HfHubHTTPError:
    response = httpx.Response(status, request=httpx.Request("GET", "https://hub.example/x"))
    return kind("Long text of the hub.\nRequest ID: 5; try again!", response=response)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            httpx.ConnectError("[Errno -2] Name or service not known"),
            "which cannot be reached; go online, or use mini.",
        ),
        (OSError("connection broke"), "which cannot be reached; go online, or use mini."),
        (refused(GatedRepoError, 403), "log in with `hf auth login`, or use mini."),
        (refused(RepositoryNotFoundError, 401), "which has no public model of that name; check the name"),
        (refused(RevisionNotFoundError, 404), "does not have that revision"),
        (refused(HfHubHTTPError, 503), "which answers with an error (status 503); try again later, or use mini."),
        (OSError(28, "No space left on device", "/cache/x"), "'/cache/x' cannot be written (No space left on device)"),
    ],
)
def test_one_sentence_without_the_hubs_text(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], error: Exception, says: str
) -> None:
    monkeypatch.setattr(hub, "_require_answer", raising(error))
    with pytest.raises(ModelError) as caught:
        get()
    message = str(caught.value)
    assert message.startswith("someone/clip has to be downloaded once from the Hugging Face hub, ")
    assert says in message
    assert "Request ID" not in message
    assert "Errno" not in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")


def test_an_unreachable_hub_is_asked_once(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", raising(AssertionError("it tries again")))
    with pytest.raises(ModelError, match="cannot be reached"):
        get()
    assert capfd.readouterr() == ("", "")


def test_offline_by_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(hub, "_require_answer", raising(AssertionError("asked")))
    with pytest.raises(ModelError, match="HF_HUB_OFFLINE forbids it; unset that, or use mini"):
        get()


def test_what_is_there_is_not_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshot = tmp_path / "hub" / "models--someone--clip" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").touch()
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("a" * 40)
    monkeypatch.setattr(hub, "_require_answer", raising(AssertionError("asked")))
    assert get() == snapshot
