"""The metrics, by eye on small matrices and against a slow second version on made-up data."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fti4cir.evaluation.metrics import (
    average_precision_at,
    bootstrap_interval,
    first_equal,
    paired_bootstrap,
    rank,
    recall_at,
    similarities,
)

pytestmark = pytest.mark.numeric


def slow_rank(scores, excluded, k):
    """The rule of ties, word for word: higher score first, then the earlier in the gallery."""
    left = [position for position in range(len(scores)) if not excluded[position]]
    return sorted(left, key=lambda position: (-scores[position], position))[:k]


def slow_recall(ranking, targets):
    return len(set(ranking) & targets) / len(targets)


def slow_average_precision(ranking, targets, k):
    total = 0.0
    for place, position in enumerate(ranking, start=1):
        if position in targets:
            total += len(set(ranking[:place]) & targets) / place
    return total / min(len(targets), k)


@st.composite
def problems(draw):
    """Scores of few distinct values, so that most of them tie, any exclusions, and at least one target a query."""
    queries, gallery = draw(st.integers(1, 4)), draw(st.integers(1, 12))
    shape = (queries, gallery)
    dtype = draw(st.sampled_from([np.float32, np.float64, np.int64]))
    scores = draw(hnp.arrays(dtype, shape, elements=st.integers(-2, 2)))
    excluded = draw(hnp.arrays(bool, shape))
    relevant = draw(hnp.arrays(bool, shape))
    relevant[np.arange(queries), draw(hnp.arrays(np.int64, queries, elements=st.integers(0, gallery - 1)))] = True
    return scores, excluded, relevant, draw(st.integers(1, 15))


@settings(max_examples=300, deadline=None)
@given(problems())
def test_agrees_with_the_slow_version(problem):
    scores, excluded, relevant, k = problem
    ranking = rank(scores, k, excluded)
    recall, precision = recall_at(ranking, relevant, k), average_precision_at(ranking, relevant, k)
    assert ranking.shape == (len(scores), min(k, scores.shape[1]))
    for query in range(len(scores)):
        expected = slow_rank(scores[query], excluded[query], k)
        targets = set(np.flatnonzero(relevant[query]))
        assert ranking[query].tolist() == expected + [-1] * (ranking.shape[1] - len(expected))
        assert recall[query] == pytest.approx(slow_recall(expected, targets))
        assert precision[query] == pytest.approx(slow_average_precision(expected, targets, k))


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.float32, st.tuples(st.integers(0, 12), st.integers(1, 4)), elements=st.integers(0, 1)))
def test_equal_rows_are_found(features):
    rows = features.tolist()
    assert first_equal(features).tolist() == [rows.index(row) for row in rows]


def test_equal_rows_have_equal_similarities():
    """Even where a product gives each column another error, as some processors do in the last bit."""

    class Uneven(np.ndarray):
        def __matmul__(self, other):
            product = np.asarray(self) @ np.asarray(other)
            return product + np.linspace(0, 1e-3, product.shape[1], dtype=np.float32)

    generator = np.random.default_rng(0)
    gallery = generator.standard_normal((40, 8), dtype=np.float32)[generator.integers(40, size=90)]
    queries = generator.standard_normal((5, 8), dtype=np.float32)
    scores = similarities(queries.view(Uneven), gallery, first_equal(gallery))
    np.testing.assert_allclose(scores, queries @ gallery.T, atol=1.1e-3)
    for one, row in enumerate(gallery):
        equal = np.flatnonzero((gallery == row).all(axis=1))
        assert (scores[:, equal] == scores[:, [one]]).all()


@settings(max_examples=100, deadline=None)
@given(problems())
def test_a_deeper_ranking_begins_with_the_shallower_one(problem):
    scores, excluded, relevant, k = problem
    deep, shallow = rank(scores, scores.shape[1], excluded), rank(scores, k, excluded)
    assert (deep[:, :k] == shallow).all()
    assert (average_precision_at(deep, relevant, k) == average_precision_at(shallow, relevant, k)).all()


def test_large_ranking_agrees_with_a_full_sort():
    scores = np.random.default_rng(0).integers(0, 50, (20, 3000)).astype(np.float32)
    assert (rank(scores, 100) == np.argsort(-scores, axis=1, kind="stable")[:, :100]).all()


def test_ties_go_by_gallery_order():
    scores = [[0.5, 0.9, 0.5, 0.9, 0.5]]
    assert rank(scores, 5).tolist() == [[1, 3, 0, 2, 4]]
    assert rank(scores, 3).tolist() == [[1, 3, 0]]  # the cut falls among equals


def test_the_scores_are_left_as_they_were():
    scores = np.array([[0.1, 0.2]])
    rank(scores, 1, [[False, True]])
    assert scores.tolist() == [[0.1, 0.2]]


def test_average_precision_by_eye():
    relevant = [[True, True, False, False]]
    assert average_precision_at([[0, 1, 2, 3]], relevant, 4) == pytest.approx([1])
    assert average_precision_at([[2, 0, 3, 1]], relevant, 4) == pytest.approx([(1 / 2 + 2 / 4) / 2])
    assert average_precision_at([[2, 3, 0, 1]], relevant, 2) == pytest.approx([0])


def test_average_precision_divides_by_what_can_be_reached():
    everything = [[True] * 5]
    assert average_precision_at([[4, 3, 2, 1, 0]], everything, 2) == pytest.approx([1])
    one_missed = [[True, True, False]]
    assert average_precision_at([[0, 2, 1]], one_missed, 2) == pytest.approx([1 / 2])  # not 1, which hits found gives


def test_a_target_that_cannot_be_found_counts():
    """The last of three images is a target, but not there to be ranked."""
    ranking, relevant = [[0, 1, -1]], [[True, False, True]]
    assert recall_at(ranking, relevant, 3).tolist() == [0.5]
    assert average_precision_at(ranking, relevant, 3).tolist() == [0.5]


def test_recall_by_eye():
    relevant = [[True, False, True, False], [False, True, False, False]]
    ranking = [[0, 1, 2, 3], [0, 1, 2, 3]]
    assert recall_at(ranking, relevant, 1).tolist() == [0.5, 0]
    assert recall_at(ranking, relevant, 2).tolist() == [0.5, 1]
    assert recall_at(ranking, relevant, 50).tolist() == [1, 1]  # beyond the gallery


@pytest.mark.parametrize(
    ("scores", "k", "exclude", "message"),
    [
        ([[np.nan, 1.0]], 1, None, "finite"),
        ([[np.inf, 1.0]], 1, None, "finite"),
        ([[1.0]], 0, None, "at least 1"),
        ([1.0, 2.0], 1, None, "gallery"),
        ([[1.0, 2.0]], 1, [[True]], "shape"),
    ],
)
def test_rank_refuses(scores, k, exclude, message):
    with pytest.raises(ValueError, match=message):
        rank(scores, k, exclude)


@pytest.mark.parametrize("metric", [recall_at, average_precision_at])
@pytest.mark.parametrize(
    ("ranking", "relevant", "k", "message"),
    [
        ([[0, 1], [1, 0]], [[True, False], [False, False]], 1, "query 1 has no target"),
        ([[0]], [[True, False]], 2, "too short"),
        ([[0, 1]], [[True, False], [True, False]], 1, "as many queries"),
        ([[0, 1]], [[True, False]], 0, "at least 1"),
    ],
)
def test_metrics_refuse(metric, ranking, relevant, k, message):
    with pytest.raises(ValueError, match=message):
        metric(ranking, relevant, k)


def test_interval_agrees_with_the_normal_one():
    values = np.random.default_rng(0).normal(0.3, 0.2, 2000)
    margin = 1.96 * values.std() / np.sqrt(len(values))
    assert bootstrap_interval(values) == pytest.approx([values.mean() - margin, values.mean() + margin], abs=0.001)


def test_interval_of_several_figures_is_that_of_each():
    values = np.random.default_rng(0).random((50, 3))
    together = bootstrap_interval(values, seed=3)
    assert together.shape == (2, 3)
    for column in range(3):
        assert together[:, column] == pytest.approx(bootstrap_interval(values[:, column], seed=3))


def test_groups_agree_with_a_slow_version():
    generator = np.random.default_rng(1)
    values, groups = generator.random(40), generator.integers(0, 8, 40)
    members = [values[groups == group] for group in np.unique(groups)]
    slow = np.random.default_rng(0)
    means = [np.concatenate([members[i] for i in slow.integers(len(members), size=len(members))]).mean()
             for _ in range(2000)]  # fmt: skip
    assert bootstrap_interval(values, groups) == pytest.approx(np.percentile(means, [2.5, 97.5]))


def test_queries_that_share_their_fate_widen_the_interval():
    values = np.repeat(np.random.default_rng(0).integers(0, 2, 100), 10)
    low, high = bootstrap_interval(values)
    grouped_low, grouped_high = bootstrap_interval(values, np.repeat(np.arange(100), 10))
    assert grouped_high - grouped_low > 2 * (high - low)


def test_interval_of_one_group_has_no_width():
    assert bootstrap_interval([0.0, 1.0], ["same", "same"]).tolist() == [0.5, 0.5]


def test_interval_is_the_same_again_for_the_same_seed():
    values = np.random.default_rng(0).random(30)
    assert (bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)).all()
    assert (bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)).any()


@pytest.mark.parametrize(("values", "groups"), [([], None), ([[[0.5]]], None), ([0.5, 0.5], [1])])
def test_interval_refuses(values, groups):
    with pytest.raises(ValueError, match="quer"):
        bootstrap_interval(values, groups)


def test_pairing_finds_what_separate_intervals_hide():
    hardness = np.random.default_rng(0).random(200)
    better, worse = hardness + 0.02, hardness
    assert bootstrap_interval(better)[0] < bootstrap_interval(worse)[1]
    difference = paired_bootstrap(better, worse)
    assert difference == pytest.approx((0.02, 0.02, 0.02))
    assert difference.significant
    assert paired_bootstrap(worse, better).significant


def test_no_difference_is_not_significant():
    generator = np.random.default_rng(0)
    assert not paired_bootstrap(generator.random(100), generator.random(100)).significant
    assert not paired_bootstrap([0.5, 0.5], [0.5, 0.5]).significant


def test_pairing_refuses_other_queries():
    with pytest.raises(ValueError, match="same queries"):
        paired_bootstrap([0.1, 0.2], [0.1])
