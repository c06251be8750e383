"""SEARLE: words by optimisation, and a network that learns them."""

import itertools
import json
from dataclasses import asdict, replace
from pathlib import Path
from random import Random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import fti4cir
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.captions.split import SplitCaption
from fti4cir.captions.table import load_captioned_images
from fti4cir.errors import ModelError
from fti4cir.features.cache import compute
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion, PseudoWords
from fti4cir.inversion.prompts import Slot
from fti4cir.methods import _concepts, _optimization, searle, searle_oti
from fti4cir.methods._concepts import (
    Concepts,
    Phrase,
    captions_of_classes,
    class_features,
    class_names,
    collect,
    templates,
)
from fti4cir.methods._optimization import Optimization, invert
from fti4cir.methods.registry import create, preset, train
from fti4cir.methods.searle import SearleObjective
from fti4cir.methods.searle_oti import OptimizedInversion
from fti4cir.models.queries import Queries
from fti4cir.training.objective import Batch, Corpus
from tinydata import SMALL, log_of

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("one_thread")]

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
    monkeypatch.setattr(_concepts, "_MOST_CONCEPTS", 3)
    found = collect(captions)
    assert list(found) == ["a dog 0", "a dog 1", "a dog 2"]
    assert found["a dog 1"] == [f"in place {number}" for number in range(1, 100, 5)]  # the first twenty


def test_concepts_are_drawn_among_the_nearest(encoder: ClipEncoder) -> None:
    concepts = Concepts.of_captions(encoder, {f"a dog {number}": [f"in place {number}"] for number in range(30)})
    image = 7 * concepts.features[[4, 20]]
    similar = (F.normalize(image, dim=-1) @ concepts.features.T).topk(5).indices.tolist()
    nearest = concepts.nearest(image, 5)
    assert nearest == similar
    drawn = [concepts.draw(nearest, [Random(seed), Random(seed)]) for seed in range(40)]
    for row, near in enumerate(similar):
        assert {phrases[row].real for phrases in drawn} == {
            (f"a photo of a dog {number} with in place {number}",) for number in near
        }
    assert drawn[0][0].pseudo[:2] == ("a photo of", Slot.SUBJECT)
    assert drawn[0][0].real[0].endswith(drawn[0][0].pseudo[2])
    assert concepts.draw(nearest, [Random(3), Random(3)]) == drawn[3]
    assert concepts.draw(nearest[1:], [Random(3)]) == [drawn[3][1]]


def test_fewer_concepts_than_are_asked_for(encoder: ClipEncoder) -> None:
    concepts = Concepts.of_captions(encoder, {"a dog": ["on grass"]})
    assert concepts.nearest(torch.randn(2, encoder.joint_width), 5) == [[0], [0]]


# -- concepts of Open Images ----------------------------------------------------------------------------------
@pytest.fixture
def few_classes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[str, ...]:
    """A short list in the place of the 20,931 names."""
    names = ("Cat", "Dog", "Grass", "Hot dog", "Snow", "T-shirt", "Zebra")
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n")
    monkeypatch.setattr(_concepts, "_VOCABULARY", tmp_path / "names.txt")
    _concepts.class_names.cache_clear()
    yield names
    _concepts.class_names.cache_clear()


def test_the_class_names() -> None:
    names = class_names()
    assert len(names) == len(set(names)) == 20_931
    assert all(name == name.strip() and name for name in names)
    assert {"Dog", "Hot dog", "Snow", "Water"} <= set(names)
    for name in names[::20]:  # what stands in for captions, also of names that hold marks
        phrase = _concepts._replaced(name, f"a photo of {name}")
        assert phrase == Phrase(("a photo of", Slot.SUBJECT), (f"a photo of {name}",))


def test_the_24_templates() -> None:
    texts = [" ".join("*" if piece is Slot.SUBJECT else piece for piece in template) for template in templates()]
    assert len(set(texts)) == 24
    assert all(template.count(Slot.SUBJECT) == 1 for template in templates())
    assert {"*", "A *", "We see a *", "This is a photo of a *", "This is an illustration of a *", "* image",
            "An illustrations of a *", "This sketch contains a *", "A diagram of a *",
            "We see a * in this illustration", "We see a * photo"} <= set(texts)  # fmt: skip


