"""SEARLE: words by optimisation, and a network that learns them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional as F

import fti4cir
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.baselines import create, searle
from fti4cir.baselines.base import Batch, Corpus
from fti4cir.baselines.searle import Concepts, OptimizedInversion, SearleObjective, collect, invert
from fti4cir.captions.split import SplitCaption
from fti4cir.errors import ModelError
from fti4cir.features import compute
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion, PseudoWords
from fti4cir.inversion.prompts import Slot
from fti4cir.training import captioned, preset, train
from tinyclip import clip_folder, encoder
from tinydata import SMALL, data, log_of, one_thread, quiet

__all__ = ["clip_folder", "data", "encoder", "one_thread"]

pytestmark = pytest.mark.numeric

CONCEPTS = {f"a {colour} {kind}": ["on grass", "in the snow"] for colour in ("red", "black") for kind in ("dog", "cat")}


# -- concepts -------------------------------------------------------------------------------------------------
def test_collect() -> None:
    dog, cat = ("a dog", "a cat")
    captions = [
        [SplitCaption(cat, "asleep")],
        [SplitCaption(dog, "on grass"), SplitCaption(dog, "in snow")],
        [SplitCaption(dog, "on grass")],
        [SplitCaption("a bird", "in a tree")],
    ]
    assert list(collect(captions).items()) == [  # by frequency, then by name
        (dog, ["on grass", "in snow"]),
        ("a bird", ["in a tree"]),
        (cat, ["asleep"]),
    ]


def test_collect_stops_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    captions = [[SplitCaption(f"a dog {number % 5}", f"in place {number}") for number in range(500)]]
    monkeypatch.setattr(searle, "_MOST_CONCEPTS", 3)
    found = collect(captions)
    assert list(found) == ["a dog 0", "a dog 1", "a dog 2"]
    assert found["a dog 1"] == [f"in place {number}" for number in range(1, 100, 5)]  # the first twenty


def test_concepts_are_drawn_among_the_nearest(encoder: ClipEncoder) -> None:
    concepts = Concepts.of(encoder, {f"a dog {number}": [f"in place {number}"] for number in range(30)})
    image = 7 * concepts.features[[4, 20]]
    similar = (F.normalize(image, dim=-1) @ concepts.features.T).topk(5).indices.tolist()
    drawn = [concepts.draw(image, [seed, seed]) for seed in range(40)]
    for row, near in enumerate(similar):
        expected = {SplitCaption(f"a dog {number}", f"in place {number}") for number in near}
        assert {captions[row] for captions in drawn} == expected
    assert concepts.draw(image, [3, 3]) == drawn[3]
    assert concepts.draw(image[[1]], [3]) == [drawn[3][1]]


def test_fewer_concepts_than_are_asked_for(encoder: ClipEncoder) -> None:
    concepts = Concepts.of(encoder, {"a dog": ["on grass"]})
    assert concepts.draw(torch.randn(2, encoder.joint_width), [0, 1]) == [SplitCaption("a dog", "on grass")] * 2


# -- words by optimisation ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def image(encoder: ClipEncoder) -> torch.Tensor:
    torch.manual_seed(0)
    return encoder.encode_pixels(torch.randn(5, 3, 32, 32)).image


def likeness(encoder: ClipEncoder, tokens: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The cosine between `a photo of [word]` and the picture."""
    sentences = [("a photo of", Slot.SUBJECT)] * len(tokens)
    with torch.no_grad():
        return F.cosine_similarity(encode_sentences(encoder, sentences, PseudoWords.of_subjects(tokens)), image)


def test_optimised_words_are_seen_as_their_pictures(encoder: ClipEncoder, image: torch.Tensor) -> None:
    concepts = Concepts.of(encoder, CONCEPTS)
    start, few, many = (likeness(encoder, invert(encoder, image, concepts, steps), image) for steps in (0, 5, 40))
    assert (few > start).all()
    assert (many > few + 0.05).all()
    assert not invert(encoder, image, concepts, 1).requires_grad


