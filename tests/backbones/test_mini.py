"""The bundled model: its files, its towers, and that it knows what it was trained for."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

import fti4cir
from fti4cir.backbones.mini import FOLDER, MiniEncoder, load_mini
from fti4cir.errors import ModelError
from fti4cir.inversion.compose import encode_sentences

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def model() -> fti4cir.Model:
    return fti4cir.load("mini")


@pytest.fixture(scope="module")
def mini(model: fti4cir.Model) -> MiniEncoder:
    assert isinstance(model.encoder, MiniEncoder)
    return model.encoder


def shirt(colour: str) -> Image.Image:
    """A T-shirt as a catalogue shows it, if roughly drawn."""
    image = Image.new("RGB", (224, 224), "white")
    outline = [
        (70, 40),
        (95, 50),
        (129, 50),
        (154, 40),
        (200, 80),
        (178, 104),
        (158, 90),
        (158, 190),
        (66, 190),
        (66, 90),
    ]
    ImageDraw.Draw(image).polygon([*outline, (46, 104), (24, 80)], fill=colour)
    return image


def test_all_weights_stay_under_60_mib() -> None:
    assert sum(file.stat().st_size for file in FOLDER.parent.rglob("*")) < 60 * 2**20


def test_shapes(mini: MiniEncoder) -> None:
    features = mini.encode_pixels(torch.stack([mini.preprocess(shirt("red")), mini.preprocess(shirt("blue"))]))
    assert features.image.shape == (2, mini.joint_width)
    assert features.local.shape == (2, 50, mini.vision_width)
    assert features.image.dtype == features.local.dtype == torch.float32
    assert mini.token_table().shape == (30522, mini.token_width)


def test_pixels_lie_between_minus_one_and_one(mini: MiniEncoder) -> None:
    white, black = (mini.preprocess(Image.new("RGB", (300, 300), colour)) for colour in ("white", "black"))
    assert white.shape == (3, 224, 224)
    assert torch.all(white == 1)
    assert torch.all(black == -1)


def test_a_sentence_has_the_same_feature_alone_and_among_longer_ones(mini: MiniEncoder) -> None:
    sentences = [("a dog",), ("a very long sentence about a dog that runs over a wide green field",), ("shirt",)]
    together = encode_sentences(mini, sentences)
    alone = torch.cat([encode_sentences(mini, [sentence]) for sentence in sentences])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_what_follows_the_end_of_a_sentence_has_no_effect(mini: MiniEncoder) -> None:
    embeddings = torch.randn(1, 9, mini.token_width)
    other = embeddings.clone()
    other[:, 6:] = 100.0
    lengths = torch.tensor([6])
    torch.testing.assert_close(mini.encode_embeddings(embeddings, lengths), mini.encode_embeddings(other, lengths))


def test_special_tokens_that_a_user_types_are_text(mini: MiniEncoder) -> None:
    assert not {101, 102, 0} & set(mini.tokenize("[CLS] a [SEP] b [PAD]"))


@pytest.mark.parametrize(
    ("typed", "plain"),
    [
        ("it\u2019s red", "it's red"),
        ("red &amp; blue", "red & blue"),
        ("\uff32\uff25\uff24", "red"),
        ("\ufb01ne o\ufb03ce", "fine office"),
        ("half \ud800", "half \ufffd"),
    ],
)
def test_texts_are_cleaned(mini: MiniEncoder, typed: str, plain: str) -> None:
    assert mini.tokenize(typed) == mini.tokenize(plain)


def test_plain_captions_keep_the_tokens_of_its_training(mini: MiniEncoder) -> None:
    """The weights were trained on texts that were not cleaned."""
    for text in (
        "A black dog's bowl , on the grass .",
        'a "do not enter" sign & two t-shirts (red/blue)',
        "Un café noir; don't walk!",
    ):
        assert mini.tokenize(text) == mini.tokenizer.encode(text, add_special_tokens=False).ids


def test_words_are_whole_words(mini: MiniEncoder) -> None:
    [dog] = mini.tokenize("dog")
    assert mini.word_of(dog) == "dog"
    assert mini.word_of(mini.start_token) is None
    pieces = mini.tokenize("unbelievablest")
    assert mini.word_of(pieces[-1]) is None


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json"])
def test_damaged_files_are_one_clear_error(tmp_path: Path, file: str) -> None:
    for name in ("model.safetensors", "tokenizer.json"):
        shutil.copy(FOLDER / name, tmp_path / name)
    (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:1000])
    with pytest.raises(ModelError, match="missing or damaged"):
        load_mini(folder=tmp_path)


def test_it_tells_colours_apart(model: fti4cir.Model) -> None:
    colours = ["red", "blue", "green", "black", "yellow"]
    gallery = model.encode_images([shirt(colour) for colour in colours])
    scores = model.encode_texts([f"a {colour} t-shirt" for colour in colours]) @ gallery.T
    assert scores.argmax(dim=1).tolist() == list(range(5))


def test_composition_changes_the_colour(model: fti4cir.Model) -> None:
    colours = ["red", "blue", "green", "black", "yellow"]
    gallery = model.encode_images([shirt(colour) for colour in colours])
    others = [(own, wanted) for own in colours for wanted in colours if own != wanted]
    queries = model.compose([shirt(own) for own, _ in others], [f"in {wanted}" for _, wanted in others])
    found = np.array(colours)[(queries @ gallery.T).argmax(dim=1).numpy()]
    hits = sum(colour == wanted for colour, (_, wanted) in zip(found, others, strict=True))
    assert hits >= 16, f"{hits} of {len(others)}"


def test_a_long_modification_is_cut_with_a_warning(model: fti4cir.Model) -> None:
    with pytest.warns(UserWarning, match="the first"):
        features = model.compose([shirt("red")], ["in blue and " * 170])
    torch.testing.assert_close(features.norm(dim=-1), torch.ones(1))
