"""`fti4cir evaluate` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fti4cir import checkpoint, cli
from fti4cir.backbones.clip import ClipEncoder
from standin import save_colour
from terminal import one_error_line
from tinyclip import clip_folder, encoder, random_inversion

__all__ = ["clip_folder", "encoder"]

COLOURS = {"Red": (220, 30, 30), "Blue": (30, 30, 220), "Black": (10, 10, 10)}


@pytest.fixture(scope="module")
def model(encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return checkpoint.save(tmp_path_factory.mktemp("model"), random_inversion(), encoder, {})


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two pictures for each colour of shirts and shoes: each is the reference of two queries."""
    folder = tmp_path_factory.mktemp("shop")
    rows = ["file,kind,colour,maker"]
    for kind in ("shirt", "shoe"):
        for colour, pixel in COLOURS.items():
            for number in range(2):
                name = f"{kind}/{colour} {number}"
                save_colour(folder / f"{name}.png", (pixel[0], pixel[1] + 9 * number, pixel[2]))
                rows.append(f"{name},{kind},{colour},x")
    (folder / "table.csv").write_text("\n".join(rows))
    return folder


def evaluate(shop: Path, *more: str | Path, template: str = "in {value}") -> int:
    arguments = ["evaluate", "attributes", "--root", shop, "--table", shop / "table.csv", "--id", "file"]
    arguments += ["--change", "colour", "--keep", "kind,maker", "--template", template, *more]
    return cli.run([str(argument) for argument in arguments])


def test_json_of_one_method(shop: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(shop, "--model", model, "--json") == 0
    out, err = capsys.readouterr()
    assert err.count("model: ") == err.count("--model vit-l-14") == 1
    told = json.loads(out)
    fixed = ["benchmark", "split", "method", "model", "queries", "gallery", "metrics"]
    assert set(fixed) <= set(told)
    assert [told[name] for name in fixed[:-1]] == ["attributes", "all", "fti4cir", str(model), 24, 12]
    assert {"R@10", "mAP@10"} <= set(told["metrics"])
    assert all(0 <= figure <= 1 for figure in told["metrics"].values())
    assert "colour changes, kept kind, maker, 'in {value}'" in told["protocol"]


def test_several_methods(shop: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    methods = ["--method", "text,image", "--method", "sum", "--method", "image", "--image-weight", "1"]
    assert evaluate(shop, "--model", model, "--json", *methods) == 0
    told = json.loads(capsys.readouterr().out)
    assert list(told) == ["evaluations", "differences"]
    text, image, weighted = told["evaluations"]
    assert [one["method"] for one in told["evaluations"]] == ["text", "image", "sum"]
    assert weighted["metrics"] == image["metrics"]  # with all the weight on the picture
    assert [(one["method"], one["against"]) for one in told["differences"]] == [("image", "text"), ("sum", "text")]
    for one in told["differences"]:
        assert one["metric"] == "mAP@10"
        assert one["difference"] == pytest.approx(image["metrics"]["mAP@10"] - text["metrics"]["mAP@10"])
        low, high = one["interval"]
        assert low <= one["difference"] <= high


def test_for_people(shop: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(shop, "--model", model, "--method", "image,text") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "colour changes, kept kind, maker" in lines[0]
    assert lines[1] == f"24 queries over 12 pictures, model {model}"
    assert lines[3].split() == ["image", "text"]
    assert lines[4].split()[0] == "mAP@5"
    assert lines[4].count("[") == 2
    assert lines[-2] == "mAP@10, paired by query:"
    assert lines[-1].startswith("  text - image: ")


def test_a_sample_of_the_queries(shop: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(shop, "--model", model, "--json", "--limit", "5", "--seed", "3") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["queries"], told["gallery"]) == (5, 12)
    assert told["protocol"].endswith("at most 5 queries drawn with seed 3")


def test_missing_pictures(shop: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = (shop / "shirt" / "Red 0.png").rename(shop / "elsewhere.png")
    try:
        assert evaluate(shop, "--model", model) == 1
        line = one_error_line(capsys)
        assert "shirt/Red 0" in line
        assert "--allow-missing" in line
        assert evaluate(shop, "--model", model, "--allow-missing") == 0
        assert "1 pictures are missing: these figures are not comparable" in capsys.readouterr().out
    finally:
        moved.rename(shop / "shirt" / "Red 0.png")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--method", "magic"], "There is no method 'magic'"),
        (["--method", "searle"], "'searle' is not available yet"),
        (["--image-weight", "2", "--method", "sum"], "from 0 to 1"),
        (["--change", "size"], "no column 'size'"),
        (["--split", "val"], "no splits"),
        (["--model", "gone"], "There is no model 'gone'"),
        (["--model", "CLIP"], "has no inversion weights, so it cannot compose"),
        (["--root", "gone"], "The root gone is not a folder"),
    ],
)
def test_mistakes(
    shop: Path, model: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str
) -> None:
    given = [argument.replace("CLIP", str(clip_folder)) for argument in more]
    assert evaluate(shop, "--model", model, *given) == 1
    assert says in one_error_line(capsys)


def test_a_template_without_a_place(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(shop, template="in red") == 1
    assert "{value}" in one_error_line(capsys)


def test_what_a_benchmark_needs(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "attributes", "--root", str(shop)]) == 1
    assert "needs --table, --id, --change and --template" in one_error_line(capsys)
    assert cli.run(["evaluate", "coco", "--root", str(shop)]) == 2
    assert "attributes" in one_error_line(capsys)
