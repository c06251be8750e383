"""Keywords of captions."""

import pytest

from fti4cir.captions.keywords import keyword_runs, keywords

pytest.importorskip("spacy", reason="the keywords need spaCy's tagger")


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        ("a black dog on the green grass", ["black dog", "green grass"]),
        ("a big black dog", ["big black dog"]),
        ("two dogs and a cat", ["dogs", "cat"]),
        ("a tennis player on a court", ["tennis player", "court"]),
        ("a dog, a cat.", ["dog", "cat"]),
        ("the sky is blue", ["sky"]),
        ("a dog runs", ["dog"]),
        ("Paris in spring", ["Paris", "spring"]),
        ("it is very red", []),
        ("", []),
        ("...", []),
    ],
)
def test_keywords(caption: str, words: list[str]) -> None:
    [spans] = keywords([caption])
    assert [caption[start:end] for start, end in spans] == words


def test_adjectives_after_the_noun_stay() -> None:
    caption = "a dog big and black"
    [spans] = keywords([caption])
    assert [caption[start:end] for start, end in spans] == ["dog"]


def test_many_captions_in_order() -> None:
    captions = [f"a dog {'on grass ' * (number % 3)}".strip() for number in range(600)]
    assert [len(spans) for spans in keywords(captions)] == [1 + number % 3 for number in range(600)]


@pytest.mark.parametrize(
    ("caption", "runs"),
    [
        ("a black dog on the green grass", ["a black dog", "the green grass"]),
        ("paris in spring", ["paris", "spring"]),
        ("the sky is blue", ["the sky", "blue"]),  # adjectives alone count
        ("a dog, a t-shirt", ["a dog", "a t", "shirt"]),  # its tokens, whatever stands between them in the caption
        ("it runs quickly", []),
        ("", []),
    ],
)
def test_keyword_runs(caption: str, runs: list[str]) -> None:
    assert keyword_runs([caption]) == [runs]