def test_a_pictures_word_does_not_depend_on_the_others(encoder: ClipEncoder, image: torch.Tensor) -> None:
    concepts = Concepts.of(encoder, CONCEPTS)
    together = invert(encoder, image, concepts, 10)
    alone = torch.cat([invert(encoder, image[[row]], concepts, 10) for row in range(5)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-3)


def test_words_are_optimised_in_inference_mode_too(encoder: ClipEncoder, image: torch.Tensor) -> None:
    concepts = Concepts.of(encoder, CONCEPTS)
    with torch.inference_mode():  # as evaluation does
        words = invert(encoder, image.clone(), concepts, 3)
    torch.testing.assert_close(words, invert(encoder, image, concepts, 3))


# -- training -------------------------------------------------------------------------------------------------
CONFIG = preset("searle", **{**SMALL, "epochs": 6, "inversion_steps": 3})


@pytest.fixture(scope="module")
def trained(data: SimpleNamespace, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("searle") / "m"
    return train(CONFIG, data.pictures, data.captions, clip_folder, output, say=quiet)


def test_it_learns_and_composes_in_its_own_words(trained: Path, data: SimpleNamespace) -> None:
    rows = log_of(trained)
    assert float(rows[-1]["total"]) < 0.9 * float(rows[0]["total"])
    assert float(rows[-1]["distillation"]) < float(rows[0]["distillation"])
    model = fti4cir.load(trained)
    assert model.method == "searle"
    assert model.require_inversion().config.sentence("is red") == ("a photo of", Slot.SUBJECT, "that is red")
    assert len(model.extra["concepts"]) == 8
    assert set(model.extra["concepts"]["a red dog"]) <= {"on the grass", "in the snow"}
    composed = create("searle", model).compose(model.features([data.pictures / "00.png"]), ["is red"])
    assert composed.isfinite().all()


def test_the_optimised_words_are_kept_and_go_on(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = captioned.load(data.pictures, data.captions)
    features = compute(tmp_path / "features", encoder, source, quiet)
    captions = [[SplitCaption(*caption.parts)] for [caption] in source.captions if caption.parts]
    monkeypatch.setattr(searle, "_BLOCK", 16)
    inverted: list[int] = []
    real = searle.invert

    def counting(encoder: ClipEncoder, image: torch.Tensor, *arguments: object) -> torch.Tensor:
        inverted.append(len(image))
        return real(encoder, image, *arguments)

    monkeypatch.setattr(searle, "invert", counting)

    def made(folder: Path) -> bytes:
        rows = range(40)
        SearleObjective(CONFIG, Corpus(encoder, features.image, captions, rows, folder, quiet))
        [file] = folder.glob("inverted-*.f32")
        return file.read_bytes()

    whole = made(tmp_path / "whole")
    assert inverted == [16, 16, 8]
    assert made(tmp_path / "whole") == whole
    assert len(inverted) == 3
    [file] = (tmp_path / "whole").iterdir()
    (tmp_path / "cut").mkdir()
    (tmp_path / "cut" / file.with_suffix(".part").name).write_bytes(whole[: len(whole) // 2])
    assert made(tmp_path / "cut") == whole
    assert inverted[3:] == [16, 8]


def test_each_word_is_told_from_those_of_the_others(encoder: ClipEncoder, tmp_path: Path, image: torch.Tensor) -> None:
    captions = [[SplitCaption("a dog", "on grass")]] * 5
    losses = SearleObjective(CONFIG, Corpus(encoder, image.numpy(), captions, range(5), tmp_path, quiet))
    network = FineGrainedInversion(CONFIG.network(encoder))
    batch = Batch([4, 0, 2], [caption for [caption] in captions[:3]], image[[4, 0, 2]], None, image[:3], [], [])
    outputs = losses.outputs(network, batch)
    assert outputs["token"].shape == (3, encoder.token_width)
    wanted = torch.from_numpy(losses._tokens[[4, 0, 2]])
    right = losses.terms({**outputs, "token": wanted}, batch)["distillation"]
    wrong = losses.terms({**outputs, "token": wanted.roll(1, dims=0)}, batch)["distillation"]
    assert right < wrong


# -- the optimisation as a method -----------------------------------------------------------------------------
def test_a_query_by_optimisation_depends_on_its_own_picture_and_text(trained: Path, data: SimpleNamespace) -> None:
    model = fti4cir.load(trained)
    method = OptimizedInversion(model, steps=5)
    assert create("searle-oti", model).name == method.name == "searle-oti"
    features = model.features([data.pictures / f"{number:02}.png" for number in range(3)])
    together = method.compose(features, ["is red", "is blue", "is red"], owner=[2, 0, 0])
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
    for row, (owner, text) in enumerate([(2, "is red"), (0, "is blue"), (0, "is red")]):
        alone = method.compose(type(features)(*(part[[owner]] for part in features)), [text])
        torch.testing.assert_close(together[[row]], alone, rtol=1e-3, atol=1e-3)


def test_without_concepts_there_is_no_optimisation(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"mini holds no concepts for searle-oti; .*--method searle"):
        create("searle-oti", fti4cir.load("mini"))
    config = json.loads((trained / "config.json").read_text())
    assert config["extra"]["concepts"]
