"""The direction that `--without` moves a query away from."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from fti4cir.search.unwanted import COMMON_THINGS, Unwanted, unit


class Texts:
    """A text encoder whose features all share a large part, and counts what it encodes."""

    def __init__(self) -> None:
        self.encoded: list[str] = []

    def encode_texts(self, texts: list[str]) -> torch.Tensor:
        self.encoded += texts
        rows = torch.zeros(len(texts), 64)
        rows[:, 0] = 5.0
        for row, text in zip(rows, texts, strict=True):
            row[1 + sum(map(ord, text)) % 60] = 1.0
        return F.normalize(rows, dim=-1)


def test_the_common_part_is_gone_and_its_own_part_is_kept() -> None:
    model = Texts()
    feature = model.encode_texts(["stripes"])[0].numpy()
    direction = Unwanted(model).direction("stripes")  # type: ignore[arg-type]
    common = unit(model.encode_texts(list(COMMON_THINGS)).mean(dim=0).numpy())
    assert np.linalg.norm(direction) == pytest.approx(1.0, abs=1e-6)
    assert direction @ common == pytest.approx(0.0, abs=1e-6)
    assert direction @ feature > 0.1


def test_what_is_common_is_computed_once() -> None:
    model = Texts()
    unwanted = Unwanted(model)  # type: ignore[arg-type]
    for text in ("stripes", "snow", "stripes"):
        unwanted.direction(text)
    assert model.encoded == [*COMMON_THINGS, "stripes", "snow", "stripes"]


def test_a_text_that_is_only_common_changes_nothing() -> None:
    same = SimpleNamespace(encode_texts=lambda texts: torch.ones(len(texts), 4) / 2)
    assert not Unwanted(same).direction("anything").any()  # type: ignore[arg-type]
