"""Strength and balance: arithmetic on the features of composed queries."""

import math

import pytest
import torch
from torch.nn import functional as F

from fti4cir.errors import InputError
from fti4cir.inversion.steering import ComposedQueries, check_steering


@pytest.fixture
def queries() -> ComposedQueries:
    image, plain, composed = F.normalize(torch.randn(3, 5, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    return ComposedQueries(image=image, plain=plain, composed=composed)


def test_as_trained_it_is_the_composed_query_to_the_bit(queries: ComposedQueries) -> None:
    assert torch.equal(queries.at(), queries.composed)


@pytest.mark.parametrize(("strength", "balance"), [(0.0, 0.0), (2.0, 0.0), (1.0, 0.4), (1.5, 1.0)])
def test_the_formula(queries: ComposedQueries, strength: float, balance: float) -> None:
    change = queries.composed - queries.plain
    by_text, by_image = queries.plain + strength * change, queries.image + strength * change
    expected = F.normalize((1 - balance) * by_text + balance * by_image, dim=-1)
    torch.testing.assert_close(queries.at(strength=strength, balance=balance), expected)


def test_the_ends(queries: ComposedQueries) -> None:
    torch.testing.assert_close(queries.at(strength=0.0), queries.plain)
    torch.testing.assert_close(queries.at(strength=0.0, balance=1.0), queries.image)


def test_a_query_of_no_length_stays_finite() -> None:
    one = torch.tensor([[1.0, 0.0]])
    nothing = ComposedQueries(image=one, plain=one, composed=-one).at(strength=0.5)
    assert nothing.isfinite().all()


@pytest.mark.parametrize(
    ("strength", "balance", "says"),
    [
        (-0.1, 0.0, r"strength is -0\.1, but must be a number of at least 0"),
        (math.nan, 0.0, "strength is nan"),
        (math.inf, 0.0, "strength is inf"),
        (1.0, -0.1, r"balance is -0\.1, but must be from 0"),
        (1.0, 1.1, r"balance is 1\.1"),
        (1.0, math.nan, "balance is nan"),
    ],
)
def test_numbers_out_of_range(strength: float, balance: float, says: str) -> None:
    with pytest.raises(InputError, match=says):
        check_steering(strength, balance=balance)