def test_captions_of_classes(few_classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    captions = ["A DOG on grass", "a hot dog", "dogs", "a dog-eared cat", "a t-shirt", "a t shirt", "a DOG on grass"]
    assert captions_of_classes(captions) == {
        "Cat": ["a dog-eared cat"],
        "Dog": ["A DOG on grass", "a hot dog", "a dog-eared cat", "a DOG on grass"],
        "Grass": ["A DOG on grass", "a DOG on grass"],
        "Hot dog": ["a hot dog"],
        "T-shirt": ["a t-shirt"],
    }
    monkeypatch.setattr(_concepts, "_MOST_CAPTIONS", 2)
    assert captions_of_classes(captions)["Dog"] == captions[:2]


def test_sentences_about_classes(few_classes: tuple[str, ...]) -> None:
    concepts = Concepts.of_open_images(torch.eye(7), {"Dog": ["a black dog, a dog", "DOG"]})
    drawn = {concepts.draw([[1]], [Random(seed)])[0] for seed in range(20)}
    assert drawn == {
        Phrase(("a black", Slot.SUBJECT, ", a dog"), ("a black dog, a dog",)),
        Phrase((Slot.SUBJECT,), ("DOG",)),
    }
    assert concepts.draw([[6]], [Random(0)]) == [Phrase(("a photo of", Slot.SUBJECT), ("a photo of Zebra",))]


@pytest.mark.slow
def test_features_of_classes_are_means_over_the_templates(encoder: ClipEncoder, few_classes: tuple[str, ...]) -> None:
    for place, name in enumerate(few_classes):
        total = torch.zeros(encoder.joint_width)
        for template in templates():
            text = " ".join(name if piece is Slot.SUBJECT else piece for piece in template)
            feature = encode_sentences(encoder, [(text,)])[0]
            total += feature / feature.norm()
        found = class_features(encoder, place, place + 1)[0]
        torch.testing.assert_close(found, total / total.norm(), rtol=1e-4, atol=1e-5)
    together = class_features(encoder, 2, 6)
    assert together.shape == (4, encoder.joint_width)
    torch.testing.assert_close(together[1], class_features(encoder, 3, 4)[0], rtol=1e-4, atol=1e-5)


# -- words by optimisation ------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def image(encoder: ClipEncoder) -> torch.Tensor:
    torch.manual_seed(0)
    return encoder.encode_pixels(torch.randn(5, 3, 32, 32)).image


def likeness(encoder: ClipEncoder, tokens: torch.Tensor, image: torch.Tensor) -> torch.Tensor:
    """The cosine between `a photo of [word]` and the image."""
    sentences = [("a photo of", Slot.SUBJECT)] * len(tokens)
    with torch.no_grad():
        return F.cosine_similarity(encode_sentences(encoder, sentences, PseudoWords.of_subjects(tokens)), image)


def test_optimised_words_are_seen_as_their_images(encoder: ClipEncoder, image: torch.Tensor) -> None:
    concepts = Concepts.of_captions(encoder, CONCEPTS)
    start, few, many = (
        likeness(encoder, invert(encoder, image, concepts, Optimization(steps)), image) for steps in (0, 5, 40)
    )
    assert (few > start).all()
    assert (many > few + 0.05).all()
    assert not invert(encoder, image, concepts, Optimization(1)).requires_grad


def test_an_images_word_does_not_depend_on_the_others(encoder: ClipEncoder, image: torch.Tensor) -> None:
    concepts = Concepts.of_captions(encoder, CONCEPTS)
    together = invert(encoder, image, concepts, Optimization(10))
    alone = torch.cat([invert(encoder, image[[row]], concepts, Optimization(10)) for row in range(5)])
    torch.testing.assert_close(alone, together, rtol=1e-3, atol=1e-3)


def test_words_are_optimised_in_inference_mode_too(encoder: ClipEncoder, image: torch.Tensor) -> None:
    concepts = Concepts.of_captions(encoder, CONCEPTS)
    with torch.inference_mode():  # as evaluation does
        words = invert(encoder, image.clone(), concepts, Optimization(3))
    torch.testing.assert_close(words, invert(encoder, image, concepts, Optimization(3)))


def slowly_inverted(encoder: ClipEncoder, image: torch.Tensor, steps: int, decay: float) -> torch.Tensor:
    """One image's word with AdamW by its formulas (rate 0.02, weight decay 0.01), and the words' moving average."""
    word = torch.tensor(np.random.default_rng([5, 3]).normal(size=encoder.token_width) * 0.02, dtype=torch.float32)
    average, first, second = word.clone(), torch.zeros_like(word), torch.zeros_like(word)
    for step in range(1, steps + 1):
        word.requires_grad_()
        words = PseudoWords.of_subjects(word[None])
        [seen] = encode_sentences(encoder, [("a photo of", Slot.SUBJECT)], words)
        [pseudo] = encode_sentences(encoder, [("a", Slot.SUBJECT, "in the snow")], words)
        [real] = encode_sentences(encoder, [("a dog in the snow",)])
        loss = (1 - F.cosine_similarity(seen, image, dim=0)) + 0.5 * (1 - F.cosine_similarity(pseudo, real, dim=0))
        [gradient] = torch.autograd.grad(loss, word)
        with torch.no_grad():
            first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
            change = first / (1 - 0.9**step) / ((second / (1 - 0.999**step)).sqrt() + 1e-8)
            word = word.detach() * (1 - 0.02 * 0.01) - 0.02 * change
            average = decay * average + (1 - decay) * word
    return average


def test_the_published_optimisation(
    encoder: ClipEncoder, image: torch.Tensor, few_classes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    concepts = replace(
        Concepts.of_open_images(torch.eye(encoder.joint_width)[:7], {}), said=(("a dog in the snow",),) * 7,
        names=("dog",) * 7,
    )  # fmt: skip
    optimization = Optimization(6, 15, 0.9, "random", 1)
    found = invert(encoder, image[:2], concepts, optimization, [(5, 3), (5, 4)])
    torch.testing.assert_close(found[0], slowly_inverted(encoder, image[0], 6, 0.9), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(found[0], found[1], atol=0.01)
    again = invert(encoder, image[[1, 0]], concepts, optimization, [(5, 4), (5, 3)])
    torch.testing.assert_close(again, found[[1, 0]], rtol=1e-3, atol=1e-4)


@pytest.mark.slow
def test_the_optimisation_draws_among_all_templates(
    encoder: ClipEncoder, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    concepts = Concepts.of_captions(encoder, CONCEPTS)
    seen: set[object] = set()
    real = _optimization.encode_sentences

    def noting(encoder: ClipEncoder, sentences: list[object], *more: object) -> torch.Tensor:
        seen.update(sentences)
        return real(encoder, sentences, *more)

    monkeypatch.setattr(_optimization, "encode_sentences", noting)
    seeds = [(0, row) for row in range(5)]
    invert(encoder, image, concepts, Optimization(40, templates=24), seeds)
    assert set(templates()) <= seen


# -- training -------------------------------------------------------------------------------------------------
# miccunifi/SEARLE: the README's options of `oti_inversion.py` and `train_phi.py` with their defaults; `phi.py`;
# `get_templates` and `contrastive_loss` in `utils.py`; `image_concepts_association.py` (Open Images' class names).
PUBLISHED = {
    "epochs": 100,
    "batch_size": 256,
    "learning_rate": 1e-4,
    "weight_decay": 0.01,
    "optimizer": "adamw",
    "schedule": "constant",
    "warmup_steps": 0,
    "clip_norm": None,
    "ema_decay": 0.0,
    "network.max_attributes": 0,
    "network.hidden_width": None,  # 4 D
    "network.activation": "gelu",
    "network.dropout": 0.5,
    "vocabulary": "open-images",
    "concepts": 150,
    "inversion.concepts": 15,
    "inversion.steps": 350,
    "inversion.average": 0.99,
    "inversion.start": "random",
    "inversion.templates": 24,
}


def test_the_published_recipe() -> None:
    config = preset("searle")
    assert {name: config.settings()[name] for name in PUBLISHED} == PUBLISHED
    weights = {name: weight for name, weight in vars(config.options.weights).items() if weight}
    assert weights == {"distillation": 1.0, "regularization_subject": 0.75}
    of_optimisation = (_optimization._INVERSION_RATE, _optimization._INVERSION_DECAY,
                       _optimization._INVERSION_REGULARIZATION, _optimization._INVERSION_DEVIATION,
                       searle._DISTILLATION_TEMPERATURE)  # fmt: skip
    assert of_optimisation == (2e-2, 0.01, 0.5, 0.02, 0.25)


def test_the_quick_recipe_stays_as_it_was_measured() -> None:
    quick = preset("searle-quick")
    expected = {"epochs": 5, "batch_size": 128, "learning_rate": 1e-4, "schedule": "constant", "network.dropout": 0.5,
                "vocabulary": "captions", "concepts": 5, "inversion.concepts": 5, "inversion.steps": 20,
                "inversion.average": 0.0, "inversion.start": "mean", "inversion.templates": 1}  # fmt: skip
    assert {name: quick.settings()[name] for name in expected} == expected


CONFIG = preset("searle-quick", **{**SMALL, "epochs": 6, "inversion.steps": 3})


@pytest.fixture(scope="module")
def trained(data: SimpleNamespace, clip_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("searle") / "m"
    return train(CONFIG, data.pictures, data.captions, clip_folder, output)


def test_it_learns_and_composes_in_its_own_words(trained: Path, data: SimpleNamespace) -> None:
    rows = log_of(trained)
    assert float(rows[-1]["total"]) < 0.9 * float(rows[0]["total"])
    assert float(rows[-1]["distillation"]) < float(rows[0]["distillation"])
    model = fti4cir.load(trained)
    assert model.method == "searle"
    assert model.require_inversion().config.sentence("is red") == ("a photo of", Slot.SUBJECT, "that is red")
    assert len(model.extra["concepts"]) == 8
    assert set(model.extra["concepts"]["a red dog"]) <= {"on the grass", "in the snow"}
    composed = create("searle", model).compose(Queries(model.features([data.pictures / "00.png"]), ["is red"]))
    assert composed.isfinite().all()


def test_the_optimised_words_are_kept_and_go_on(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = load_captioned_images(data.pictures, data.captions)
    features = compute(tmp_path / "features", encoder, source)
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
        SearleObjective(CONFIG, Corpus(encoder, features.image, captions, rows, folder))
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
    losses = SearleObjective(CONFIG, Corpus(encoder, image.numpy(), captions, range(5), tmp_path))
    network = FineGrainedInversion(CONFIG.network.for_encoder(encoder))
    batch = Batch([4, 0, 2], [caption for [caption] in captions[:3]], image[[4, 0, 2]], None)
    outputs = losses.outputs(network, batch)
    assert outputs["token"].shape == (3, encoder.token_width)
    wanted = torch.from_numpy(losses._tokens[[4, 0, 2]])
    right = losses.terms({**outputs, "token": wanted}, batch)["distillation"]
    wrong = losses.terms({**outputs, "token": wanted.roll(1, dims=0)}, batch)["distillation"]
    assert right < wrong


# -- the optimisation as a method -----------------------------------------------------------------------------
def test_a_query_by_optimisation_depends_on_its_own_image_and_text(trained: Path, data: SimpleNamespace) -> None:
    model = fti4cir.load(trained)
    method = OptimizedInversion(model, steps=5)
    assert create("searle-oti", model).name == method.name == "searle-oti"
    features = model.features([data.pictures / f"{number:02}.png" for number in range(3)])
    together = method.compose(Queries(features, ["is red", "is blue", "is red"], [2, 0, 0]))
    torch.testing.assert_close(together.norm(dim=-1), torch.ones(3))
    for row, (index, text) in enumerate([(2, "is red"), (0, "is blue"), (0, "is red")]):
        alone = method.compose(Queries(type(features)(*(part[[index]] for part in features)), [text]))
        torch.testing.assert_close(together[[row]], alone, rtol=1e-3, atol=1e-3)


def test_by_optimisation_as_the_published_training_did_it(
    data: SimpleNamespace,
    clip_folder: Path,
    tmp_path: Path,
    few_classes: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    config = preset("searle", **{**SMALL, "epochs": 1, "inversion.steps": 4})
    caplog.set_level("INFO", logger="fti4cir")
    train(config, data.pictures, data.captions, clip_folder, tmp_path / "m")
    assert {line.split(":")[0] for line in caplog.messages} >= {"features of concepts", "words by optimisation"}
    model = fti4cir.load(tmp_path / "m")
    assert model.extra["vocabulary"] == "open-images"
    assert set(model.extra["concepts"]) == {"Cat", "Dog", "Grass", "Snow"}
    settings = {"steps": 4, "concepts": 15, "average": 0.99, "start": "random", "templates": 24}
    assert model.extra["optimization"] == settings
    method = create("searle-oti", model)
    assert isinstance(method, OptimizedInversion)
    assert asdict(method._optimization) == settings
    assert asdict(OptimizedInversion(model, steps=2)._optimization) == {**settings, "steps": 2}
    features = model.features([data.pictures / "00.png", data.pictures / "01.png"])
    monkeypatch.setattr(searle_oti, "CLASS_BLOCK", 2)
    clock = itertools.count(0, 6)
    monkeypatch.setattr(searle_oti, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    with caplog.at_level("INFO", "fti4cir"):
        composed = method.compose(Queries(features, ["is red", "is red"]))
    progress = [record.getMessage() for record in caplog.records if record.name.endswith("searle_oti")]
    assert progress == [f"features of concepts for searle-oti: {start} of 7" for start in (2, 6)]
    alone = method.compose(Queries(type(features)(*(part[[1]] for part in features)), ["is red"]))
    torch.testing.assert_close(composed[[1]], alone, rtol=1e-3, atol=1e-3)


def test_by_optimisation_for_a_quick_model(trained: Path) -> None:
    model = fti4cir.load(trained)
    assert OptimizedInversion(model)._optimization == Optimization(60)
    model.extra = {**model.extra, "optimization": {"colour": 1}}
    with pytest.raises(ModelError, match=r"optimised in a way that this version does not know: .*colour"):
        OptimizedInversion(model)


def test_without_concepts_there_is_no_optimisation(trained: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"mini holds no concepts for searle-oti; .*--method searle"):
        create("searle-oti", fti4cir.load("mini"))
    config = json.loads((trained / "config.json").read_text())
    assert config["extra"]["concepts"]
