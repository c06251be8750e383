"""The evaluation loop against a slow second version, on a stand-in encoder and real files."""

import json
import threading
import zlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from fti4cir.backbones.base import VisionFeatures
from fti4cir.benchmarks import attributes
from fti4cir.benchmarks.base import Benchmark, Gallery, Query
from fti4cir.errors import ImageError, ModelError
from fti4cir.evaluation import gallery as gallery_module
from fti4cir.evaluation import ranking as ranking_module
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.evaluation.ranking import judge
from fti4cir.evaluation.results import compare, labels
from fti4cir.features import cache as features
from fti4cir.methods.image import ImageOnly
from fti4cir.methods.registry import create
from fti4cir.methods.sum import WeightedSum

pytestmark = pytest.mark.numeric

SIDE, WIDTH = 4, 6
PICTURES = 150  # five batches, the last one short
APART = 1e-5
"""How far apart the scores of two images that are no copies are at least, for any query here. Float32 scores of unit
vectors of six numbers, of features made in whatever batches and on whatever processor, err by less than a tenth of it,
so all of these rank the images alike."""


class Tiny:
    """An image tower that is one fixed matrix, a text tower that is a checksum."""

    name, fingerprint, joint_width, input_size = "tiny", "1", WIDTH, SIDE

    def __init__(self):
        self.matrix = torch.randn(3 * SIDE * SIDE, WIDTH, generator=torch.Generator().manual_seed(0))

    def preprocess(self, image):
        return torch.from_numpy(np.array(image)).permute(2, 0, 1) / 255

    def encode_pixels(self, pixels):
        image = (pixels - 0.5).flatten(1) @ self.matrix
        return VisionFeatures(image, image[:, None].repeat(1, 3, 1))

    def encode_texts(self, texts, allow_blank=False):
        seeds = [torch.Generator().manual_seed(zlib.crc32(text.encode())) for text in texts]
        return torch.nn.functional.normalize(torch.stack([torch.randn(WIDTH, generator=seed) for seed in seeds]), dim=1)


class Checked:
    """The sum, and a check that global and local features and the file are of the same image."""

    name = "checked"

    def __init__(self, model):
        self.model, self.sum = model, WeightedSum(model)

    def compose(self, queries):
        features = queries.features
        assert (features.local == features.image[:, None]).all()
        # Each image once, and none for nothing.
        assert sorted(set(queries.reference_index)) == list(range(len(features.image)))
        pixels = torch.stack([self.model.preprocess(Image.open(path).convert("RGB")) for path in queries.paths])
        assert torch.allclose(self.model.encode_pixels(pixels).image, features.image, atol=1e-5)
        return self.sum.compose(queries)


