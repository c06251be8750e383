"""What `explain` tells, and where the heat lies on the image."""

import html.parser
import json
import re
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import platformdirs
import pytest
import torch
from PIL import Image

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import InputError, ModelError
from fti4cir.images.preprocess import square
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.prompts import Sentence, Slot
from fti4cir.models.explain import heat_overlay, seen_box, write_html
from fti4cir.models.model import Model
from tinyclip import WORDS, clip_folder, encoder, picture, random_inversion

__all__ = ["clip_folder", "encoder"]


TELLING = [word for word in WORDS if word not in {"with", "but"}]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and nothing in the process that was there before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget(monkeypatch)
    return tmp_path / "cache" / "fti4cir" / "words"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process were a new one."""
    monkeypatch.setattr("fti4cir.models.explain._WORDS", weakref.WeakKeyDictionary())


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Sentence]:
    """Collects the sentences without pseudo-words that are encoded."""
    collected: list[Sentence] = []

    def encode(encoder: ClipEncoder, sentences: Sequence[Sentence], *others: object) -> torch.Tensor:
        collected.extend(sentence for sentence in sentences if len(sentence) == 1)
        return encode_sentences(encoder, sentences, *others)

    monkeypatch.setattr("fti4cir.models.explain.encode_sentences", encode)
    return collected


@pytest.fixture(scope="module")
def model(encoder: ClipEncoder) -> Model:
    return Model(encoder, random_inversion(threshold=0.1), "tiny")


def test_explanation(model: Model) -> None:
    explanation = model.explain(picture())
    words = model.require_inversion()(*model.features([picture()]))
    count = int(words.counts[0])
    assert [attribute.latent for attribute in explanation.attributes] == words.indices[0, :count].tolist()
    assert sum(explanation.relevance) == pytest.approx(1)
    for attribute in explanation.attributes:
        assert attribute.relevance == explanation.relevance[attribute.latent]
        assert attribute.heat.shape == (4, 4)
        assert attribute.heat.sum() == pytest.approx(1)


@torch.no_grad()
def test_nearest_words(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those whose sentences have the highest cosine with the pseudo-word's, less the mean of the real ones."""
    monkeypatch.setattr("torch.ops.mkldnn._is_mkldnn_bf16_supported", lambda: False)
    explanation = model.explain(picture())
    words = model.require_inversion()(*model.features([picture()]))
    alone = [
        replace(words, attributes=words.attributes[:, place, None], counts=torch.tensor([1]))
        for place in range(int(words.counts[0]))
    ]
    told = [explanation.subject, *(attribute.nearest for attribute in explanation.attributes)]
    asked = [(words, "a photo of", Slot.SUBJECT), *((one, "a photo with", Slot.ATTRIBUTES) for one in alone)]
    assert len(asked) > 1
    for nearest, (pseudo, text, slot) in zip(told, asked, strict=True):
        real = encode_sentences(model.encoder, [(f"{text} {word}",) for word in TELLING])
        query = encode_sentences(model.encoder, [(text, slot)], pseudo)[0]
        cosines = torch.cosine_similarity(real - real.mean(dim=0), query - real.mean(dim=0))
        best = cosines.argsort(descending=True)[:5].tolist()
        assert [near.word for near in nearest] == [TELLING[place] for place in best]
        assert [near.similarity for near in nearest] == pytest.approx(cosines[best].tolist(), abs=0.005)


