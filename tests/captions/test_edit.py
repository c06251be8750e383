"""Captions edited by rules."""

import random

import pytest

from fti4cir.captions.edit import (
    COLOURS,
    article,
    edit,
    edit_audience,
    edit_colour,
    edit_kind,
    edit_number,
    edit_place,
    edit_style,
)
from fti4cir.captions.split import SplitCaption

SHIRT = SplitCaption("a red shirt", "for men")
DOG = SplitCaption("two dogs", "running on the beach")


def every(rule, caption, times=60):
    """What a rule makes of a caption under many seeds."""
    return [rule(caption, random.Random(seed)) for seed in range(times)]


def test_a_colour_is_exchanged_and_named():
    for modification, caption in every(edit_colour, SHIRT):
        asked = modification.removesuffix(" instead of red")
        colour = next(word for word in sorted(COLOURS, key=len, reverse=True) if word in asked)
        assert colour != "red"
        assert caption == f"{article(f'{colour} shirt')} for men"


def test_a_caption_without_colour_gets_one():
    for modification, caption in every(edit_colour, SplitCaption("a shirt", "for men")):
        assert "{" not in modification
        assert "instead" not in modification  # of what?
        assert any(caption == f"{article(f'{colour} shirt')} for men" for colour in COLOURS if colour in modification)


def test_whole_words_only():
    for result in every(edit_colour, SplitCaption("a tanned man", "with a credit card")):
        assert "tanned man with a credit card" in result.caption


@pytest.mark.parametrize(
    ("rule", "caption", "kept"),
    [
        (edit_audience, SHIRT, "a red shirt for "),
        (edit_number, DOG, " dogs running on the beach"),
        (edit_place, DOG, "two dogs running "),
        (edit_kind, SplitCaption("a cat", "sleeping"), " sleeping"),
        (edit_style, SplitCaption("a painting", "of a tree"), " of a tree"),
        (edit_style, SplitCaption("a tree", "as a painting"), "a tree as a"),
    ],
)
def test_one_thing_changes_and_the_rest_stays(rule, caption, kept):
    for result in every(rule, caption):
        assert kept in result.caption
        assert result.caption != str(caption)
        assert result.modification.strip()
        assert "{" not in result.modification + result.caption


@pytest.mark.parametrize("rule", [edit_audience, edit_number, edit_kind])
def test_rules_that_do_not_apply(rule):
    assert every(rule, SplitCaption("a tree", "covered in moss")) == [None] * 60


def test_articles_follow_the_word():
    captions = {caption for _, caption in every(edit_colour, SHIRT, 400)}
    assert "an orange shirt for men" in captions
    assert "a blue shirt for men" in captions
    assert article("apple") == "an apple"
    assert article("jeans") == "jeans"
    assert article("dress") == "a dress"


def test_any_caption_can_be_edited():
    for caption in (SHIRT, DOG, SplitCaption("x", "y"), SplitCaption("чёрная собака", "бежит по траве")):
        for seed in range(200):
            modification, edited = edit(caption, SHIRT, random.Random(seed))
            assert modification.strip()
            assert edited.strip()


def test_the_same_seed_gives_the_same_edit():
    assert edit(SHIRT, DOG, random.Random(3)) == edit(SHIRT, DOG, random.Random(3))


def test_a_whole_part_may_come_from_another_caption():
    results = {edit(SplitCaption("a tree", "covered in moss"), DOG, random.Random(seed)).caption for seed in range(100)}
    assert "two dogs covered in moss" in results
    assert "a tree running on the beach" in results


def test_without_word_lists_a_whole_part_is_exchanged() -> None:
    caption, other = SplitCaption("a red shirt", "for men"), SplitCaption("a watch", "on a table")
    for seed in range(50):
        found = edit(caption, other, random.Random(seed), words=0.0)
        assert found.caption in ("a watch for men", "a red shirt on a table")
