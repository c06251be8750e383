"""What `explain` computes, and the cache of real words."""

import json
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import platformdirs
import pytest
import torch

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ModelError
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.prompts import Sentence, Slot
from fti4cir.models.model import Model
from tinyclip import WORDS, picture, random_inversion

DESCRIPTIVE = [word for word in WORDS if word not in {"with", "but"}]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own, and nothing in the process that was there before."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    forget(monkeypatch)
    return tmp_path / "cache" / "fti4cir" / "words"


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the process were a new one."""
    monkeypatch.setattr("fti4cir.models.real_words._WORDS", weakref.WeakKeyDictionary())


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[Sentence]:
    """Collects the sentences without pseudo-words that are encoded."""
    collected: list[Sentence] = []

    def encode(encoder: ClipEncoder, sentences: Sequence[Sentence], *others: object) -> torch.Tensor:
        collected.extend(sentence for sentence in sentences if len(sentence) == 1)
        return encode_sentences(encoder, sentences, *others)

    monkeypatch.setattr("fti4cir.models.real_words.encode_sentences", encode)
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
    shown = [explanation.subject, *(attribute.nearest for attribute in explanation.attributes)]
    asked = [(words, "a photo of", Slot.SUBJECT), *((one, "a photo with", Slot.ATTRIBUTES) for one in alone)]
    assert len(asked) > 1
    for nearest, (pseudo, text, slot) in zip(shown, asked, strict=True):
        real = encode_sentences(model.encoder, [(f"{text} {word}",) for word in DESCRIPTIVE])
        query = encode_sentences(model.encoder, [(text, slot)], pseudo)[0]
        cosines = torch.cosine_similarity(real - real.mean(dim=0), query - real.mean(dim=0))
        best = cosines.argsort(descending=True)[:5].tolist()
        assert [near.word for near in nearest] == [DESCRIPTIVE[place] for place in best]
        assert [near.similarity for near in nearest] == pytest.approx(cosines[best].tolist(), abs=0.005)


def test_words_are_encoded_once(
    model: Model, cache: Path, encoded: list[Sentence], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = model.explain(picture())
    assert encoded == [(f"a photo {word} {one}",) for word in ("of", "with") for one in DESCRIPTIVE]
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
        assert len(encoded) == 2 * len(DESCRIPTIVE)
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
    summary = json.loads(json.dumps(model.explain(tmp_path / "a.png").to_json()))
    assert summary["model"] == "tiny"
    assert summary["source"] == "a.png"
    assert len(summary["subject"]["nearest"]) == 5
    assert len(summary["relevance"]) == 6
    assert len(summary["attributes"][0]["heat"]) == 4


def test_a_model_without_inversion(encoder: ClipEncoder) -> None:
    with pytest.raises(ModelError, match="no inversion weights"):
        Model(encoder, None, "bare").explain(picture())


def test_subject_alone(encoder: ClipEncoder) -> None:
    explanation = Model(encoder, random_inversion(max_attributes=0), "subject only").explain(picture())
    assert explanation.attributes == ()
    assert "one pseudo-word" in str(explanation)
