"""Fixtures of many tests. They import torch and transformers themselves: tests that need neither are quick to start."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from torch import nn

    from fti4cir.backbones.clip import ClipEncoder


@pytest.fixture(scope="session")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP."""
    from tinyclip import build

    return build(tmp_path_factory.mktemp("tiny") / "clip")


@pytest.fixture(scope="session")
def encoder(clip_folder: Path) -> ClipEncoder:
    """The dual encoder of `clip_folder`."""
    from fti4cir.models.loading import load

    return load(clip_folder, device="cpu").encoder


@pytest.fixture(scope="session")
def blip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BLIP captioner."""
    from tinyblip import build

    return build(tmp_path_factory.mktemp("tiny") / "blip")


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """Images with captions to train on: `pictures` and `captions`."""
    from tinydata import write_data

    return write_data(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For so small a network, several threads only wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def clip_tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small CLIP of the figures in `reference`."""
    from released import write_clip

    return write_clip(tmp_path_factory.mktemp("released") / "clip-tiny")


@pytest.fixture
def release(monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """Makes networks of the release's classes, importable only while this fixture lives."""
    from releasednetwork import importable

    return importable(monkeypatch)
