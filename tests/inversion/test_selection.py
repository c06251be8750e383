"""Dynamic selection against a slow, obvious version; the attribute transformer's shortcuts."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fti4cir.inversion.attributes import AttributeLayer, LatentAttributes, select

pytestmark = pytest.mark.numeric


def slow_select(relevance: list[float], most: int, threshold: float) -> tuple[list[int], int]:
    """One image: the kept attributes by index, the others by falling relevance; and how many are kept."""
    by_relevance = sorted(range(len(relevance)), key=lambda index: -relevance[index])[:most]
    count = min(max(sum(value > threshold for value in relevance), 1), most)
    return sorted(by_relevance[:count]) + by_relevance[count:], count


def attributes_with(scores: Tensor) -> tuple[Tensor, Tensor]:
    """Latent attributes (B, K, 1) and image features (B, 1) whose inner products are the scores (B, K)."""
    return scores[..., None], torch.ones(len(scores), 1)


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_agrees_with_the_slow_version(data: st.DataObject) -> None:
    latent = data.draw(st.integers(1, 12))
    most = data.draw(st.integers(1, latent))
    threshold = data.draw(st.floats(0, 0.99))
    # Permutations: without ties, so that there is one right order.
    rows = data.draw(st.lists(st.permutations(range(latent)), min_size=1, max_size=5))
    scores = torch.tensor(rows, dtype=torch.float32) * data.draw(st.sampled_from([0.01, 0.3, 2.0]))
    selection = select(*attributes_with(scores), most, threshold)
    for row in range(len(rows)):
        indices, count = slow_select(selection.relevance[row].tolist(), most, threshold)
        assert selection.indices[row].tolist() == indices
        assert selection.counts[row] == count


def test_example() -> None:
    # relevance:      0.02  0.64  0.01   0.09  0.24
    scores = torch.tensor([[0.02, 0.64, 0.01, 0.09, 0.24]]).log()
    selection = select(*attributes_with(scores), most=4, threshold=0.05)
    assert selection.counts.tolist() == [3]
    assert selection.indices.tolist() == [[1, 3, 4, 0]]


def test_none_above_the_threshold_keeps_the_best() -> None:
    selection = select(*attributes_with(torch.tensor([[0.0, 0.1, 0.0]])), most=2, threshold=0.9)
    assert selection.counts.tolist() == [1]
    assert selection.indices[0, 0] == 1


def test_ties_give_each_attribute_once() -> None:
    selection = select(*attributes_with(torch.zeros(3, 6)), most=6, threshold=0.05)
    assert selection.counts.tolist() == [6, 6, 6]
    assert selection.indices.tolist() == [[0, 1, 2, 3, 4, 5]] * 3


def test_no_threshold_keeps_all() -> None:
    selection = select(*attributes_with(torch.tensor([[9.0, 0.0, 5.0]])), most=2, threshold=None)
    assert selection.counts.tolist() == [2]
    assert selection.indices.tolist() == [[0, 2]]


def test_relevance_sums_to_one() -> None:
    relevance = select(torch.rand(4, 7, 3), torch.randn(4, 3) * 50, most=3, threshold=0.05).relevance
    assert relevance.sum(dim=-1) == pytest.approx(torch.ones(4))


@pytest.mark.parametrize("heads", [1, 4])
def test_fewer_outputs_are_the_first_of_all(heads: int) -> None:
    layer = AttributeLayer(8, heads)
    x = torch.randn(2, 9, 8)
    torch.testing.assert_close(layer(x, outputs=3), layer(x)[:, :3])


def test_attention_is_what_the_layer_uses() -> None:
    layer = AttributeLayer(8, heads=1)
    x = torch.randn(2, 9, 8)
    weights = layer.attention(x)
    value = layer.key_value(layer.norm_attention(x)).chunk(2, dim=-1)[1]
    y = x + layer.output(weights @ value)
    expected = y + layer.narrow(layer.widen(layer.norm_mlp(y)).relu())
    torch.testing.assert_close(layer(x), expected)


def test_rollout_is_a_share_of_the_places() -> None:
    looked = LatentAttributes(count=5, width=8, joint_width=4, layers=3, heads=2).attention(torch.randn(2, 10, 8))
    assert looked.shape == (2, 5, 10)
    assert (looked >= 0).all()
    torch.testing.assert_close(looked.sum(dim=-1), torch.ones(2, 5))
