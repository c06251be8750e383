"""Files of predictions: written as the servers want them, read back, and refused when broken."""

import copy
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fti4cir.benchmarks import circo, cirr, submission
from fti4cir.benchmarks.base import Benchmark, Gallery, Query
from fti4cir.errors import InputError
from tinybench import REAL

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the benchmarks' annotation files are not beside the project")

COUNT = 60
QUERIES = 4


def made_up(name: str) -> Benchmark:
    """Four queries over 60 images; for cirr, the reference n of a group of six is left out of the ranking."""
    names = [f"test1-{n}" if name == "cirr" else str(7 * n + 3) for n in range(COUNT)]
    queries = []
    for number in range(QUERIES):
        within = tuple(n for n in range(6) if n != number)
        excluded = (number,) if name == "cirr" else ()
        queries.append(Query(("is red",), number, excluded, within if name == "cirr" else None, ()))
    return Benchmark(
        name=name,
        split="test1" if name == "cirr" else "test",
        protocol="made up",
        gallery=Gallery(tuple(names), tuple(Path(f"{name}.png") for name in names)),
        queries=tuple(queries),
        values=(),
        precision_cuts=(),
        recall_cuts=(1, 50),
        subset_cuts=(1, 2, 3) if name == "cirr" else (),
        query_ids=tuple(100 + 3 * n for n in range(QUERIES)),
    )


def rankings(benchmark: Benchmark) -> tuple[np.ndarray, np.ndarray]:
    """Random ones that leave out what a query excludes, (Q, 50) and within the group (Q, 3)."""
    generator = np.random.default_rng(0)
    whole, groups = [], []
    for query in benchmark.queries:
        allowed = [n for n in range(COUNT) if n not in query.exclude]
        whole.append(generator.permutation(allowed)[:50])
        groups.append(generator.permutation(query.within or allowed)[:3])
    return np.array(whole), np.array(groups)


def test_cirr_is_two_files(tmp_path):
    benchmark = made_up("cirr")
    whole, groups = rankings(benchmark)
    files = submission.write(benchmark, whole, groups, tmp_path / "mine.json")
    assert files == (tmp_path / "mine.json", tmp_path / "mine_subset.json")
    assert sorted(tmp_path.iterdir()) == sorted(files)  # and nothing half-written beside them
    for file, metric, ranking in zip(files, ("recall", "recall_subset"), (whole, groups), strict=True):
        content = json.loads(file.read_text())
        assert (content.pop("version"), content.pop("metric")) == ("rc2", metric)
        assert content == {
            str(query_id): [f"test1-{n}" for n in row]
            for query_id, row in zip(benchmark.query_ids, ranking, strict=True)
        }


def test_circo_is_one_file_of_numbers(tmp_path):
    benchmark = made_up("circo")
    whole, _ = rankings(benchmark)
    assert submission.write(benchmark, whole, None, tmp_path / "mine.json") == (tmp_path / "mine.json",)
    content = json.loads((tmp_path / "mine.json").read_text())
    assert content == {
        str(query_id): [7 * int(n) + 3 for n in row] for query_id, row in zip(benchmark.query_ids, whole, strict=True)
    }


@pytest.mark.parametrize("name", ["cirr", "circo"])
def test_what_was_written_reads_back(tmp_path, name):
    benchmark = made_up(name)
    whole, groups = rankings(benchmark)
    files = submission.write(benchmark, whole, groups if name == "cirr" else None, tmp_path / "mine.json")
    for file, ranking in zip(files, (whole, groups), strict=False):
        predictions = submission.read(benchmark, file)
        assert (predictions.ranking == ranking).all()
        assert predictions.benchmark.protocol.startswith(f"the predictions in {file.name}")


def test_images_that_are_not_here_do_not_matter_to_a_file(tmp_path):
    benchmark = made_up("cirr")
    whole, groups = rankings(benchmark)
    file, _ = submission.write(benchmark, whole, groups, tmp_path / "mine.json")
    absent = replace(benchmark, gallery=Gallery((), (), benchmark.gallery.ids))
    predictions = submission.read(absent, file)
    assert (predictions.ranking == whole).all()
    assert predictions.gallery_size == COUNT


def test_circo_without_cocos_list_takes_any_number(tmp_path):
    benchmark = made_up("circo")
    content = {str(query_id): list(range(3, 53)) for query_id in benchmark.query_ids}
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    predictions = submission.read(benchmark, file)
    assert "not checked" in predictions.benchmark.protocol
    assert predictions.gallery_size == circo.GALLERY
    gallery = predictions.benchmark.gallery
    names = gallery.ids + gallery.missing
    assert [[names[position] for position in row] for row in predictions.ranking] == [list(map(str, range(3, 53)))] * 4


