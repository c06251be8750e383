"""What a report measures beside the evaluations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fti4cir import baselines
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.datasets.base import Benchmark
from fti4cir.description import Descriptions
from fti4cir.errors import InputError, ModelError
from fti4cir.evaluation import evaluate
from fti4cir.model import Model
from fti4cir.report import measure, measure_descriptions, study
from tinyclip import build, clip_folder, encoder, random_inversion
from tinystudy import PICTURES, benchmark

__all__ = ["clip_folder", "encoder"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return benchmark(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def model(encoder: ClipEncoder) -> Model:
    return Model(encoder, random_inversion(threshold=0.15), "tiny")


def rankings(made: Benchmark, model: Model) -> list[list[int]]:
    (found,) = evaluate(made, model.encoder, [baselines.create("fti4cir", model)], "tiny")
    return found.ranking.tolist()


def test_limits_are_what_such_a_model_does(made: Benchmark, model: Model) -> None:
    methods = [baselines.create(name, model) for name in ("text", "fti4cir", "sum")]
    alone = evaluate(made, model.encoder, methods, "tiny")
    found = measure(made, model, methods)
    assert [one.method for one in found.evaluations] == ["text", "fti4cir", "sum"]
    assert [one.ranking.tolist() for one in found.evaluations] == [one.ranking.tolist() for one in alone]
    assert found.words is not None
    assert [most for most, _ in found.words.limited] == [0, 1, 2, 4]
    assert found.words.limited[-1][1] is found.evaluations[1]
    for most, limited in found.words.limited[:-1]:
        cut = random_inversion(max_attributes=most or 1, threshold=0.15)
        cut.load_state_dict(model.require_inversion().state_dict())
        if not most:
            cut.latent, cut.attribute = None, None
            cut.config = replace(cut.config, max_attributes=0)
        assert limited.ranking.tolist() == rankings(made, Model(model.encoder, cut, "tiny"))
    assert rankings(made, model) == found.evaluations[1].ranking.tolist()  # which the limits left as it was


@pytest.mark.parametrize("cached", [False, True])
def test_words_are_counted_once_a_picture(made: Benchmark, model: Model, tmp_path: Path, cached: bool) -> None:
    methods = [baselines.create("fti4cir", model)]
    cache = tmp_path if cached else None
    found = measure(made, model, methods, cache=cache)
    again = measure(made, model, methods, cache=cache)
    features = model.features(list(made.gallery.paths))
    expected = model.require_inversion()(features.image, features.local).counts
    assert found.words is not None
    assert again.words is not None
    assert len(found.words.counts) == len(again.words.counts) == PICTURES
    assert sorted(found.words.counts.tolist()) == sorted(expected.tolist())
    assert len(set(expected.tolist())) > 1
    assert not model.require_inversion()._forward_hooks


def test_no_words_no_limits(made: Benchmark, encoder: ClipEncoder, model: Model) -> None:
    assert measure(made, model, [baselines.create("text", model)]).words is None
    bare = Model(encoder, random_inversion(max_attributes=0), "bare")
    assert measure(made, bare, [baselines.create("fti4cir", bare)]).words is None


def test_other_numbers_of_latent_attributes(
    made: Benchmark, encoder: ClipEncoder, model: Model, tmp_path: Path
) -> None:
    others = [Model(encoder, random_inversion(1, num_latent=count), f"of {count}") for count in (8, 4)]
    found = measure(made, model, [baselines.create("fti4cir", model)], others)
    assert [count for count, _ in found.latent] == [4, 6, 8]
    assert found.latent[1][1] is found.evaluations[0]
    assert found.latent[2][1].ranking.tolist() == rankings(made, others[0])
    assert len(found.evaluations) == 1

    from fti4cir import load

    elsewhere = Model(load(build(tmp_path / "clip", seed=5), device="cpu").encoder, random_inversion(), "elsewhere")
    with pytest.raises(ValueError, match="there is none"):
        measure(made, model, [baselines.create("text", model)], others)
    with pytest.raises(ModelError, match="elsewhere and tiny cannot be compared"):
        measure(made, model, [], [elsewhere])


def test_hidden_answers(made: Benchmark, model: Model) -> None:
    hidden = replace(made, queries=tuple(replace(query, targets=()) for query in made.queries))
    with pytest.raises(InputError, match="known to its server only"):
        measure(hidden, model, [])


def test_what_is_shown_of_a_benchmark(made: Benchmark) -> None:
    query = replace(made.queries[2], texts=("is red", "is long"), reference=PICTURES, recall_targets=(3,))
    changed = replace(made, queries=(query,), values=(), gallery=replace(made.gallery, missing=("lost",)))
    told = study(changed, ())
    (question,) = told.questions
    assert question.picture == ("lost", None)
    assert question.text == "is red / is long"
    assert (question.targets, question.counted) == ((3, 4, 5), (3,))
    assert told.gallery[0].path == made.gallery.paths[0]


def test_descriptions(made: Benchmark, model: Model) -> None:
    captions = tuple(f"a photo of number {number}" for number in range(PICTURES))
    targets = tuple((number,) for number in range(PICTURES))
    descriptions = Descriptions("made up", made.gallery.ids, made.gallery.paths, captions, targets, ())
    found = measure_descriptions(descriptions, model, ["image", "fti4cir"])
    assert [one.method for one in found.evaluations] == ["image", "fti4cir"]
    assert found.words is not None
    assert len(found.words.counts) == PICTURES
    assert found.words.limited == ()
    assert found.one_is_enough
    assert found.gallery[1] == (captions[1], None)
    assert measure_descriptions(descriptions, model, ["image"]).words is None