def test_words_are_encoded_once(
    model: Model, cache: Path, encoded: list[Sentence], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = model.explain(picture())
    assert encoded == [(f"a photo {word} {one}",) for word in ("of", "with") for one in TELLING]
    assert [file.name for file in cache.iterdir()] == [f"{model.encoder.fingerprint}.safetensors"]
    encoded.clear()
    model.explain(picture())
    forget(monkeypatch)
    assert model.explain(picture()).to_json() == first.to_json()
    assert encoded == []


def test_a_bad_cache_is_made_again(
    model: Model, cache: Path, encoded: list[Sentence], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is cut, one that is no such file at all, and one of other words."""
    first = model.explain(picture())
    file = cache / f"{model.encoder.fingerprint}.safetensors"
    good = file.read_bytes()
    for bad in (good[:-5], b"", b"words", good.replace(b"photo red", b"photo rod")):
        assert bad != good
        file.write_bytes(bad)
        forget(monkeypatch)
        encoded.clear()
        assert model.explain(picture()).to_json() == first.to_json()
        assert len(encoded) == 2 * len(TELLING)
        forget(monkeypatch)
        encoded.clear()
        model.explain(picture())
        assert encoded == []


def test_without_a_cache(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    first = model.explain(picture())
    assert len(first.subject) == 5

    def no_home(*_: object, **__: object) -> Path:
        raise RuntimeError("could not determine the home directory")

    monkeypatch.setattr(platformdirs, "user_cache_path", no_home)
    forget(monkeypatch)
    assert model.explain(picture()).to_json() == first.to_json()


def test_a_cache_that_cannot_be_put_in_place(model: Model, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / f"{model.encoder.fingerprint}.safetensors").mkdir(parents=True)
    assert len(model.explain(picture()).subject) == 5
    assert not list(cache.glob("*.tmp"))


def test_vocabulary_without_words(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model.encoder, "word_of", lambda token: "ðŁĺĤ" if token == 300 else None)
    explanation = model.explain(picture())
    assert explanation.subject == ()
    assert "no real word" in str(explanation)


def test_json(model: Model, tmp_path: Path) -> None:
    picture().save(tmp_path / "a.png")
    told = json.loads(json.dumps(model.explain(tmp_path / "a.png").to_json()))
    assert told["model"] == "tiny"
    assert told["source"] == "a.png"
    assert len(told["subject"]["nearest"]) == 5
    assert len(told["relevance"]) == 6
    assert len(told["attributes"][0]["heat"]) == 4


@pytest.mark.parametrize("size", [(100, 100), (120, 100), (100, 160), (300, 100), (90, 400)], ids=str)
def test_seen_box_is_what_the_model_sees(size: tuple[int, int]) -> None:
    """An image whose colours tell the place, through the real preprocessing and back."""
    width, height = size
    x, y = np.meshgrid(np.linspace(50, 250, width), np.linspace(50, 250, height))
    image = Image.fromarray(np.stack([x, y, np.full_like(x, 255)], axis=-1).round().astype(np.uint8))
    seen = np.asarray(square(image, 64), dtype=float)
    left, top, right, bottom = seen_box(image)
    inside = 0
    for row in range(4, 64, 8):
        for column in range(4, 64, 8):
            red, green, blue = seen[row, column]
            place_x = left + (column + 0.5) / 64 * (right - left)
            place_y = top + (row + 0.5) / 64 * (bottom - top)
            if blue < 128:  # padding
                assert not (2 < place_x < width - 2 and 2 < place_y < height - 2)
                continue
            if seen[row - 3 : row + 4, column - 3 : column + 4, 2].min() == 255:  # away from the padding's blurred edge
                inside += 1
                assert (red - 50) / 200 * (width - 1) == pytest.approx(place_x - 0.5, abs=1 + width / 64)
                assert (green - 50) / 200 * (height - 1) == pytest.approx(place_y - 0.5, abs=1 + height / 64)
    assert inside > 10


@pytest.mark.parametrize("size", [(40, 40), (80, 40), (30, 90)], ids=str)
def test_overlay_is_hot_where_the_heat_is(size: tuple[int, int]) -> None:
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[1, 2] = 1
    image = picture(size=size)
    overlay = heat_overlay(heat, image)
    assert overlay.mode == "RGBA"
    assert overlay.width / overlay.height == pytest.approx(size[0] / size[1], rel=0.02)
    left, top, right, bottom = seen_box(image)
    brightness = np.asarray(overlay)[:, :, :3].sum(axis=-1, dtype=int)
    row, column = np.unravel_index(brightness.argmax(), brightness.shape)
    scale = overlay.width / size[0]
    assert column / scale == pytest.approx(left + 2.5 / 4 * (right - left), abs=(right - left) / 8)
    assert row / scale == pytest.approx(top + 1.5 / 4 * (bottom - top), abs=(bottom - top) / 8)


def test_even_heat() -> None:
    overlay = np.asarray(heat_overlay(np.full((4, 4), 1 / 16, dtype=np.float32), picture(size=(40, 40))))
    assert (overlay == overlay[0, 0]).all()


class Page(html.parser.HTMLParser):
    """Collects tags, and fails on ones that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in {"meta", "img", "input", "hr"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_page(model: Model, tmp_path: Path) -> None:
    picture(size=(90, 40)).save(tmp_path / "a <b> & c.png")
    explanation = model.explain(tmp_path / "a <b> & c.png")
    write_html(explanation, tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    page = Page()
    page.feed(text)
    assert page.open == []
    assert page.tags.count("img") == len(explanation.attributes)
    assert "a &lt;b&gt; &amp; c.png" in text
    # Self-contained: every address is an image inside the file, and nothing runs.
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=\"(?!data:image/)|url\((?!data:image/)|@import", text)


def test_page_without_attributes(encoder: ClipEncoder, tmp_path: Path) -> None:
    explanation = Model(encoder, random_inversion(max_attributes=0), "subject only").explain(picture())
    assert explanation.attributes == ()
    write_html(explanation, tmp_path / "page.html")
    assert "<figure>" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "one pseudo-word" in str(explanation)


def test_failures(model: Model, encoder: ClipEncoder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_html(model.explain(picture()), tmp_path / "no" / "page.html")
    with pytest.raises(ModelError, match="no inversion weights"):
        Model(encoder, None, "bare").explain(picture())
