"""What a report measures beside the evaluations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fti4cir import load
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.benchmarks.base import Benchmark
from fti4cir.errors import ImageError, InputError, ModelError
from fti4cir.evaluation.caption_retrieval import Descriptions
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.methods import registry as baselines
from fti4cir.models.model import Model
from fti4cir.report import measure, measure_descriptions, study, write
from tinyclip import build, random_inversion
from tinystudy import PICTURES, benchmark


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Benchmark:
    return benchmark(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def model(encoder: ClipEncoder) -> Model:
    return Model(encoder, random_inversion(threshold=0.15), "tiny")


def rankings(made: Benchmark, model: Model) -> list[list[int]]:
    (found,) = evaluate(made, model.encoder, methods=[baselines.create("fti4cir", model)], model="tiny")
    return found.ranking.tolist()


def test_limits_are_what_such_a_model_does(made: Benchmark, model: Model) -> None:
    methods = [baselines.create(name, model) for name in ("text", "fti4cir", "sum")]
    alone = evaluate(made, model.encoder, methods=methods, model="tiny")
    found = measure(made, [(method, model) for method in methods])
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
def test_words_are_counted_once_an_image(made: Benchmark, model: Model, tmp_path: Path, cached: bool) -> None:
    methods = [(baselines.create("fti4cir", model), model)]
    cache = tmp_path if cached else None
    found = measure(made, methods, cache=cache)
    again = measure(made, methods, cache=cache)
    features = model.features(list(made.gallery.paths))
    expected = model.require_inversion()(features.image, features.local).counts
    assert found.words is not None
    assert again.words is not None
    assert len(found.words.counts) == len(again.words.counts) == PICTURES
    assert sorted(found.words.counts.tolist()) == sorted(expected.tolist())
    assert len(set(expected.tolist())) > 1
    assert not model.require_inversion()._forward_hooks


def test_no_words_no_limits(made: Benchmark, encoder: ClipEncoder, model: Model) -> None:
    assert measure(made, [(baselines.create("text", model), model)]).words is None
    bare = Model(encoder, random_inversion(max_attributes=0), "bare")
    assert measure(made, [(baselines.create("fti4cir", bare), bare)]).words is None


def test_models_of_several_numbers_of_latent_attributes(made: Benchmark, encoder: ClipEncoder, model: Model) -> None:
    k8, k4, same = (
        Model(encoder, random_inversion(seed, num_latent=count), name)
        for seed, (count, name) in enumerate([(8, "k8"), (4, "k4"), (6, "same")], start=1)
    )
    bare = Model(encoder, random_inversion(num_latent=9, max_attributes=0), "bare")
    pairs = [(baselines.create("fti4cir", one), one) for one in (bare, model, k8, k4)]
    found = measure(made, pairs)
    assert [one.model for one in found.evaluations] == ["bare", "tiny", "k8", "k4"]
    assert found.evaluations[2].ranking.tolist() == rankings(made, k8)
    assert [(count, one.model) for count, one in found.latent] == [(4, "k4"), (6, "tiny"), (8, "k8")]
    assert found.latent[2][1] is found.evaluations[2]
    assert found.words is not None
    assert found.words.evaluation is found.evaluations[1]  # the first that has any
    assert len(found.words.counts) == PICTURES  # of that one alone
    assert [one.model for _, one in found.words.limited] == ["tiny"] * 4
    assert measure(made, [(baselines.create("fti4cir", one), one) for one in (model, same)]).latent == ()


def test_the_latent_attributes_of_two_methods_are_not_mixed(
    made: Benchmark, encoder: ClipEncoder, model: Model
) -> None:
    other = Model(encoder, random_inversion(1, num_latent=8), "other", method="searle")
    pairs = [(baselines.create(one.method, one), one) for one in (model, other)]
    assert measure(made, pairs).latent == ()


def test_models_of_different_encoders(made: Benchmark, model: Model, tmp_path: Path) -> None:
    elsewhere = Model(load(build(tmp_path / "clip", seed=5), device="cpu").encoder, random_inversion(), "elsewhere")
    pairs = [(baselines.create("fti4cir", one), one) for one in (model, elsewhere)]
    with pytest.raises(ModelError, match="tiny and elsewhere cannot be compared"):
        measure(made, pairs)


def test_an_image_that_cannot_be_read_is_shown_by_its_name(made: Benchmark, model: Model, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"")
    spoilt = replace(made, gallery=replace(made.gallery, paths=(broken, *made.gallery.paths[1:])))
    methods = [(baselines.create("fti4cir", model), model)]
    with pytest.raises(ImageError, match=r"broken\.png"):
        measure(spoilt, methods)
    found = measure(spoilt, methods, allow_unreadable=True)
    assert found.gallery[0] == (made.gallery.ids[0], None)
    assert all(item.path for item in found.gallery[1:PICTURES])
    assert found.evaluations[0].missing == 1
    write(found, tmp_path / "report")  # which shows queries that start from it


def test_hidden_answers(made: Benchmark, model: Model) -> None:
    hidden = replace(made, queries=tuple(replace(query, targets=()) for query in made.queries))
    with pytest.raises(InputError, match="known to its server only"):
        measure(hidden, [])


def test_what_is_shown_of_a_benchmark(made: Benchmark) -> None:
    query = replace(made.queries[2], texts=("is red", "is long"), reference=PICTURES, recall_targets=(3,))
    changed = replace(made, queries=(query,), values=(), gallery=replace(made.gallery, missing=("lost",)))
    summary = study(changed, ())
    (question,) = summary.questions
    assert question.picture == ("lost", None)
    assert question.text == "is red / is long"
    assert (question.targets, question.counted) == ((3, 4, 5), (3,))
    assert summary.gallery[0].path == made.gallery.paths[0]


def test_descriptions(made: Benchmark, model: Model) -> None:
    captions = tuple(f"a photo of number {number}" for number in range(PICTURES))
    targets = tuple((number,) for number in range(PICTURES))
    descriptions = Descriptions("made up", made.gallery.ids, made.gallery.paths, captions, targets, ())
    found = measure_descriptions(descriptions, [("image", model), ("fti4cir", model)])
    assert [one.method for one in found.evaluations] == ["image", "fti4cir"]
    assert found.words is not None
    assert found.words.evaluation is found.evaluations[1]
    assert len(found.words.counts) == PICTURES
    assert found.words.limited == ()
    assert found.one_is_enough
    assert found.gallery[1] == (captions[1], None)
    assert measure_descriptions(descriptions, [("image", model)]).words is None