class Broken:
    name = "broken"

    def compose(self, queries):
        return torch.full((len(queries.texts), WIDTH), torch.nan)


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Random images, of which some are copies of others, so that there are ties, and one is missing.

    Queries of one and two texts, some of which count one target only in their recall, or ask for what is missing. All
    of them keep images that are no copies `APART`.
    """
    folder = tmp_path_factory.mktemp("pictures")
    generator = np.random.default_rng(0)
    paths = []
    for number in range(PICTURES):
        paths.append(folder / f"{number}.png")
        if number % 10 == 9:
            paths[-1].write_bytes(paths[number - 5].read_bytes())
        else:
            Image.fromarray(generator.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)).save(paths[-1])
    gallery = exact_features(paths)
    queries = []
    for number in range(200):
        texts = (f"text {number % 7}", f"other {number % 5}")[: 1 + number % 2]
        drawn = generator.permutation(PICTURES)[:9]
        while not apart(gallery, drawn[0], texts):
            drawn = generator.permutation(PICTURES)[:9]
        reference, *others = map(int, drawn)
        targets, within = tuple(others[: 1 + number % 4]), tuple(others[:6])
        if number % 23 == 1:  # one target is missing, but not the one that counts
            targets = (*targets, PICTURES)
        if number % 41 == 7:
            reference = PICTURES
        counted = targets[:1] if number % 5 else None
        queries.append(Query(texts, reference, (reference,) if number % 3 else (), within, targets, counted))
    return Benchmark(
        name="made-up",
        split="val",
        protocol="random images",
        gallery=Gallery(tuple(str(number) for number in range(PICTURES)), tuple(paths), missing=("lost",)),
        queries=tuple(queries),
        values=tuple((str(number % 7), "odd")[: 1 + number % 2] for number in range(200)),
        precision_cuts=(5, 10),
        recall_cuts=(1, 10, 500),
        subset_cuts=(1, 3),
    )


def original(position):
    """The first image with the same content."""
    return position - 5 if position % 10 == 9 else position


def exact_features(paths):
    """Unit-length features (N, D) in double precision, of copies the same."""
    encoder = Tiny()
    pixels = torch.stack([encoder.preprocess(Image.open(path).convert("RGB")) for path in paths]).double()
    features = torch.nn.functional.normalize((pixels - 0.5).flatten(1) @ encoder.matrix.double(), dim=1).numpy()
    return features[[original(position) for position in range(len(paths))]]


def exact_sum(gallery, reference, texts):
    """What the method sum makes of a query, (D,), in double precision."""
    each = [gallery[reference] + Tiny().encode_texts([text])[0].double().numpy() for text in texts]
    composed = sum(vector / np.linalg.norm(vector) for vector in each)
    return composed / np.linalg.norm(composed)


def apart(gallery, reference, texts):
    """Whether both methods that are used here keep all images that are no copies `APART`."""
    distinct = gallery[[position for position in range(PICTURES) if original(position) == position]]
    queries = np.stack([gallery[reference], exact_sum(gallery, reference, texts)])
    return np.diff(np.sort(queries @ distinct.T, axis=1), axis=1).min() > APART


def slow_figures(benchmark):
    """Everything the loop does, one query at a time."""
    gallery = exact_features(benchmark.gallery.paths)
    figures = {name: [] for name in ("mAP@5", "mAP@10", "R@1", "R@10", "R@500", "Rs@1", "Rs@3")}
    for query in benchmark.queries:
        scores = gallery @ exact_sum(gallery, query.reference % PICTURES, query.texts)
        order = sorted(set(range(PICTURES)) - set(query.exclude), key=lambda i: (-scores[original(i)], i))
        if query.reference == PICTURES:  # of what is missing, nothing can be asked
            order = []
        subset = [i for i in order if i in query.within]
        hits = [i in query.targets for i in order]
        for k in (5, 10):
            total = sum(sum(hits[: i + 1]) / (i + 1) for i in range(min(k, len(hits))) if hits[i])
            figures[f"mAP@{k}"].append(total / min(k, len(query.targets)))
        counted = set(query.targets if query.recall_targets is None else query.recall_targets)
        for k in (1, 10, 500):
            figures[f"R@{k}"].append(len(set(order[:k]) & counted) / len(counted))
        for k in (1, 3):
            figures[f"Rs@{k}"].append(len(set(subset[:k]) & counted) / len(counted))
    return figures


@pytest.mark.parametrize("scores_at_a_time", [2**21, 7 * PICTURES])
def test_agrees_with_the_slow_version(benchmark, monkeypatch, scores_at_a_time):
    monkeypatch.setattr(ranking_module, "_SCORES", scores_at_a_time)
    encoder = Tiny()
    result = evaluate(benchmark, encoder, methods=[Checked(encoder)], model="tiny")[0]
    expected = slow_figures(benchmark)
    assert list(result.per_query) == list(expected)
    for name, figures in expected.items():
        assert result.per_query[name] == pytest.approx(figures), name


class Uneven(Tiny):
    """Features that differ with the image's place in its batch, far more than any processor's rounding."""

    def encode_pixels(self, pixels):
        image = super().encode_pixels(pixels).image
        image = image + 0.01 * torch.arange(len(image))[:, None] * torch.linspace(-1, 1, WIDTH)
        return VisionFeatures(image, image[:, None].repeat(1, 3, 1))


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("batch", [1, 7, 32])
def test_copies_tie_wherever_they_stand(benchmark, tmp_path, monkeypatch, batch, cached):
    """Each copy comes right behind its original, which is first in the gallery, for it scores exactly the same."""
    monkeypatch.setattr(gallery_module, "_BATCH", batch)
    monkeypatch.setattr(features, "_BLOCK", batch)
    encoder = Uneven()
    (result,) = evaluate(
        benchmark, encoder, methods=[WeightedSum(encoder)], model="tiny", cache=tmp_path / "cache" if cached else None
    )
    for query, row in zip(benchmark.queries, result.ranking.tolist(), strict=True):
        if query.reference < PICTURES:
            pairs = [(position - 5, position) for position in range(9, PICTURES, 10)]
            for first, copy in pairs:
                if not {first, copy} & set(query.exclude):
                    assert row.index(copy) == row.index(first) + 1


def test_equal_features_tie_without_files(benchmark):
    """A gallery of features from elsewhere, each of them in it three times."""
    once = np.random.default_rng(0).standard_normal((PICTURES // 3, 512), dtype=np.float32)
    composed = np.random.default_rng(1).standard_normal((200, 512), dtype=np.float32)
    queries = tuple(replace(query, reference=0, exclude=()) for query in benchmark.queries)
    ranking, _ = ranking_module.rank_gallery(
        replace(benchmark, queries=queries), composed, gallery=np.tile(once, (3, 1))
    )
    for row in ranking[:, :PICTURES].reshape(200, -1, 3):
        assert (np.diff(row, axis=1) == len(once)).all()


def test_several_methods_share_one_pass(benchmark):
    encoder = Tiny()
    alone = [
        evaluate(benchmark, encoder, methods=[method], model="tiny")[0]
        for method in (ImageOnly(), WeightedSum(encoder))
    ]
    together = evaluate(benchmark, encoder, methods=[ImageOnly(), WeightedSum(encoder)], model="tiny")
    assert [result.method for result in together] == ["image", "sum"]
    assert [result.metrics() for result in together] == [result.metrics() for result in alone]


def test_methods_with_a_model_each(benchmark):
    encoder = Tiny()
    methods = [ImageOnly(), WeightedSum(encoder), ImageOnly()]
    found = evaluate(benchmark, encoder, methods=methods, model=["one", "two", "three"])
    assert [(one.method, one.model) for one in found] == [("image", "one"), ("sum", "two"), ("image", "three")]
    assert labels(found) == ["image (one)", "sum", "image (three)"]
    with pytest.raises(ValueError, match="zip"):
        evaluate(benchmark, encoder, methods=methods, model=["one", "two"])
    with pytest.raises(ModelError, match="'broken' on the model two"):
        evaluate(benchmark, encoder, methods=[ImageOnly(), Broken()], model=["one", "two"])


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([("fti4cir", "/models/k12")], ["fti4cir"]),
        ([("predictions", None)], ["predictions"]),
        ([("fti4cir", "/n/k12"), ("pic2word", "/n/p"), ("sum", "/n/k12")], ["fti4cir", "pic2word", "sum"]),
        ([("fti4cir", "mini"), ("fti4cir", "/n/k12"), ("sum", "mini")], ["fti4cir (mini)", "fti4cir (k12)", "sum"]),
        ([("fti4cir", "/a/new/m"), ("fti4cir", "/a/old/m")], ["fti4cir (new/m)", "fti4cir (old/m)"]),
        ([("fti4cir", "/m"), ("fti4cir", "/old/m")], ["fti4cir (/m)", "fti4cir (old/m)"]),
        ([("fti4cir", "m"), ("fti4cir", "/old/m")], ["fti4cir (m)", "fti4cir (old/m)"]),
        ([("sum", "m"), ("sum", "m")], ["sum (m)", "sum (m)"]),
    ],
)  # fmt: skip
def test_labels(pairs, expected):
    assert labels([SimpleNamespace(method=method, model=model) for method, model in pairs]) == expected


def test_from_a_table_to_figures(tmp_path):
    """Plain red and blue squares, the shoes darker than the shirts, and a method that knows what it is asked for."""
    colours = {"Red": (1, 0, 0), "Blue": (0, 0, 1)}

    class Sees(Tiny):
        joint_width = 3

        def encode_pixels(self, pixels):
            return VisionFeatures(pixels.mean((2, 3)) + 0.1, pixels.flatten(2).transpose(1, 2))

        def encode_texts(self, texts, allow_blank=False):
            return torch.tensor([colours[text.removeprefix("in ")] for text in texts], dtype=torch.float)

    rows = ["id,kind,colour"]
    for kind, light in (("shirt", 255), ("shoe", 60)):
        for colour, channels in colours.items():
            for number in range(2):
                rows.append(f"{kind}/{colour}-{number},{kind},{colour}")
                (tmp_path / kind).mkdir(exist_ok=True)
                pixel = tuple(light * channel for channel in channels)
                Image.new("RGB", (SIDE, SIDE), pixel).save(tmp_path / kind / f"{colour}-{number}.png")
    (tmp_path / "table.csv").write_text("\n".join(rows))

    table = attributes.load(tmp_path, tmp_path / "table.csv", "id", "colour", ["kind"], "in {value}")
    encoder = Sees()
    image, text = evaluate(table, encoder, methods=[create(name, encoder) for name in ("image", "text")], model="sees")
    assert image.queries == image.gallery == 8
    # The image alone finds its own colour first: its twin, two of the other kind, and only then, of the other
    # colour, the darker (and so less saturated) shoes. The text finds its colour, shirts first.
    assert image.metrics()["R@1"] == 0
    assert text.by_value()["Red"]["mAP@5"] == pytest.approx(((1 + 1) / 2 + (1 / 3 + 2 / 4) / 2) / 2)


def test_json(benchmark):
    encoder = Tiny()
    result = evaluate(benchmark, encoder, methods=[WeightedSum(encoder)], model="tiny")[0]
    told = json.loads(json.dumps(result.to_json()))
    metrics = told["metrics"]
    assert {key: told[key] for key in ("benchmark", "split", "protocol", "method", "model")} == {
        "benchmark": "made-up",
        "split": "val",
        "protocol": "random images",
        "method": "sum",
        "model": "tiny",
    }
    assert (told["queries"], told["gallery"], told["missing"]) == (200, PICTURES, 1)
    assert list(metrics) == ["mAP@5", "mAP@10", "R@1", "R@10", "R@500", "Rs@1", "Rs@3"]
    assert metrics["mAP@10"] == pytest.approx(result.per_query["mAP@10"].mean())
    lost = sum(query.reference == PICTURES for query in benchmark.queries)
    unreachable = sum(PICTURES in query.targets and query.recall_targets is None for query in benchmark.queries)
    assert 200 - lost - unreachable <= 200 * metrics["R@500"] < 200 - lost
    assert set(told["intervals"]) == set(metrics)
    for name, (low, high) in told["intervals"].items():
        assert low <= metrics[name] <= high
    assert list(told["by_value"]) == [*map(str, range(7)), "odd"]
    assert [row["queries"] for row in told["by_value"].values()] == [29, 29, 29, 29, 28, 28, 28, 100]
    assert told["by_value"]["odd"]["mAP@10"] == pytest.approx(result.per_query["mAP@10"][1::2].mean())
    weighted = sum(told["by_value"][str(n)]["queries"] * told["by_value"][str(n)]["mAP@10"] for n in range(7)) / 200
    assert weighted == pytest.approx(metrics["mAP@10"])


def test_rankings(benchmark):
    """What was found is kept: as deep as the deepest cut or the gallery, and within the few images of a query."""
    encoder = Tiny()
    result = evaluate(benchmark, encoder, methods=[WeightedSum(encoder)], model="tiny")[0]
    assert result.ranking.shape == (200, PICTURES + 1)
    assert result.subset_ranking.shape == (200, 3)
    for query, row, subset in zip(benchmark.queries, result.ranking, result.subset_ranking, strict=True):
        here = PICTURES if query.reference < PICTURES else 0
        found = row[row >= 0].tolist()
        assert sorted(found) == sorted(set(range(here)) - set(query.exclude))
        assert (row[len(found) :] == -1).all()
        assert subset.tolist() == ([n for n in found if n in query.within][:3] or [-1] * 3)


def test_ten_are_ranked_whatever_the_cuts(benchmark):
    shallow = replace(benchmark, precision_cuts=(), recall_cuts=(1,), subset_cuts=())
    result = evaluate(shallow, Tiny(), methods=[ImageOnly()], model="tiny")[0]
    assert result.ranking.shape == (200, 10)
    assert result.subset_ranking is None
    assert list(result.per_query) == ["R@1"]


def test_hidden_answers_are_ranked_but_not_scored(benchmark):
    hidden = tuple(replace(query, targets=(), recall_targets=None) for query in benchmark.queries)
    known, result = (
        evaluate(which, Tiny(), methods=[ImageOnly()], model="tiny")[0]
        for which in (benchmark, replace(benchmark, queries=hidden))
    )
    assert (result.ranking == known.ranking).all()
    told = result.to_json()
    assert (told["queries"], told["metrics"], told["intervals"]) == (200, {}, {})
    assert told["by_value"]["odd"] == {"queries": 100}


def test_rankings_from_elsewhere_are_judged_alike(benchmark):
    encoder = Tiny()
    result = evaluate(benchmark, encoder, methods=[WeightedSum(encoder)], model="tiny")[0]
    whole = judge(benchmark, result.ranking, subset_ranking=None, method="predictions", model=None)
    within = judge(benchmark, None, subset_ranking=result.subset_ranking, method="predictions", model=None)
    assert {**whole.metrics(), **within.metrics()} == result.metrics()
    assert set(within.metrics()) == {"Rs@1", "Rs@3"}
    assert within.ranking.shape == (200, 0)


def kept_in(cache, benchmark, encoder=None):
    encoder = encoder or Tiny()
    done = []
    result = evaluate(
        benchmark,
        encoder,
        methods=[WeightedSum(encoder)],
        model="tiny",
        progress=lambda *of: done.append(of),
        cache=cache,
    )[0]
    return result, done


class Counting(Tiny):
    """Counts images, and can be killed after some."""

    def __init__(self, fail_after=None):
        super().__init__()
        self.encoded, self.fail_after = 0, fail_after

    def encode_pixels(self, pixels):
        if self.fail_after is not None and self.encoded + len(pixels) > self.fail_after:
            raise KeyboardInterrupt
        self.encoded += len(pixels) if pixels.any() else 0  # not the black one that the width is learnt from
        return super().encode_pixels(pixels)


def test_a_cache_gives_the_same_and_then_reads_the_references_only(benchmark, tmp_path):
    encoder = Tiny()
    plain = evaluate(benchmark, encoder, methods=[WeightedSum(encoder)], model="tiny")[0]
    references = len({query.reference for query in benchmark.queries} - {PICTURES})
    for expected in (PICTURES + references, references):
        counting = Counting()
        result, done = kept_in(tmp_path / "cache", benchmark, counting)
        assert counting.encoded == expected
        assert done[-1] == (references, references)
        assert result.metrics() == pytest.approx(plain.metrics(), abs=1e-6)


def test_a_cache_goes_on_after_an_interruption(benchmark, tmp_path, caplog):
    """In blocks of 64, the third of which is interrupted."""
    with pytest.raises(KeyboardInterrupt):
        kept_in(tmp_path / "cache", benchmark, Counting(fail_after=140))
    counting = Counting()
    with caplog.at_level("INFO", "fti4cir"):
        result, done = kept_in(tmp_path / "cache", benchmark, counting)
    assert counting.encoded == (PICTURES - 128) + done[-1][0]
    assert caplog.messages
    assert result.metrics() == kept_in(tmp_path / "other", benchmark)[0].metrics()


def test_a_cache_serves_several_galleries_and_encoders(benchmark, tmp_path):
    backwards = Gallery(benchmark.gallery.ids[::-1], benchmark.gallery.paths[::-1], benchmark.gallery.missing)

    def same_image(reference):
        return PICTURES - 1 - reference if reference < PICTURES else reference

    turned = replace(
        benchmark,
        gallery=backwards,
        queries=tuple(
            replace(query, reference=same_image(query.reference), exclude=(), recall_targets=None)
            for query in benchmark.queries
        ),
    )

    class Other(Tiny):
        """Features whose numbers stand in another order: the scores stay, and with them what is `APART`."""

        fingerprint = "2"

        def __init__(self):
            super().__init__()
            self.matrix = self.matrix.flip(1)

        def encode_texts(self, texts, allow_blank=False):
            return super().encode_texts(texts).flip(1)

    for encoder in (Tiny(), Other(), Tiny()):
        for which in (benchmark, turned):
            plain = evaluate(which, encoder, methods=[WeightedSum(encoder)], model="tiny")[0]
            assert kept_in(tmp_path, which, encoder)[0].metrics() == pytest.approx(plain.metrics(), abs=1e-6)
    assert len(list(tmp_path.iterdir())) == 4


def test_a_cache_drops_no_image(benchmark, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>")
    paths = (*benchmark.gallery.paths[:-1], broken)
    spoilt = replace(benchmark, gallery=Gallery(benchmark.gallery.ids, paths, benchmark.gallery.missing))
    with pytest.raises(ImageError, match=r"broken\.png"):
        kept_in(tmp_path / "cache", spoilt)
    broken.write_bytes(benchmark.gallery.paths[-1].read_bytes())
    assert kept_in(tmp_path / "cache", spoilt)[0].metrics() == kept_in(tmp_path / "other", benchmark)[0].metrics()


def test_figures_that_no_ranking_could_raise_are_not_for_people(benchmark):
    """With sixty right answers a query, the first place says nothing; of one that counts it does."""
    many = tuple(range(60))
    queries = [replace(query, targets=many, recall_targets=None) for query in benchmark.queries]
    result = evaluate(replace(benchmark, queries=tuple(queries)), Tiny(), methods=[ImageOnly()], model="tiny")[0]
    assert result.ceilings == pytest.approx(
        {"mAP@5": 1, "mAP@10": 1, "R@1": 1 / 60, "R@10": 1 / 6, "R@500": 1, "Rs@1": 1 / 60, "Rs@3": 3 / 60}
    )
    assert result.shown == ["mAP@5", "mAP@10", "R@500"]
    told = result.to_json()
    assert (
        list(told["metrics"]) == list(told["ceilings"]) == list(result.per_query)
    )  # all of them, with what bounds them
    one = tuple(replace(query, targets=many, recall_targets=(7,)) for query in queries)
    result = evaluate(replace(benchmark, queries=one), Tiny(), methods=[ImageOnly()], model="tiny")[0]
    assert result.shown == list(result.per_query)


def test_comparison_is_paired(benchmark):
    encoder = Tiny()
    image, both = evaluate(benchmark, encoder, methods=[ImageOnly(), WeightedSum(encoder)], model="tiny")
    difference = compare(both, image, metric="mAP@10")
    assert difference.mean == pytest.approx(both.metrics()["mAP@10"] - image.metrics()["mAP@10"])
    assert difference.low <= difference.mean <= difference.high
    assert compare(image, image, metric="mAP@10") == (0, 0, 0)


def test_other_queries_cannot_be_compared(benchmark):
    fewer = Benchmark(**{**vars(benchmark), "queries": benchmark.queries[:5], "values": ()})
    whole, part = (evaluate(which, Tiny(), methods=[ImageOnly()], model="tiny")[0] for which in (benchmark, fewer))
    assert part.by_value() == {}
    with pytest.raises(ValueError, match="same queries"):
        compare(whole, part, metric="mAP@10")


def test_progress(benchmark):
    seen = []
    evaluate(
        benchmark, Tiny(), methods=[ImageOnly()], model="tiny", progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(32, 150), (64, 150), (96, 150), (128, 150), (150, 150)]


def test_images_are_read_once_and_not_far_ahead(benchmark, monkeypatch):
    opened, ahead = [], []
    real = gallery_module.read_file

    def counting(path):
        opened.append(path)
        return real(path)

    class Watching(Counting):
        def encode_pixels(self, pixels):
            ahead.append(len(opened) - self.encoded)
            return super().encode_pixels(pixels)

    monkeypatch.setattr(gallery_module, "read_file", counting)
    evaluate(benchmark, Watching(), methods=[ImageOnly()], model="tiny")
    assert sorted(opened) == sorted(benchmark.gallery.paths)
    assert max(ahead) <= 3 * 32


def test_an_image_that_cannot_be_read_stops_it(benchmark, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>")
    paths = (*benchmark.gallery.paths[:-1], broken)
    spoilt = Benchmark(**{**vars(benchmark), "gallery": Gallery(benchmark.gallery.ids, paths)})
    with pytest.raises(ImageError, match=r"broken\.png.*--allow-missing"):
        evaluate(spoilt, Tiny(), methods=[ImageOnly()], model="tiny")


def test_no_thread_goes_on_reading_after_that(benchmark, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>")
    paths = (broken, *benchmark.gallery.paths[1:])
    spoilt = replace(benchmark, gallery=Gallery(benchmark.gallery.ids, paths, benchmark.gallery.missing))
    before = threading.active_count()
    with pytest.raises(ImageError) as stopped:
        evaluate(spoilt, Tiny(), methods=[ImageOnly()], model="tiny")
    assert threading.active_count() == before, f"still there while {stopped} is handled"


@pytest.mark.parametrize("cached", [False, True])
def test_an_image_that_cannot_be_read_may_count_as_missing(benchmark, tmp_path, caplog, cached):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"<html>")
    gallery = benchmark.gallery
    spoilt = replace(benchmark, gallery=replace(gallery, paths=(*gallery.paths[:-1], broken)))
    # Missing images stand behind the others, so the last one has the same position.
    gone = Gallery(gallery.ids[:-1], gallery.paths[:-1], (gallery.ids[-1], *gallery.missing))
    encoder = Tiny()
    (found,) = evaluate(
        spoilt, encoder, methods=[WeightedSum(encoder)], model="tiny",
        cache=tmp_path / "cache" if cached else None, allow_unreadable=True,
    )  # fmt: skip
    (expected,) = evaluate(replace(benchmark, gallery=gone), encoder, methods=[WeightedSum(encoder)], model="tiny")
    assert (found.gallery, found.missing) == (expected.gallery, expected.missing) == (PICTURES - 1, 2)
    assert found.unreadable == (PICTURES - 1,)
    assert found.protocol == "random images, 1 that could not be read counted as missing"
    assert found.ranking.tolist() == expected.ranking.tolist()
    assert found.subset_ranking.tolist() == expected.subset_ranking.tolist()
    assert found.metrics() == expected.metrics()
    (line,) = [line for line in caplog.messages if line.startswith("counted as missing")]
    assert "broken.png" in line


def test_features_that_are_not_finite(benchmark):
    with pytest.raises(ModelError, match="'broken' on the model tiny"):
        evaluate(benchmark, Tiny(), methods=[Broken()], model="tiny")
