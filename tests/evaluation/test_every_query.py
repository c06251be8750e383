"""Every query of the benchmarks' annotation, blank ones included, through every method, on tiny generated images."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import tinybench
from fti4cir.backbones.base import VisionFeatures
from fti4cir.benchmarks import registry as published
from fti4cir.benchmarks.base import Benchmark
from fti4cir.benchmarks.submission import read, write
from fti4cir.benchmarks.verify import verify
from fti4cir.errors import InputError
from fti4cir.evaluation import gallery
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.evaluation.results import Evaluation
from fti4cir.inversion.prompts import Template
from fti4cir.methods.base import Method
from fti4cir.methods.caption import Captioned
from fti4cir.methods.registry import create, names
from fti4cir.methods.searle_oti import OptimizedInversion
from fti4cir.models.model import Model
from tinybench import REAL, write_json
from tinyclip import JOINT, TOKEN, VISION, picture, random_inversion

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the benchmarks' annotation files are not beside the project")


class WordEncoder:
    """A dual encoder fast enough for tens of thousands of sentences: a text is the mean of its words' embeddings."""

    name, fingerprint = "words", "1"
    joint_width, vision_width, token_width = JOINT, VISION, TOKEN
    context_length, input_size = 77, 8
    start_token, end_token = 0, 1
    device = torch.device("cpu")

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.words, self.text, self.image, self.local = (
            torch.randn(*shape, generator=generator)
            for shape in ((500, TOKEN), (TOKEN, JOINT), (3 * 64, JOINT), (3 * 16, VISION))
        )

    def preprocess(self, image: Image.Image) -> Tensor:
        return torch.from_numpy(np.array(image.resize((8, 8)), dtype=np.float32)).permute(2, 0, 1) / 255 - 0.5

    def encode_pixels(self, pixels: Tensor) -> VisionFeatures:
        quarters = pixels.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(len(pixels), 4, -1)
        return VisionFeatures(pixels.flatten(1) @ self.image, quarters @ self.local)

    def tokenize(self, text: str) -> list[int]:
        return [2 + zlib.crc32(word.encode()) % 498 for word in text.split()]

    def embed_tokens(self, ids: Tensor) -> Tensor:
        return self.words[ids]

    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        real = torch.arange(embeddings.shape[1]) < lengths[:, None]
        return ((embeddings * real[..., None]).sum(dim=1) / lengths[:, None]) @ self.text

    def token_table(self) -> Tensor:
        return self.words

    def to(self, device: object) -> WordEncoder:
        return self


@pytest.fixture(scope="module")
def encoder() -> WordEncoder:
    return WordEncoder()


DIFFERENT = 40  # images; benchmarks with more have copies of them
TEMPLATES = {"pic2word": ", {text}", "searle": "that {text}", "lincir": "that {text}"}


def every_method(encoder: WordEncoder, pictures: Iterable[Path]) -> list[Method]:
    """All methods there are, on random weights."""
    methods: list[Method] = []
    for name in names():
        if name in TEMPLATES:
            network = random_inversion(max_attributes=0, template=Template(modification=TEMPLATES[name]))
        else:
            network = random_inversion()
        model = Model(encoder, network, "tiny", method=name if name in TEMPLATES else "fti4cir")
        if name == "searle-oti":
            model = Model(
                encoder, network, "tiny", method="searle", extra={"concepts": {"a dog": ["on grass"], "a cat": ["red"]}}
            )
            methods.append(OptimizedInversion(model, steps=1))
        elif name == "caption":
            methods.append(Captioned(model, {path.absolute(): f"a red dog on {path.stem}" for path in pictures}))
        else:
            methods.append(create(name, model))
    return methods


def every_evaluation(benchmark: Benchmark, encoder: WordEncoder) -> list[Evaluation]:
    """Of every method; each query of them finds as many images as it should."""
    found = evaluate(benchmark, encoder, methods=every_method(encoder, benchmark.gallery.paths), model="tiny")
    assert [one.method for one in found] == list(names())
    for one in found:
        assert one.queries == len(benchmark.queries)
        assert (one.ranking >= 0).sum(axis=1).min() >= min(one.ranking.shape[1], len(benchmark.gallery) - 1)
    return found


def check_submissions(benchmark: Benchmark, evaluations: Sequence[Evaluation], folder: Path) -> None:
    """Each method's files pass the checks that a server would make: `write` makes them, and `read` of what it wrote."""
    for one in evaluations:
        files = write(benchmark, one.ranking, one.subset_ranking, folder / f"{one.method}.json")
    for file in files:
        assert len(read(benchmark, file).ranking) == len(benchmark.queries)


def save_images(places: Sequence[Path]) -> None:
    """A few different images, linked to by as many names as needed."""
    for number, place in enumerate(places):
        place.parent.mkdir(parents=True, exist_ok=True)
        if number < DIFFERENT:
            picture(number, (32, 32)).save(place)
        else:
            os.link(places[number % DIFFERENT], place)