def test_circo_with_cocos_list_takes_its_images_only(tmp_path, monkeypatch):
    monkeypatch.setattr(circo, "BENCHMARK", replace(circo.BENCHMARK, gallery_size=COUNT))
    benchmark = made_up("circo")
    whole, _ = rankings(benchmark)
    (file,) = submission.write(benchmark, whole, None, tmp_path / "mine.json")
    assert "not checked" not in submission.read(benchmark, file).benchmark.protocol
    content = json.loads(file.read_text())
    content["103"][7] = 4
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"query 103: 4 is no image of the gallery"):
        submission.read(benchmark, file)


def broken(change):
    """The text of a file that `change` has spoilt, given its content."""

    def spoil(content):
        content = copy.deepcopy(content)
        return change(content) or json.dumps(content)

    return spoil


def put(query, place, value):
    return lambda content: content[query].__setitem__(place, value)


BREAKAGES = {
    "cut short": (lambda content: json.dumps(content)[:-9], "not JSON"),
    "no object": (lambda content: json.dumps([content]), "must be an object"),
    "nested": (lambda content: "[" * 100_000, "not JSON"),
    "twice": (lambda content: json.dumps(content)[:-1] + ', "100": []}', "more than one entry '100'"),
    "absent": (lambda content: content.pop("103") and None, "lacks 1 of the 4 queries of .*: 103;"),
    "empty": (lambda content: "{}", r"lacks 4 of the 4|must say"),
    "unknown": (lambda content: content.update({"7": content["100"]}), "1 entries that are no queries of .*: 7;"),
    "too few": (lambda content: content["106"].pop() and None, "query 106: .* is 49 predictions"),
    "too many": (lambda content: content["106"].append(content["106"][0]), "query 106: .* is 51 predictions"),
    "no list": (lambda content: content.update({"106": "x"}), "query 106: .* is no list"),
    "null": (put("106", 3, None), "query 106: null is no image"),
    "a list": (put("106", 3, ["a"]), r"query 106: \[.* is no image"),
    "true": (put("106", 3, True), "query 106: true is no image"),
    "a fraction": (put("106", 3, 10.0), r"query 106: 10\.0 is no image"),
    "repeated": (lambda content: put("109", 3, content["109"][4])(content), "query 109: .* more than once"),
}  # fmt: skip


@pytest.mark.parametrize("name", ["cirr", "circo"])
@pytest.mark.parametrize("breakage", BREAKAGES)
def test_broken_files_are_refused(tmp_path, name, breakage):
    change, says = BREAKAGES[breakage]
    refused(tmp_path, name, change, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda content: content.pop("version") and None, 'must say "version": "rc2"'),
        (lambda content: content.update(version="rc1"), 'must say "version": "rc2"'),
        (lambda content: content.update(version=["rc2"]), 'must say "version": "rc2"'),
        (lambda content: content.pop("metric") and None, '"metric": "recall" or "metric": "recall_subset"'),
        (put("100", 0, "test1-7.png"), 'query 100: "test1-7.png" is no image .* without folder and extension'),
        (put("100", 0, 3), "query 100: 3 is no image"),
        (put("100", 0, "test1-0"), "query 100: test1-0 is the reference"),
        (lambda content: json.dumps(content) + " " * 5_000_000, "has 5.0 MB, but the server takes 5 MB"),
    ],
)  # fmt: skip
def test_broken_files_of_cirr(tmp_path, change, says):
    refused(tmp_path, "cirr", change, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("100", 0, "10"), 'query 100: "10" is no image .* a whole number without quotes'),
        (put("100", 0, -10), "query 100: -10 is no image"),
        (lambda content: content.update(version="rc2"), "no queries of circo test: version"),
        (lambda content: content.update({"0106": content.pop("106")}), "no queries of circo test: 0106"),
    ],
)
def test_broken_files_of_circo(tmp_path, change, says):
    refused(tmp_path, "circo", change, says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (put("100", 0, "test1-6"), "query 100: test1-6 is not in the query's group"),
        (put("100", 0, "test1-0"), "query 100: test1-0 is the reference"),
        (lambda content: content["100"].append("test1-5"), "a list of 3 predictions, and there is 4"),
        (lambda content: content.update(metric="recall"), "a list of 50 predictions, and there is 3"),
    ],
)
def test_broken_files_of_groups(tmp_path, change, says):
    refused(tmp_path, "cirr", change, says, which=1)


def refused(folder, name, change, says, which=0):
    benchmark = made_up(name)
    whole, groups = rankings(benchmark)
    file = submission.write(benchmark, whole, groups if name == "cirr" else None, folder / "mine.json")[which]
    file.write_text(broken(change)(json.loads(file.read_text())))
    with pytest.raises(InputError, match=says) as raised:
        submission.read(benchmark, file)
    assert str(file) in str(raised.value)


def test_files_that_are_none(tmp_path):
    benchmark = made_up("circo")
    with pytest.raises(InputError, match=r"gone\.json cannot be read: No such file"):
        submission.read(benchmark, tmp_path / "gone.json")
    with pytest.raises(InputError, match="cannot be read"):
        submission.read(benchmark, tmp_path)
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="not JSON in UTF-8"):
        submission.read(benchmark, tmp_path / "binary")


