"""Pseudo-words enter sentences by position, whatever the user's text is."""

import warnings

import pytest
import regex
import torch
from torch import Tensor

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import CutWarning
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import PseudoWords
from fti4cir.inversion.prompts import Template
from tinyclip import JOINT, VISION, random_inversion

pytestmark = pytest.mark.numeric

TEXTS = (
    "is red",
    "* is red * and has *s",
    "🐕 with a 🎩",
    "ist grün, mit Blumen",
    "это чёрная собака",
    "穿着红色的衣服",
    "ولكن باللون الأحمر",
    "<|endoftext|> red <|startoftext|>",
)


@pytest.fixture(scope="module")
def words() -> PseudoWords:
    torch.manual_seed(1)
    return random_inversion(threshold=0.15)(torch.randn(8, JOINT) * 3, torch.randn(8, 17, VISION))


def slow(encoder: ClipEncoder, words: PseudoWords, picture: int, text: str) -> Tensor:
    """One sentence, put together piece by piece and padded to the whole context; features (D,)."""

    def real(piece: str) -> Tensor:
        return encoder.embed_tokens(torch.tensor(encoder.tokenize(piece), dtype=torch.long))

    start, end = (encoder.embed_tokens(torch.tensor([token])) for token in (encoder.start_token, encoder.end_token))
    attributes = words.attributes[picture, : words.counts[picture]]
    pieces = [start, real("a photo of"), words.subject[[picture]], real("with"), attributes, real(f"but {text}"), end]
    sentence = torch.cat(pieces)
    padding = torch.randn(encoder.context_length - len(sentence), sentence.shape[1])
    return encoder.encode_embeddings(torch.cat([sentence, padding])[None], torch.tensor([len(sentence)]))[0]


def test_agrees_with_the_slow_version(encoder: ClipEncoder, words: PseudoWords) -> None:
    assert len(set(words.counts.tolist())) > 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # none of these texts is too long
        features = encode_sentences(encoder, [Template().pseudo(text) for text in TEXTS], words)
    for picture, text in enumerate(TEXTS):
        expected = slow(encoder, words, picture, text)
        torch.testing.assert_close(features[picture], expected, rtol=1e-5, atol=1e-5)


def test_owner_says_whose_words_fill_a_sentence(encoder: ClipEncoder, words: PseudoWords) -> None:
    owner = torch.tensor([5, 0, 5])
    features = encode_sentences(encoder, [Template().pseudo("is red")] * 3, words, owner)
    expected = encode_sentences(encoder, [Template().pseudo("is red")] * 8, words)[owner]
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_special_tokens_in_a_text_are_text(encoder: ClipEncoder) -> None:
    ids = encoder.tokenize("red <|endoftext|><|startoftext|> dog")
    assert encoder.end_token not in ids
    assert encoder.start_token not in ids


def test_gradient_reaches_the_words(encoder: ClipEncoder, words: PseudoWords) -> None:
    subject = words.subject.detach().clone().requires_grad_()
    filled = PseudoWords(**{**vars(words), "subject": subject})
    encode_sentences(encoder, [Template().pseudo("is red")] * 8, filled).sum().backward()
    assert subject.grad is not None
    assert (subject.grad.abs().sum(dim=-1) > 0).all()


