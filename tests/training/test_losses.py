"""The losses against slow, obvious versions."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fti4cir.errors import TrainingError
from fti4cir.methods.fti4cir import InversionWeights
from fti4cir.training.losses import (
    contrastive,
    contrastive_across,
    orthogonality,
    regularization,
    squared_distance,
)

pytestmark = pytest.mark.numeric


def cosine(a: list[float], b: list[float]) -> float:
    dot = sum(x * y for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(x * x for x in a)) / math.sqrt(sum(y * y for y in b))


def slow_contrastive(image: Tensor, text: Tensor, temperature: float) -> float:
    vectors = [*image.tolist(), *text.tolist()]
    total = 0.0
    for index, vector in enumerate(vectors):
        partner = (index + len(image)) % len(vectors)
        scores = [cosine(vector, other) / temperature for other in vectors]
        rest = sum(math.exp(score) for place, score in enumerate(scores) if place != index)
        total += -math.log(math.exp(scores[partner]) / rest)
    return total / len(vectors)


def slow_orthogonality(selected: Tensor) -> float:
    errors = []
    for picture in selected.tolist():
        for i, one in enumerate(picture):
            errors += [(cosine(one, other) - (1.0 if i == j else 0.0)) ** 2 for j, other in enumerate(picture)]
    return sum(errors) / len(errors)


shapes = st.tuples(st.integers(1, 6), st.integers(2, 5), st.integers(0, 10_000))


@given(shapes, st.floats(0.1, 2))
@settings(max_examples=50, deadline=None)
def test_contrastive(shape: tuple[int, int, int], temperature: float) -> None:
    batch, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(batch, width, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = slow_contrastive(image, text, temperature)
    assert contrastive(image, text, temperature).item() == pytest.approx(expected, abs=1e-9)


def slow_across(image: Tensor, text: Tensor, temperature: float) -> float:
    """Each image among all sentences, each sentence among all images; no image against an image."""
    total = 0.0
    for queries, keys in ((image.tolist(), text.tolist()), (text.tolist(), image.tolist())):
        for place, query in enumerate(queries):
            scores = [cosine(query, key) / temperature for key in keys]
            total += math.log(sum(math.exp(score) for score in scores)) - scores[place]
    return total / (2 * len(image))


@given(shapes, st.floats(0.01, 2))
@settings(max_examples=50, deadline=None)
def test_contrastive_across(shape: tuple[int, int, int], temperature: float) -> None:
    batch, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    image, text = (torch.randn(batch, width, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = slow_across(image, text, temperature)
    assert contrastive_across(image, text, temperature).item() == pytest.approx(expected, abs=1e-9)
    assert contrastive_across(3 * image, text / 7, temperature).item() == pytest.approx(expected, abs=1e-9)


def test_across_kinds_images_are_no_negatives_of_each_other() -> None:
    image = torch.tensor([[1.0, 0.01], [1.0, -0.01]])
    text = torch.tensor([[0.0, 1.0], [0.0, -1.0]])
    # All images are nearly the same: as negatives of each other they would be the worst.
    assert contrastive(image, text, 0.1) > contrastive_across(image, text, 0.1) + 4
    with pytest.raises(TrainingError, match="temperature is 0"):
        contrastive_across(image, text, 0)


@given(shapes)
@settings(max_examples=20, deadline=None)
def test_squared_distance(shape: tuple[int, int, int]) -> None:
    batch, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    pseudo, real = (3 * torch.randn(batch, width, generator=generator, dtype=torch.float64) for _ in range(2))
    pairs = zip(pseudo.flatten().tolist(), real.flatten().tolist(), strict=True)
    expected = sum((one - other) ** 2 for one, other in pairs) / (batch * width)
    assert squared_distance(pseudo, real).item() == pytest.approx(expected, abs=1e-9)


@given(shapes)
@settings(max_examples=50, deadline=None)
def test_orthogonality(shape: tuple[int, int, int]) -> None:
    count, width, seed = shape
    selected = torch.randn(3, count, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    assert orthogonality(selected).item() == pytest.approx(slow_orthogonality(selected), abs=1e-9)


@given(shapes)
@settings(max_examples=50, deadline=None)
def test_regularization(shape: tuple[int, int, int]) -> None:
    batch, width, seed = shape
    generator = torch.Generator().manual_seed(seed)
    pseudo, real = (torch.randn(batch, width, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = sum(1 - cosine(a, b) for a, b in zip(pseudo.tolist(), real.tolist(), strict=True)) / batch
    assert regularization(pseudo, real).item() == pytest.approx(expected, abs=1e-9)


def test_by_eye() -> None:
    apart = torch.eye(2)
    # Each vector: its partner has cosine 1, the two others 0.
    assert contrastive(apart, apart, temperature=1.0).item() == pytest.approx(math.log((math.e + 2) / math.e))
    assert contrastive(torch.ones(1, 3), torch.randn(1, 3)).item() == 0
    assert orthogonality(apart[None]).item() == 0
    assert orthogonality(torch.ones(1, 2, 2)).item() == pytest.approx(0.5)  # two of four entries are off by one
    assert regularization(apart, apart).item() == pytest.approx(0, abs=1e-6)
    assert regularization(apart, -apart).item() == pytest.approx(2)


def test_total() -> None:
    terms = {
        "contrastive": torch.tensor(2.0),
        "orthogonality": torch.tensor(3.0),
        "regularization_whole": torch.tensor(5.0),
    }
    assert InversionWeights(orthogonality=0.5).total(terms).item() == pytest.approx(2 + 1.5 + 7)


def test_impossible_settings() -> None:
    with pytest.raises(TrainingError, match="temperature"):
        contrastive(torch.eye(2), torch.eye(2), temperature=0.0)
    with pytest.raises(TrainingError, match="orthogonality"):
        InversionWeights(orthogonality=-1.0)
