"""A report's figures, against those of the evaluations and against sums done by hand."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fti4cir.evaluation.results import compare
from fti4cir.report.study import Question, Study, Words
from fti4cir.report.table import comma_separated, curves, figures, hits, markdown
from tinystudy import two_methods


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return two_methods(tmp_path_factory.mktemp("pictures"))


def test_curves_pass_through_the_metrics(made: Study) -> None:
    for evaluation in made.evaluations:
        summary = curves(made, evaluation)
        at = {k: place for place, k in enumerate(summary["k"])}
        assert list(at) == [float(k) for k in range(1, 11)]
        for k in (1, 5, 10):
            assert summary["R"][at[k]] == pytest.approx(evaluation.metrics()[f"R@{k}"])
        for k in (5, 10):
            assert summary["mAP"][at[k]] == pytest.approx(evaluation.metrics()[f"mAP@{k}"])


def test_curves_where_not_all_right_answers_count(made: Study) -> None:
    counted = tuple(question._replace(counted=question.targets[:1]) for question in made.questions)
    first = made.evaluations[0]
    summary = curves(replace(made, questions=counted), first)
    found = [q.targets[0] in row[:5] for q, row in zip(made.questions, first.ranking.tolist(), strict=True)]
    assert summary["R"][summary["k"].index(5)] == pytest.approx(np.mean(found))
    assert summary["mAP"] == curves(made, first)["mAP"]


def test_one_right_answer_may_be_enough(made: Study) -> None:
    first = made.evaluations[0]
    summary = curves(replace(made, one_is_enough=True), first)
    any_found = [bool(set(q.targets) & set(row[:5])) for q, row in zip(made.questions, first.ranking, strict=True)]
    assert summary["R"][summary["k"].index(5)] == pytest.approx(np.mean(any_found))
    assert set(figures(replace(made, one_is_enough=True))["ceiling"]) == {1.0}


def test_ceiling(made: Study) -> None:
    """One, two and three right answers, equally often."""
    assert figures(made)["ceiling"][:3] == pytest.approx([(1 + 1 / 2 + 1 / 3) / 3, (1 + 1 + 2 / 3) / 3, 1])


def test_no_rank_is_no_hit() -> None:
    question = Question(picture=None, text="", targets=(3, 1), counted=(1,))  # type: ignore[arg-type]
    ranking = np.array([[2, 3, 1, -1]])
    assert hits((question,), ranking).tolist() == [[False, True, True, False]]
    assert hits((question,), ranking, counted=True).tolist() == [[False, False, True, False]]


def test_json(made: Study) -> None:
    summary = json.loads(json.dumps(figures(made)))
    first, second = made.evaluations
    assert summary["evaluations"] == [json.loads(json.dumps(one.to_json())) for one in made.evaluations]
    assert (summary["protocol"], summary["model"], summary["missing"]) == ("colours & <more>", "tiny", 0)
    assert {"fti4cir", "torch"} <= set(summary["versions"])
    assert summary["date"].endswith("+00:00")
    assert [one["metric"] for one in summary["differences"]] == list(first.per_query)
    for one in summary["differences"]:
        expected = compare(second, first, metric=one["metric"])
        assert (one["method"], one["against"]) == ("bad", "good")
        assert [one["difference"], *one["interval"]] == pytest.approx(list(expected))
        assert one["significant"] == expected.significant
    assert summary["words"] is None
    assert summary["latent"] == []


def test_words(made: Study) -> None:
    first = made.evaluations[0]
    words = Words(first, np.array([2, 1, 2, 0]), 4, 0.05, ((0, made.evaluations[1]), (4, first)))
    summary = figures(replace(made, words=words, latent=((6, first),)))
    assert summary["words"]["histogram"] == {"0": 1, "1": 1, "2": 2}
    assert [one["most"] for one in summary["words"]["limited"]] == [0, 4]
    assert summary["words"]["limited"][1]["metrics"] == first.metrics()
    assert (summary["words"]["method"], summary["words"]["model"]) == ("good", "tiny")
    assert [(one["num_latent"], one["method"]) for one in summary["latent"]] == [(6, "good")]


def test_markdown(made: Study) -> None:
    summary = figures(made)
    lines = markdown(summary).splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert rows[0] == "| method | mAP@5 | mAP@10 | R@1 | R@5 | R@10 |"
    assert [row.split(" | ")[0] for row in rows] == ["| method", "| ---", "| good", "| bad", "| method", "| ---",
                                                     "| bad - good"]  # fmt: skip
    assert f" {summary['evaluations'][0]['metrics']['mAP@10']:.3f} [" in rows[2]
    significant = [one["significant"] for one in summary["differences"]]
    assert ["*" in cell for cell in rows[-1].split(" | ")[1:]] == significant
    assert any(significant)
    assert len({row.count("|") for row in rows}) == 1
    assert "missing" not in markdown(summary)
    assert "**3 images are missing" in markdown({**summary, "missing": 3})


def test_csv(made: Study) -> None:
    summary = figures(made)
    rows = list(csv.DictReader(io.StringIO(comma_separated(summary))))
    assert [(row["method"], row["metric"]) for row in rows[:2]] == [("good", "mAP@5"), ("good", "mAP@10")]
    assert len(rows) == 10
    assert float(rows[1]["value"]) == summary["evaluations"][0]["metrics"]["mAP@10"]
    assert rows[1]["difference"] == ""
    assert float(rows[6]["difference"]) == summary["differences"][1]["difference"]
    assert float(rows[6]["low"]) <= float(rows[6]["value"]) <= float(rows[6]["high"])
    assert rows[6]["significant"] in {"True", "False"}


def test_several_models_of_one_method(made: Study) -> None:
    first, second = (replace(one, method="ours", model=f"runs/{one.method}") for one in made.evaluations)
    summary = figures(replace(made, evaluations=(first, second)))
    assert summary["labels"] == list(summary["curves"]) == ["ours (good)", "ours (bad)"]
    one = summary["differences"][0]
    assert [one[key] for key in ("method", "model", "against", "against_model")] == [
        "ours", "runs/bad", "ours", "runs/good",
    ]  # fmt: skip
    lines = markdown(summary).splitlines()
    assert ", models runs/good, runs/bad;" in lines[2]
    assert [line.split(" | ")[0] for line in lines if line.startswith("| ours")] == [
        "| ours (good)", "| ours (bad)", "| ours (bad) - ours (good)",
    ]  # fmt: skip
    rows = list(csv.DictReader(io.StringIO(comma_separated(summary))))
    assert [(row["model"], row["difference"] == "") for row in rows] == [("runs/good", True)] * 5 + [
        ("runs/bad", False)
    ] * 5


def test_one_method(tmp_path: Path) -> None:
    both = two_methods(tmp_path)
    summary = figures(replace(both, evaluations=both.evaluations[:1]))
    assert summary["differences"] == []
    assert "Difference" not in markdown(summary)
