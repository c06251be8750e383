"""The CLIP adapter against transformers' own functions."""

import warnings
from copy import deepcopy
from pathlib import Path

import pytest
import torch

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.images.preprocess import square
from fti4cir.models.loading import load
from tinyclip import INPUT_SIZE, JOINT, TOKEN, VISION, build, picture

pytestmark = pytest.mark.numeric


def test_widths(encoder: ClipEncoder) -> None:
    assert (encoder.joint_width, encoder.vision_width, encoder.token_width) == (JOINT, VISION, TOKEN)
    assert (encoder.context_length, encoder.input_size) == (77, INPUT_SIZE)


def test_image_features(encoder: ClipEncoder) -> None:
    pixels = torch.stack([encoder.preprocess(picture(seed)) for seed in range(3)])
    features = encoder.encode_pixels(pixels)
    tower = encoder.model.vision_model(pixel_values=pixels, output_hidden_states=True)
    torch.testing.assert_close(features.image, encoder.model.visual_projection(tower.pooler_output))
    torch.testing.assert_close(features.local, tower.hidden_states[-1])
    assert not features.image.requires_grad


def test_preprocessing(encoder: ClipEncoder) -> None:
    image = picture(size=(90, 40))
    pixels = encoder.preprocess(image) * torch.tensor([0.27, 0.26, 0.28])[:, None, None]
    red = (pixels[0, 3, 5] + 0.48) * 255
    assert pixels.shape == (3, INPUT_SIZE, INPUT_SIZE)
    assert red.item() == pytest.approx(square(image, INPUT_SIZE).getpixel((5, 3))[0], abs=1e-3)


def test_text_features(encoder: ClipEncoder) -> None:
    ids = torch.tensor([[encoder.start_token, *encoder.tokenize("a photo of a red dog"), encoder.end_token]])
    tower = encoder.model.text_model(input_ids=ids)
    expected = encoder.model.text_projection(tower.last_hidden_state[:, -1])
    found = encoder.encode_embeddings(encoder.embed_tokens(ids), torch.tensor([ids.shape[1]]))
    torch.testing.assert_close(found, expected)


def test_padding_has_no_effect(encoder: ClipEncoder) -> None:
    short, long = torch.randn(1, 5, TOKEN), torch.randn(1, 20, TOKEN)
    padded = torch.cat([torch.cat([short, torch.randn(1, 15, TOKEN)], dim=1), long])
    together = encoder.encode_embeddings(padded, torch.tensor([5, 20]))
    torch.testing.assert_close(together[:1], encoder.encode_embeddings(short, torch.tensor([5])))
    torch.testing.assert_close(together[1:], encoder.encode_embeddings(long, torch.tensor([20])))


def test_frozen_but_open_to_gradients(encoder: ClipEncoder) -> None:
    assert not any(parameter.requires_grad for parameter in encoder.model.parameters())
    embeddings = torch.randn(1, 5, TOKEN, requires_grad=True)
    encoder.encode_embeddings(embeddings, torch.tensor([5])).sum().backward()
    assert embeddings.grad is not None


def test_training_after_a_search(clip_folder: Path) -> None:
    """What the text tower keeps of its weights when first used in inference mode serves gradients as well."""
    encoder = load(clip_folder, device="cpu").encoder
    embeddings, lengths = torch.randn(1, 5, TOKEN, requires_grad=True), torch.tensor([5])
    with torch.inference_mode():
        encoder.encode_embeddings(embeddings, lengths)
    encoder.encode_embeddings(embeddings, lengths).sum().backward()
    assert embeddings.grad is not None


def test_autocast(encoder: ClipEncoder) -> None:
    embeddings, lengths = torch.randn(4, 5, TOKEN), torch.tensor([5, 3, 4, 5])
    precise = encoder.encode_embeddings(embeddings, lengths)
    with torch.autocast("cpu", torch.bfloat16):
        rough = encoder.encode_embeddings(embeddings, lengths)
    assert rough.dtype == torch.float32
    assert not torch.equal(precise, rough)
    assert torch.cosine_similarity(precise, rough).min() > 0.99


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_activations(encoder: ClipEncoder, activation: str) -> None:
    """OpenAI's CLIP has the quick GELU, others of its shape the plain one."""
    from transformers import CLIPModel

    config = deepcopy(encoder.model.config)
    config.text_config.hidden_act = activation
    model = CLIPModel(config)
    other = ClipEncoder(model, encoder.tokenizer, {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}, "other")
    ids = torch.tensor([[encoder.start_token, *encoder.tokenize("a photo of a red dog"), encoder.end_token]])
    expected = model.text_projection(model.text_model(input_ids=ids).last_hidden_state[:, -1])
    found = other.encode_embeddings(other.embed_tokens(ids), torch.tensor([ids.shape[1]]))
    torch.testing.assert_close(found, expected)


