"""`fti4cir evaluate` with --submission, --predictions and --cache, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fti4cir import cli
from fti4cir.backbones.clip import ClipEncoder
from standin import save_colour
from terminal import one_error_line
from tinybench import REAL, colour, write_json

pytestmark = pytest.mark.numeric

needs_real = pytest.mark.skipif(not REAL.is_dir(), reason="the benchmarks' annotation files are not beside the project")

PICTURES = 54  # enough for fifty predictions without the reference


@pytest.fixture(scope="module")
def cirr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three queries within one group, of test1 and, with their targets, of val; both splits have the same images."""
    root = tmp_path_factory.mktemp("cirr")
    names = [f"image-{number}" for number in range(PICTURES)]
    for number, name in enumerate(names):
        save_colour(root / f"{name}.png", colour(number))
    for split in ("val", "test1"):
        write_json(root / f"image_splits/split.rc2.{split}.json", {name: f"./{split}/{name}.png" for name in names})
        queries = [
            {
                "pairid": 12063 + number,
                "reference": names[number],
                "caption": f"is number {number}" if number != 1 else " ",  # as in the real annotation
                "img_set": {"members": names[:6]},
                **({"target_hard": names[number + 1]} if split == "val" else {}),
            }
            for number in range(3)
        ]
        write_json(root / f"captions/cap.rc2.{split}.json", queries)
    return root


@pytest.fixture(scope="module")
def circo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("circo")
    ids = [11 * number + 5 for number in range(PICTURES)]
    for number, name in enumerate(ids):
        save_colour(root / f"unlabeled2017/{name:012}.jpg", colour(number))
    images = [{"id": name, "file_name": f"{name:012}.jpg"} for name in ids]
    write_json(root / "annotations/image_info_unlabeled2017.json", {"images": images})
    queries = [{"id": n, "reference_img_id": ids[n], "relative_caption": f"is number {n}"} for n in range(3)]
    write_json(root / "annotations/test.json", queries)
    answers = {"target_img_id": ids[9], "gt_img_ids": [ids[9], ids[8]], "semantic_aspects": ["addition", "negation"]}
    write_json(root / "annotations/val.json", [{**query, **answers} for query in queries])
    return root


def evaluate(name: str, root: Path, *more: str | Path) -> int:
    return cli.run([str(argument) for argument in ["evaluate", name, "--root", root, *more]])


