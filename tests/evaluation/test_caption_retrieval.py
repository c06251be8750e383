"""Finding an image's captions by its pseudo-words."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ImageError, InputError, ModelError
from fti4cir.evaluation import caption_retrieval as description
from fti4cir.evaluation.caption_retrieval import Descriptions, describe_retrieval, load
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.prompts import Template
from fti4cir.models.model import Model
from tinyclip import picture, random_inversion

pytestmark = pytest.mark.numeric

PICTURES = 7


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven images with two captions each, one of which the first two share."""
    root = tmp_path_factory.mktemp("described")
    lines = []
    for number in range(PICTURES):
        picture(number).save(root / f"{number}.png")
        for text in (f"dog number {number}", f"cat {max(1, number)}"):
            lines.append(json.dumps({"image": f"{number}.png", "caption": text}))
    (root / "captions.jsonl").write_text("\n".join(lines))
    return root


@pytest.fixture(scope="module")
def model(encoder: ClipEncoder) -> Model:
    return Model(encoder, random_inversion(threshold=0.15), "tiny")


def test_load(folder: Path) -> None:
    found = load(folder, folder / "captions.jsonl")
    assert found.names[1] == "1.png"
    assert found.paths[1] == folder / "1.png"
    assert len(found.captions) == 2 * PICTURES - 1
    shared = found.captions.index("cat 1")
    assert [number for number, targets in enumerate(found.targets) if shared in targets] == [0, 1]
    assert [found.captions[target] for target in found.targets[3]] == ["dog number 3", "cat 3"]


def test_a_limit_keeps_all_captions(folder: Path) -> None:
    every = load(folder, folder / "captions.jsonl")
    some = load(folder, folder / "captions.jsonl", limit=3, seed=1)
    assert some.captions == every.captions
    assert len(some.names) == 3
    assert all(some.targets[at] == every.targets[every.names.index(name)] for at, name in enumerate(some.names))
    assert some.protocol.endswith("at most 3 images drawn with seed 1")
    assert set(load(folder, folder / "captions.jsonl", limit=2, seed=1).names) < set(some.names)


def test_missing_images(folder: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    table.write_text("image,caption\n1.png,a dog\ngone.png,a cat\n")
    with pytest.raises(InputError, match=r"1 of the 2 images .* for example gone\.png.*--allow-missing"):
        load(folder, table)
    found = load(folder, table, allow_missing=True)
    assert (found.captions, found.missing) == (("a dog",), ("gone.png",))
    with pytest.raises(InputError, match="is not a folder"):
        load(tmp_path / "no", table)


def slow(model: Model, found: Descriptions, method: str) -> list[list[int]]:
    """For each image the captions by falling similarity, one image at a time."""
    captions = torch.cat([model.encode_texts([f"a photo of {text}"]) for text in found.captions])
    rankings = []
    for path in found.paths:
        features = model.features([path])
        query = features.image
        if method == "fti4cir":
            words = model.require_inversion()(features.image, features.local)
            query = encode_sentences(model.encoder, [Template().pseudo()], words)
        rankings.append((captions @ F.normalize(query, dim=-1)[0]).argsort(descending=True, stable=True).tolist())
    return rankings


def test_agrees_with_the_slow_version(folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(description, "_BATCH", 3)
    found = load(folder, folder / "captions.jsonl")
    seen: list[tuple[int, int]] = []
    methods = [("fti4cir", model), ("image", model)]
    evaluations = describe_retrieval(found, methods, progress=lambda *done: seen.append(done))
    assert seen == [(3, 7), (6, 7), (7, 7)]
    for evaluation in evaluations:
        expected = slow(model, found, evaluation.method)
        assert evaluation.ranking.tolist() == [ranking[:10] for ranking in expected]
        for cut in (1, 5, 10):
            hits = [bool(set(row[:cut]) & set(own)) for row, own in zip(expected, found.targets, strict=True)]
            assert evaluation.per_query[f"R@{cut}"].tolist() == hits
    told = json.loads(json.dumps(evaluations[0].to_json()))
    assert list(told["metrics"]) == ["R@1", "R@5", "R@10"]
    assert (told["benchmark"], told["queries"], told["gallery"], told["missing"]) == ("descriptions", 7, 13, 0)
    assert evaluations[0].ranking.tolist() != evaluations[1].ranking.tolist()


def test_captions_that_read_alike_tie(folder: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Capital letters make no difference to the encoder, and none to the ranking: the first comes first."""
    encode = Model.encode_texts

    def uneven(self: Model, texts: list[str]) -> torch.Tensor:
        """As a processor that gives each place of a batch another error."""
        return encode(self, texts) + 1e-3 * torch.linspace(-1, 1, len(texts))[:, None]

    monkeypatch.setattr(Model, "encode_texts", uneven)
    found = load(folder, folder / "captions.jsonl")
    shouted = tuple(text.upper() for text in found.captions)
    doubled = replace(found, captions=(*shouted, *found.captions))
    (evaluation,) = describe_retrieval(doubled, [("image", model)])
    pairs = evaluation.ranking.reshape(PICTURES, -1, 2)
    assert (pairs[..., 1] == pairs[..., 0] + len(shouted)).all()


def test_without_attributes_the_subject_describes(folder: Path, encoder: ClipEncoder) -> None:
    bare = Model(encoder, random_inversion(max_attributes=0), "bare")
    (found,) = describe_retrieval(load(folder, folder / "captions.jsonl"), [("fti4cir", bare)])
    assert found.queries == PICTURES


def test_several_models(folder: Path, model: Model, encoder: ClipEncoder) -> None:
    other = Model(encoder, random_inversion(1, max_attributes=0), "other", method="pic2word")
    found = load(folder, folder / "captions.jsonl")
    together = describe_retrieval(found, [("fti4cir", model), ("pic2word", other), ("image", model)])
    assert [(one.method, one.model) for one in together] == [
        ("fti4cir", "tiny"), ("pic2word", "other"), ("image", "tiny"),
    ]  # fmt: skip
    (alone,) = describe_retrieval(found, [("pic2word", other)])
    assert together[1].ranking.tolist() == alone.ranking.tolist() != together[0].ranking.tolist()


def test_mistakes(folder: Path, model: Model, encoder: ClipEncoder, tmp_path: Path) -> None:
    found = load(folder, folder / "captions.jsonl")
    with pytest.raises(InputError, match="'sum' describes no image; the methods for descriptions are: image, fti4cir"):
        describe_retrieval(found, [("sum", model)])
    with pytest.raises(ModelError, match="has no inversion weights"):
        describe_retrieval(found, [("fti4cir", Model(encoder, None, "bare"))])
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>")
    spoilt = Descriptions("", ("broken.png",), (broken,), ("a dog",), ((0,),), ())
    with pytest.raises(ImageError, match=r"broken\.png"):
        describe_retrieval(spoilt, [("image", model)])