def test_tokenize_takes_any_length_silently(encoder: ClipEncoder) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(encoder.tokenize("red dog " * 200)) == 400


# Texts as people type and paste them, and the ids that OpenAI's own tokeniser gives them.
OPENAI_IDS = [
    ("it\u2019s red", [585, 568, 736]),
    ("IT\u2019S  RED ", [585, 568, 736]),
    ("red &amp; blue", [736, 261, 1746]),
    ("red &amp;amp; blue", [736, 261, 1746]),
    ("&lt;b&gt;red&lt;/b&gt;", [283, 321, 285, 736, 34308, 321, 285]),
    ("\uff32\uff25\uff24\u3000\uff24\uff4f\uff47", [736, 1929]),  # full width
    ("\ufb02ower o\ufb03ce", [4055, 2171]),  # ligatures
    ("\u201cred\u201d \u2018dog\u2019\u2026", [257, 736, 257, 1896, 8555, 42120]),
    ("caf\u00e9", [15304]),
    ("cafe\u0301", [15304]),
    ("sch\u00c3\u00b6n", [844, 7255, 333]),  # UTF-8 that was read as Latin-1
    ("\U0001f415 dog", [41069, 1929]),
    ("a\x00 red\x07 dog", [320, 736, 1929]),
    ("\x1b[31mred\x1b[0m dog", [736, 1929]),
    ("red\n\tdog", [736, 1929]),
    ("\u03a3\u0391\u03a3", [139, 225, 138, 109, 139, 480]),  # another sigma at the end
    ("\u7d05\u3044\u72ac", [163, 112, 227, 33523, 163, 232, 361]),
    ("\u0939\u093f\u0928\u094d\u0926\u0940", [29446, 26721, 26090, 19389, 29552, 25751]),
    ("don't 've 12\u00bd!'s", [847, 713, 1200, 272, 273, 33613, 13222, 338]),
    ("\ud800 red", [39802, 736]),  # half a character
]


@pytest.fixture(scope="module")
def real_vocabulary(clip_tiny: Path) -> ClipEncoder:
    loaded = load(clip_tiny, device="cpu").encoder
    assert isinstance(loaded, ClipEncoder)
    return loaded


@pytest.mark.parametrize(("text", "ids"), OPENAI_IDS, ids=[ascii(text) for text, _ in OPENAI_IDS])
def test_tokens_are_those_of_openais_clip(real_vocabulary: ClipEncoder, text: str, ids: list[int]) -> None:
    assert real_vocabulary.tokenize(text) == ids


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("it\u2019s red", "it's red"),
        ("red &amp; black", "red & black"),
        ("red &amp;amp; black", "red & black"),
        ("\uff32\uff25\uff24\u3000dog", "red dog"),
        ("o\ufb03ce", "office"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u00c3\u00a9", "\u00e9"),
        (" Red\n\tdog\x00 ", "red dog"),
        ("\u03a3\u0391\u03a3", "\u03c3\u03b1\u03c2"),
    ],
)
def test_texts_are_cleaned(encoder: ClipEncoder, typed: str, plain: str) -> None:
    assert encoder.tokenize(typed) == encoder.tokenize(plain)


def test_words(encoder: ClipEncoder) -> None:
    (dog,) = encoder.tokenize("dog")
    assert encoder.word_of(dog) == "dog"
    assert encoder.word_of(encoder.tokenize("!")[0]) is None
    assert encoder.word_of(encoder.tokenize("dogx")[0]) is None  # "d", a piece
    assert encoder.word_of(encoder.end_token) is None
    assert encoder.token_table().shape == (encoder.model.config.text_config.vocab_size, TOKEN)


def test_fingerprint(encoder: ClipEncoder, clip_folder: Path, tmp_path: Path) -> None:
    again = load(clip_folder, device="cpu")
    assert again.encoder.fingerprint == encoder.fingerprint
    assert load(build(tmp_path, seed=1), device="cpu").encoder.fingerprint != encoder.fingerprint


def test_bfloat16(encoder: ClipEncoder, clip_folder: Path) -> None:
    small = load(clip_folder, device="cpu", dtype="bfloat16").encoder
    pixels = encoder.preprocess(picture())[None]
    precise, rough = encoder.encode_pixels(pixels), small.encode_pixels(pixels)
    assert rough.image.dtype == rough.local.dtype == torch.float32
    assert torch.cosine_similarity(precise.image, rough.image).item() > 0.99
    # The same weights, but other features.
    assert small.fingerprint == f"{encoder.fingerprint}-bfloat16"