# -- generated annotation ---------------------------------------------------------------------------------------


def test_blank_modifications_are_legal_queries(encoder: WordEncoder, tmp_path: Path) -> None:
    """A blank caption in each benchmark, and one of two in FashionIQ."""
    tinybench.cirr(tmp_path / "cirr")
    tinybench.circo(tmp_path / "circo")
    tinybench.fashioniq(tmp_path / "fashioniq")
    for name, file, field, blank in (
        ("cirr", "cirr/captions/cap.rc2.val.json", "caption", " "),
        ("circo", "annotations/val.json", "relative_caption", "\n"),
        ("fashioniq", "captions/cap.shirt.val.json", "captions", ["", "is grey"]),
        ("fashioniq", "captions/cap.toptee.val.json", "captions", [" ", "."]),
    ):
        path = tmp_path / name / file
        queries = json.loads(path.read_text())
        queries[0][field] = blank
        write_json(path, queries)
    for name in ("cirr", "circo", "fashioniq"):
        for benchmark in published.load(name, tmp_path / name):
            for one in every_evaluation(benchmark, encoder):
                assert all(np.isfinite(figures).all() for figures in one.per_query.values())
    (whole,) = verify("circo", published.load("circo", tmp_path / "circo")).parts
    assert whole.to_json()["blank"] == 1
    assert whole.meaning.endswith("1 query has a blank modification, which is legal: it is asked as it is.")


# -- the real annotation ----------------------------------------------------------------------------------------


@pytest.fixture
def large_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """For so small an encoder, most of the time goes by between batches."""
    monkeypatch.setattr(gallery, "_BATCH", 512)


def linked(name: str, root: Path) -> Path:
    """A folder with the real annotation in it, and room for images."""
    root.mkdir()
    for entry in (REAL / name).iterdir():
        (root / entry.name).symlink_to(entry)
    return root


@pytest.mark.slow
@needs_real
@pytest.mark.usefixtures("large_batches")
def test_fashioniq(encoder: WordEncoder, tmp_path: Path) -> None:
    root = linked("FashionIQ", tmp_path / "FashionIQ")
    names = {
        name
        for file in sorted((root / "image_splits").glob("split.*.val.json"))
        for name in json.loads(file.read_text())
    }
    save_images([root / "images" / f"{name}.png" for name in sorted(names)])
    # The smaller gallery of two categories only saves time: the queries are the same.
    parts = [
        *published.load("fashioniq", root, category="dress"),
        *published.load("fashioniq", root, category="shirt", gallery="union"),
        *published.load("fashioniq", root, category="toptee", gallery="union"),
    ]
    assert [len(part.queries) for part in parts] == [2017, 2038, 1961]
    half_blank = [text for part in parts for query in part.queries for text in query.texts if text.startswith(" and ")]
    assert len(half_blank) == 3
    for part in parts:
        assert not part.gallery.missing
        every_evaluation(part, encoder)
    with pytest.raises(InputError, match="were never published"):
        published.load("fashioniq", root, "test")


@pytest.mark.slow
@needs_real
@pytest.mark.usefixtures("large_batches")
@pytest.mark.parametrize(("split", "count", "blank"), [("val", 4181, 0), ("test1", 4148, 1)])
def test_cirr(encoder: WordEncoder, tmp_path: Path, split: str, count: int, blank: int) -> None:
    root = linked("CIRR", tmp_path / "CIRR")
    files = json.loads((root / "cirr" / "image_splits" / f"split.rc2.{split}.json").read_text())
    save_images([root / file for file in files.values()])
    (benchmark,) = parts = published.load("cirr", root, split)
    assert len(benchmark.queries) == count
    verification = verify("cirr", parts)
    assert verification.complete
    assert verification.parts[0].blank == blank
    found = every_evaluation(benchmark, encoder)
    if split == "test1":
        check_submissions(benchmark, found, tmp_path)


@needs_real
@pytest.mark.usefixtures("large_batches")
@pytest.mark.parametrize(("split", "count"), [("val", 220), ("test", 800)])
def test_circo(encoder: WordEncoder, tmp_path: Path, split: str, count: int) -> None:
    """Over the images that queries name, since COCO's others are not needed to ask."""
    root = linked("CIRCO", tmp_path / "CIRCO")
    queries = json.loads((root / "annotations" / f"{split}.json").read_text())
    ids = sorted({n for query in queries for n in (query["reference_img_id"], *query.get("gt_img_ids", ()))})
    listed = {"images": [{"id": number, "file_name": f"{number:012}.png"} for number in ids]}
    write_json(root / "COCO2017_unlabeled" / "annotations" / "image_info_unlabeled2017.json", listed)
    save_images([root / "unlabeled2017" / f"{number:012}.png" for number in ids])
    (benchmark,) = published.load("circo", root, split)
    assert len(benchmark.queries) == count
    found = every_evaluation(benchmark, encoder)
    if split == "test":
        check_submissions(benchmark, found, tmp_path)