def test_submission_to_cirr(cirr: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ours.json"
    assert evaluate("cirr", cirr, "--split", "test1", "--model", model, "--submission", file) == 0
    out, err = capsys.readouterr()
    assert f"written: {file}\nwritten: {tmp_path / 'ours_subset.json'}\n" in err
    assert "the answers are hidden" in out
    recall, subset = json.loads(file.read_text()), json.loads((tmp_path / "ours_subset.json").read_text())
    assert list(recall) == list(subset) == ["version", "metric", "12063", "12064", "12065"]
    assert (recall["metric"], subset["metric"]) == ("recall", "recall_subset")
    for number in range(3):
        found, within = recall[str(12063 + number)], subset[str(12063 + number)]
        assert (len(found), len(within)) == (50, 3)
        assert f"image-{number}" not in found
        group = [name for name in found if name in {f"image-{n}" for n in range(6)}]
        assert within == group[:3] or len(group) < 3  # the group's best may come after the fiftieth

    for written, count in ((file, 50), (tmp_path / "ours_subset.json", 3)):
        assert evaluate("cirr", cirr, "--split", "test1", "--predictions", written, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        assert (told["valid"], told["queries"], told["predictions"], told["metrics"]) == (True, 3, count, {})


@pytest.mark.parametrize("method", ["image", "text", "sum"])
def test_a_blank_caption_stops_no_submission(cirr: Path, model: Path, tmp_path: Path, method: str) -> None:
    """The other methods are in evaluation/test_every_query.py."""
    file = tmp_path / "ours.json"
    given = ["--split", "test1", "--model", model, "--method", method, "--submission", file]
    assert evaluate("cirr", cirr, *given) == 0
    assert len(json.loads(file.read_text())["12064"]) == 50


def test_a_missing_caption_is_named_at_once(
    cirr: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any image is encoded."""
    (tmp_path / "captions.csv").write_text("image,caption\nimage-0.png,a dog\n")
    monkeypatch.setattr(ClipEncoder, "encode_pixels", lambda *_: pytest.fail("an image was encoded"))
    given = ["--method", "caption", "--captions", tmp_path / "captions.csv", "--model", model]
    assert evaluate("cirr", cirr, *given) == 1
    line = one_error_line(capsys)
    assert "image-1.png has no caption; 2 images have none; caption all of them with `fti4cir caption" in line


def test_submission_to_circo(circo: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "ours.json"
    assert evaluate("circo", circo, "--split", "test", "--model", model, "--submission", file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["split"], told["queries"], told["gallery"], told["metrics"]) == ("test", 3, PICTURES, {})
    assert [path.name for path in tmp_path.iterdir()] == ["ours.json"]
    content = json.loads(file.read_text())
    assert list(content) == ["0", "1", "2"]
    assert all(len(found) == 50 and all(type(one) is int for one in found) for found in content.values())


def test_a_submission_that_needs_an_unreadable_image(
    circo: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = circo / "unlabeled2017" / "000000000016.jpg"  # the second query's reference
    whole = broken.read_bytes()
    broken.write_bytes(b"<html>")
    try:
        more = ["--split", "test", "--model", model, "--allow-missing", "--submission", tmp_path / "ours.json"]
        assert evaluate("circo", circo, *more) == 1
        assert "too many images are missing or unreadable for query 1;" in capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []
    finally:
        broken.write_bytes(whole)


@pytest.mark.parametrize("name", ["cirr", "circo"])
def test_a_file_scores_as_the_run_that_wrote_it(
    cirr: Path, circo: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    root, file = {"cirr": cirr, "circo": circo}[name], tmp_path / "ours.json"
    assert evaluate(name, root, "--model", model, "--method", "sum", "--submission", file, "--json") == 0
    run = json.loads(capsys.readouterr().out)
    metrics, by_value = {}, {}
    for written in sorted(tmp_path.iterdir()):
        assert evaluate(name, root, "--predictions", written, "--json") == 0
        told = json.loads(capsys.readouterr().out)
        metrics.update(told["metrics"])
        by_value = told["by_value"]
        assert (told["benchmark"], told["split"], told["method"], told["model"]) == (name, "val", "predictions", None)
    assert metrics == run["metrics"]
    assert by_value == run["by_value"]


@needs_real
def test_predictions_agree_with_circos_own_evaluation(capsys: pytest.CaptureFixture[str]) -> None:
    """Against the definitions in the benchmark's `src/evaluation.py`, on its example and its annotation."""
    file = REAL / "CIRCO/submission_examples/submission_val.json"
    assert evaluate("circo", REAL / "CIRCO", "--predictions", file, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    queries = json.loads((REAL / "CIRCO/annotations/val.json").read_text())
    content = json.loads(file.read_text())
    precisions, recalls, by_aspect = {}, {}, {}
    for query in queries:
        found = np.array(content[str(query["id"])])
        hits = np.isin(found, query["gt_img_ids"])
        precision = hits.cumsum() * hits / np.arange(1, len(found) + 1)
        for k in (5, 10, 25, 50):
            score = precision[:k].sum() / min(len(query["gt_img_ids"]), k)
            precisions.setdefault(f"mAP@{k}", []).append(score)
            recalls.setdefault(f"R@{k}", []).append((found[:k] == query["target_img_id"]).sum())
            if k == 10:
                for aspect in query["semantic_aspects"]:
                    by_aspect.setdefault(aspect, []).append(score)
    assert told["queries"] == len(queries) == 220
    assert told["gallery"] == 123_403
    assert told["metrics"] == pytest.approx({name: np.mean(each) for name, each in {**precisions, **recalls}.items()})
    assert {name: row["queries"] for name, row in told["by_value"].items()} == {
        name: len(each) for name, each in by_aspect.items()
    }
    for aspect, each in by_aspect.items():
        assert told["by_value"][aspect]["mAP@10"] == pytest.approx(np.mean(each))


@needs_real
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["circo", "CIRCO", "--predictions", "CIRCO/submission_examples/submission_val.json"],
         "valid: 220 queries with 50 predictions each"),
        (["circo", "CIRCO", "--split", "test", "--predictions", "CIRCO/submission_examples/submission_test.json"],
         "valid: 800 queries with 50 predictions each"),
        (["cirr", "CIRR", "--split", "test1", "--predictions", "CIRR/example_submission_recall.json"],
         "valid: 4148 queries with 50 predictions each"),
        (["cirr", "CIRR", "--split", "test1", "--predictions", "CIRR/example_submission_recall_subset.json"],
         "valid: 4148 queries with 3 predictions each"),
    ],
)  # fmt: skip
def test_the_benchmarks_own_examples(capsys: pytest.CaptureFixture[str], arguments: list[str], says: str) -> None:
    name, root, *options, file = arguments
    assert evaluate(name, REAL / root, *options, REAL / file) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[-1] == says
    assert ("the answers are hidden" in out) == ("--split" in options)
    assert ("mAP@10 of the queries with:\n  addition" in out) == ("--split" not in options)


def test_a_broken_file_is_refused_in_one_line(cirr: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write_json(tmp_path / "ours.json", {"version": "rc2", "metric": "recall", "12063": []})
    assert evaluate("cirr", cirr, "--split", "test1", "--predictions", file) == 1
    line = one_error_line(capsys)
    assert str(file) in line
    assert "lacks 2 of the 3 queries" in line


def test_hidden_answers(circo: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("circo", circo, "--split", "test", "--model", model) == 1
    line = one_error_line(capsys)
    assert "hidden" in line
    assert "--submission FILE" in line


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--submission", "x", "--method", "image,text"], "give one --method"),
        (["--submission", "x", "--limit", "2"], "leave --limit out"),
        (["--submission", "gone/x"], "there is no folder gone"),
        (["--predictions", "x", "--submission", "y"], "leave --model and --submission out"),
        (["--predictions", "x", "--cache", "y", "--seed", "1"], "leave --model and --cache and --seed out"),
    ],
)
def test_mistakes(cirr: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str) -> None:
    """All are told before a model is looked for."""
    assert evaluate("cirr", cirr, "--split", "test1", "--model", "gone", *more) == 1
    assert says in one_error_line(capsys)


def test_predictions_that_are_not_there(cirr: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("cirr", cirr, "--split", "test1", "--predictions", "gone") == 1
    assert "The predictions gone cannot be read" in one_error_line(capsys)


@pytest.mark.parametrize("option", ["--submission", "--predictions"])
def test_benchmarks_without_a_server(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str) -> None:
    assert evaluate("fashioniq", tmp_path, option, tmp_path / "x") == 2
    assert f"No such option: {option}" in one_error_line(capsys)


def test_a_cache_gives_the_same_figures(
    circo: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    for more in ([], ["--cache", tmp_path], ["--cache", tmp_path]):
        assert evaluate("circo", circo, "--model", model, "--json", *more) == 0
        told.append(json.loads(capsys.readouterr().out)["metrics"])
    assert told[1] == told[2]
    assert told[0] == pytest.approx(told[1])
    assert list(tmp_path.rglob("image.f32"))
