"""`fti4cir evaluate` on published benchmarks, as a user types it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import fti4cir
import tinybench
from terminal import one_error_line, run

pytestmark = pytest.mark.numeric

FIXED = ["benchmark", "split", "method", "model", "queries", "gallery", "metrics"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "metrics", "queries", "gallery"),
    [
        ("cirr", ["R@1", "R@5", "R@10", "R@50", "Rs@1", "Rs@2", "Rs@3"], 8, 12),
        ("circo", ["mAP@5", "mAP@10", "mAP@25", "mAP@50", "R@5", "R@10", "R@25", "R@50"], 2, 8),
        ("fashioniq", ["R@10", "R@50", *(f"{c} R@{k}" for c in ("dress", "shirt", "toptee") for k in (10, 50))], 6, 15),
    ],
)
def test_evaluate(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    metrics: list[str],
    queries: int,
    gallery: int,
) -> None:
    getattr(tinybench, name)(tmp_path)
    arguments = ["evaluate", name, "--root", tmp_path, "--model", "mini", "--method", "image,sum"]
    assert run(*arguments, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert [one["method"] for one in told["evaluations"]] == ["image", "sum"]
    for one in told["evaluations"]:
        assert set(FIXED) <= set(one)
        assert (one["benchmark"], one["split"], one["queries"], one["gallery"]) == (name, "val", queries, gallery)
        assert list(one["metrics"]) == metrics
        assert all(0 <= figure <= 1 for figure in one["metrics"].values())
        assert one["missing"] == 0
    assert [one["metric"] for one in told["differences"]] == [{"cirr": "R@5", "circo": "mAP@10"}.get(name, "R@10")]
    assert run(*arguments) == 0
    out = capsys.readouterr().out
    assert "images" in out.splitlines()[0]  # the protocol
    assert all(f"\n{metric} " in out for metric in metrics)


def evaluated(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, Any]:
    assert run("evaluate", *arguments, "--model", "mini", "--method", "image", "--json") == 0
    told: dict[str, Any] = json.loads(capsys.readouterr().out)
    return told


def orders(root: Path, pictures: str) -> dict[str, list[str]]:
    """For each image, all images by falling likeness to it, as the benchmarks' own code sorts them: all at once."""
    paths = sorted((root / pictures).iterdir())
    features = fti4cir.load("mini").encode_images(paths).double()
    sorted_by_likeness = (features @ features.T).argsort(dim=1, descending=True, stable=True)
    return {
        path.stem: [paths[other].stem for other in others]
        for path, others in zip(paths, sorted_by_likeness.tolist(), strict=True)
    }


@pytest.mark.slow
def test_cirr_as_its_authors_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The method `image` asks for what is like the reference, which must itself be taken out."""
    tinybench.cirr(tmp_path)
    found = evaluated(capsys, "cirr", "--root", tmp_path)["metrics"]
    order = orders(tmp_path, "dev")
    queries = json.loads((tmp_path / "cirr" / "captions" / "cap.rc2.val.json").read_text())
    hits: dict[str, list[bool]] = {name: [] for name in found}
    for query in queries:
        others = [name for name in order[query["reference"]] if name != query["reference"]]
        group = [name for name in others if name in query["img_set"]["members"]]
        for k in (1, 5, 10, 50):
            hits[f"R@{k}"].append(query["target_hard"] in others[:k])
        for k in (1, 2, 3):
            hits[f"Rs@{k}"].append(query["target_hard"] in group[:k])
    assert found == pytest.approx({name: sum(each) / len(queries) for name, each in hits.items()})
    assert 0 < found["R@5"] < 1


@pytest.mark.slow
def test_circo_as_its_authors_count(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here the reference stays, and it comes first."""
    tinybench.circo(tmp_path)
    told = evaluated(capsys, "circo", "--root", tmp_path)
    order = orders(tmp_path, "COCO2017_unlabeled/unlabeled2017")
    queries = json.loads((tmp_path / "annotations" / "val.json").read_text())
    figures: dict[str, list[float]] = {name: [] for name in told["metrics"]}
    for query in queries:
        ranked = [int(name) for name in order[f"{query['reference_img_id']:012}"]]
        assert ranked[0] == query["reference_img_id"]
        targets = query["gt_img_ids"]
        for k in (5, 10, 25, 50):
            seen = precision = 0.0
            for place, name in enumerate(ranked[:k], start=1):
                if name in targets:
                    seen += 1
                    precision += seen / place
            figures[f"mAP@{k}"].append(precision / min(len(targets), k))
            figures[f"R@{k}"].append(query["target_img_id"] in ranked[:k])
    assert told["metrics"] == pytest.approx({name: sum(each) / len(each) for name, each in figures.items()})
    assert told["by_value"]["negation"]["mAP@10"] == pytest.approx(figures["mAP@10"][0])
    assert {value: row["queries"] for value, row in told["by_value"].items()} == {"addition": 2, "negation": 1}


@pytest.mark.slow
def test_missing_images_are_misses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """R@50 finds everything among twelve images, so what is not found is what is missing."""
    tinybench.cirr(tmp_path)
    (tmp_path / "dev" / "dev-0-1-img0.png").unlink()
    assert run("evaluate", "cirr", "--root", tmp_path) == 1
    assert "--allow-missing" in one_error_line(capsys)
    told = evaluated(capsys, "cirr", "--root", tmp_path, "--allow-missing")
    assert (told["queries"], told["gallery"], told["missing"]) == (8, 11, 1)
    assert told["metrics"]["R@50"] == 6 / 8  # one query lacks its target, one its reference
    assert "1 of 12 images are missing" in told["protocol"]


def test_one_category_and_a_smaller_gallery(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tinybench.fashioniq(tmp_path)
    told = evaluated(capsys, "fashioniq", "--root", tmp_path, "--category", "toptee", "--gallery", "union")
    assert (told["benchmark"], told["queries"], told["gallery"]) == ("fashioniq-toptee", 3, 4)
    assert list(told["metrics"]) == ["R@10", "R@50"]
    assert "references and targets only" in told["protocol"]


@pytest.mark.slow
def test_a_sample(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tinybench.cirr(tmp_path)
    told = evaluated(capsys, "cirr", "--root", tmp_path, "--limit", 3)
    assert (told["queries"], told["gallery"]) == (3, 12)
    assert "at most 3 queries drawn with seed 0" in told["protocol"]


def test_what_evaluate_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tinybench.cirr(tmp_path, split="test1")
    assert run("evaluate", "cirr", "--root", tmp_path, "--split", "test1") == 1
    assert "are hidden" in one_error_line(capsys)
    assert run("evaluate", "cirr", "--root", tmp_path, "--split", "test1", "--keep", "kind") == 2
    assert "No such option: --keep" in one_error_line(capsys)
    for path in (tmp_path / "test1").iterdir():
        path.unlink()
    assert run("evaluate", "cirr", "--root", tmp_path, "--split", "test1", "--allow-missing") == 1
    assert "None of the images of cirr is under" in one_error_line(capsys)