def test_only_benchmarks_with_a_server(tmp_path):
    benchmark = replace(made_up("circo"), name="fashioniq-dress")
    for use in (lambda: submission.plan(benchmark, tmp_path / "x"), lambda: submission.read(benchmark, tmp_path / "x")):
        with pytest.raises(InputError, match=r"No server takes predictions for fashioniq-dress.* circo and cirr"):
            use()


def test_places_that_cannot_be_written_to(tmp_path):
    benchmark = made_up("circo")
    with pytest.raises(InputError, match="it is a folder"):
        submission.plan(benchmark, tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        submission.plan(benchmark, tmp_path / "gone" / "mine.json")


def lacking(benchmark, here):
    """The benchmark with all images from position `here` on missing."""
    ids, paths = benchmark.gallery.ids, benchmark.gallery.paths
    return replace(benchmark, gallery=Gallery(ids[:here], paths[:here], ids[here:]))


def test_too_few_images_are_told_beforehand(tmp_path):
    benchmark = made_up("cirr")
    assert submission.plan(lacking(benchmark, 51), tmp_path / "x.json") == (
        tmp_path / "x.json",
        tmp_path / "x_subset.json",
    )
    with pytest.raises(
        InputError, match="too many images are missing or unreadable for query 100; fti4cir verify cirr"
    ):
        submission.plan(lacking(benchmark, 50), tmp_path / "x.json")  # of which one is the reference


def test_images_that_turned_out_to_be_unreadable_are_not_there(tmp_path):
    benchmark = lacking(made_up("cirr"), 52)
    first = benchmark.queries[0]
    spare, *_ = {50, 51} - {first.reference, *first.within}
    assert submission.plan(benchmark, tmp_path / "x.json", (spare,))
    for lost in ((first.reference,), (50, 51)):
        with pytest.raises(InputError, match="missing or unreadable for query 100"):
            submission.plan(benchmark, tmp_path / "x.json", lost)


@pytest.mark.parametrize("lost", [{"reference": 59}, {"within": (1, 2, 57, 58, 59)}])
def test_images_that_a_query_needs_are_told_beforehand(tmp_path, lost):
    benchmark = made_up("cirr")
    queries = (*benchmark.queries[:2], replace(benchmark.queries[2], **lost), benchmark.queries[3])
    with pytest.raises(InputError, match="too many images are missing or unreadable for query 106"):
        submission.plan(lacking(replace(benchmark, queries=queries), 57), tmp_path / "x.json")


def test_a_refused_submission_leaves_the_old_files(tmp_path):
    benchmark = made_up("cirr")
    whole, groups = rankings(benchmark)
    files = submission.write(benchmark, whole, groups, tmp_path / "mine.json")
    before = [file.read_bytes() for file in files]
    groups[1, 1] = 20
    with pytest.raises(InputError, match="not in the query's group"):
        submission.write(benchmark, whole[:, ::-1], groups, tmp_path / "mine.json")
    assert [file.read_bytes() for file in files] == before
    assert sorted(tmp_path.iterdir()) == sorted(files)


def test_a_full_disk_leaves_the_old_files(tmp_path, monkeypatch):
    benchmark = made_up("cirr")
    whole, groups = rankings(benchmark)
    files = submission.write(benchmark, whole, groups, tmp_path / "mine.json")
    before = [file.read_bytes() for file in files]

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(submission.os, "fsync", full)
    with pytest.raises(InputError, match=r"mine\.json cannot be written: No space left"):
        submission.write(benchmark, whole[:, ::-1], groups, tmp_path / "mine.json")
    assert [file.read_bytes() for file in files] == before
    assert sorted(tmp_path.iterdir()) == sorted(files)


@needs_real
@pytest.mark.parametrize(
    ("name", "split", "file", "shape"),
    [
        ("CIRCO", "val", "submission_examples/submission_val.json", (220, 50)),
        ("CIRCO", "test", "submission_examples/submission_test.json", (800, 50)),
        ("CIRR", "test1", "example_submission_recall.json", (4148, 50)),
        ("CIRR", "test1", "example_submission_recall_subset.json", (4148, 3)),
    ],
)
def test_the_benchmarks_own_examples_pass(name, split, file, shape):
    load = circo.load if name == "CIRCO" else cirr.load
    predictions = submission.read(load(REAL / name, split, allow_missing=True), REAL / name / file)
    assert predictions.ranking.shape == shape
    assert (predictions.ranking >= 0).all()


@needs_real
@pytest.mark.parametrize(
    ("split", "file", "says"),
    [("val", "submission_test.json", "580 entries that are no queries of circo val"),
     ("test", "submission_val.json", "lacks 580 of the 800 queries of circo test")],
)  # fmt: skip
def test_an_example_of_the_other_split(split, file, says):
    with pytest.raises(InputError, match=says):
        submission.read(
            circo.load(REAL / "CIRCO", split, allow_missing=True), REAL / "CIRCO/submission_examples" / file
        )