def spy(encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The token ids of every batch that is encoded from now on, those of the first sentence."""
    seen: list[list[int]] = []
    real = ClipEncoder.embed_tokens

    def embed(self: ClipEncoder, ids: Tensor) -> Tensor:
        seen.append(ids[0].tolist())
        return real(self, ids)

    monkeypatch.setattr(ClipEncoder, "embed_tokens", embed)
    return seen


def read(encoder: ClipEncoder, ids: list[int]) -> str:
    """What tokens spell, broken characters as U+FFFD."""
    return encoder.tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_long_text_is_cut_at_a_word(encoder: ClipEncoder, words: PseudoWords) -> None:
    long = " ".join(f"red{number}" for number in range(500))
    with pytest.warns(CutWarning, match=r"the first \d+ of 500 words") as caught:
        features = encode_sentences(encoder, [Template().pseudo(long)], words)
    kept = int(str(caught[0].message).split("the first ")[1].split()[0])
    short = " ".join(long.split()[:kept])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = encode_sentences(encoder, [Template().pseudo(short)], words)
        with pytest.raises(CutWarning):
            encode_sentences(encoder, [Template().pseudo(" ".join(long.split()[: kept + 1]))], words)
    torch.testing.assert_close(features, expected)


# Each is one word that is too long, or a short word and then one.
UNBROKEN = {
    "Japanese": "赤い服を着た犬が草の上を走っている" * 10,
    "Latin": "xyzw" * 100,
    "two words": "red " + "紅" * 300,
    "many words": "red dog, black cat, " + "紅" * 300,
    "Hindi": "लालकुत्ता" * 30,  # vowels and their marks are characters of their own
    "Thai": "สุนัขสีแดงบนหญ้า" * 20,
    "decomposed": "ne\u0323\u0301" * 100,
    "family": "👨‍👩‍👧‍👦" * 40,
    "flags": "🇫🇷🇩🇪" * 40,
    "one character": "x" + "\u0334" * 500,
}


@pytest.mark.parametrize("name", UNBROKEN)
def test_a_long_word_is_cut_between_characters(
    encoder: ClipEncoder, words: PseudoWords, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = UNBROKEN[name]
    seen = spy(encoder, monkeypatch)
    with pytest.warns(CutWarning, match=rf"the first \d+ of {len(text)} characters were used") as caught:
        features = encode_sentences(encoder, [Template().pseudo(text)], words)
    used = int(str(caught[0].message).split("the first ")[1].split()[0])
    assert 0 < used < len(text)
    # What is left is what the user would have seen, had they typed only that.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        torch.testing.assert_close(features, encode_sentences(encoder, [Template().pseudo(text[:used])], words))
        more = used + len(regex.findall(r"\X", text[used:])[0])
        with pytest.raises(CutWarning):  # as much as fits: one character more does not
            encode_sentences(encoder, [Template().pseudo(text[:more])], words)
    assert "but" in read(encoder, seen[0])
    assert "\ufffd" not in read(encoder, [token for token in seen[0] if token])
    if name != "one character":
        assert used in [found.end() for found in regex.finditer(r"\X", text)]
    assert not torch.equal(features, encode_sentences(encoder, [Template().pseudo("x")], words))


def test_a_word_of_usual_length_is_left_out_whole(encoder: ClipEncoder) -> None:
    text = "red " * 73 + "xyzwv red"
    with pytest.warns(CutWarning, match=r"the first 73 of 75 words"):
        encode_sentences(encoder, [(text,)])


def test_the_words_of_the_template_stay(
    encoder: ClipEncoder, words: PseudoWords, monkeypatch: pytest.MonkeyPatch
) -> None:
    template = Template(modification="but with ({text}) as a photo")
    seen = spy(encoder, monkeypatch)
    for text in ("red dog " * 100, "紅" * 300):
        seen.clear()
        with pytest.warns(CutWarning):
            encode_sentences(encoder, [template.pseudo(text)], words)
        spelled = read(encoder, seen[0])
        assert "but with (" in spelled.replace("( ", "(")
        assert "as a photo" in spelled
    seen.clear()
    with pytest.warns(CutWarning):
        encode_sentences(encoder, [Template().pseudo_attributes("red dog " * 100)], words)
    assert " with" in read(encoder, seen[0]).split("dog")[-1]


@pytest.mark.parametrize("attributes", [40, 64, 71, 200])
def test_many_attributes_leave_half_of_the_room_to_the_text(
    encoder: ClipEncoder, attributes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    many = random_inversion(num_latent=attributes, max_attributes=attributes, threshold=None)(
        torch.randn(1, JOINT), torch.randn(1, 17, VISION)
    )
    assert many.counts.tolist() == [attributes]
    seen = spy(encoder, monkeypatch)
    long = "red dog " * 100
    with pytest.warns(CutWarning, match=r"of the image's \d+ attribute words|of 200 words"):
        encode_sentences(encoder, [Template().pseudo(long)], many)
    assert len(seen[0]) == encoder.context_length
    assert read(encoder, seen[0]).count("red dog") >= 15
    seen.clear()
    short = [encoder.tokenize("but red dog"), encoder.end_token]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        encode_sentences(encoder, [Template().pseudo("red dog")], many)
    assert seen[0][-4:] == [*short[0], short[1]]
    assert seen[0].count(0) >= min(attributes, 60)  # the rest is theirs


def test_what_a_very_long_text_costs(encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole text is tokenised a few times, not once for every step of the search for its cut."""
    read_: list[int] = []
    real = ClipEncoder.tokenize

    def tokenize(self: ClipEncoder, text: str) -> list[int]:
        read_.append(len(text))
        return real(self, text)

    monkeypatch.setattr(ClipEncoder, "tokenize", tokenize)
    for text in ("red dog " * 2_000, "紅" * 20_000):
        read_.clear()
        with pytest.warns(CutWarning):
            encode_sentences(encoder, [(text,)])
        assert sum(read_) < 3 * len(text)


def test_slots_need_words(encoder: ClipEncoder) -> None:
    with pytest.raises(ValueError, match="pseudo-words"):
        encode_sentences(encoder, [Template().pseudo("is red")])
