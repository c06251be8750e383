"""Pseudo-words enter sentences by position, whatever the user's text is."""

import warnings

import pytest
import torch
from torch import Tensor

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.inversion.compose import CutWarning, encode_sentences
from fti4cir.inversion.network import PseudoWords
from fti4cir.inversion.prompts import Template
from tinyclip import JOINT, VISION, clip_folder, encoder, random_inversion

__all__ = ["clip_folder", "encoder"]

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


def test_long_text_is_cut_at_a_word(encoder: ClipEncoder, words: PseudoWords) -> None:
    long = " ".join(f"red{number}" for number in range(500))
    with pytest.warns(CutWarning, match=r"the first \d+ of 501 words") as caught:
        features = encode_sentences(encoder, [Template().pseudo(long)], words)
    kept = int(str(caught[0].message).split("the first ")[1].split()[0]) - 1  # without "but"
    short = " ".join(long.split()[:kept])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        expected = encode_sentences(encoder, [Template().pseudo(short)], words)
        with pytest.raises(CutWarning):
            encode_sentences(encoder, [Template().pseudo(" ".join(long.split()[: kept + 1]))], words)
    torch.testing.assert_close(features, expected)


def test_long_text_without_spaces(encoder: ClipEncoder, words: PseudoWords) -> None:
    with pytest.warns(CutWarning):
        features = encode_sentences(encoder, [("紅" * 300,)])
    assert features.shape == (1, JOINT)
    assert features.isfinite().all()


def test_slots_need_words(encoder: ClipEncoder) -> None:
    with pytest.raises(ValueError, match="pseudo-words"):
        encode_sentences(encoder, [Template().pseudo("is red")])
