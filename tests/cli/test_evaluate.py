"""`fti4cir evaluate` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fti4cir import cli
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.models.saved import save_model
from standin import save_colour
from terminal import one_error_line
from tinyclip import random_inversion

pytestmark = pytest.mark.numeric

COLOURS = {"Red": (220, 30, 30), "Blue": (30, 30, 220), "Black": (10, 10, 10)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images for each colour of shirts and shoes: each is the reference of two queries."""
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
    assert err.count("model: ") == 1
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
    assert weighted["metrics"] == image["metrics"]  # with all the weight on the image
    assert [(one["method"], one["against"]) for one in told["differences"]] == [("image", "text"), ("sum", "text")]
    for one in told["differences"]:
        assert one["metric"] == "mAP@10"
        assert one["difference"] == pytest.approx(image["metrics"]["mAP@10"] - text["metrics"]["mAP@10"])
        low, high = one["interval"]
        assert low <= one["difference"] <= high


def test_figures_that_mean_nothing_are_not_printed(
    shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Asked for any kind, each colour has four right answers: R@1 is at most a quarter, R@5 at most 1."""
    given = ["--model", model, "--method", "image,text", "--keep", ""]
    assert evaluate(shop, *given, "--report", tmp_path / "report") == 0
    out = capsys.readouterr().out
    printed = [line.split()[0] for line in out.splitlines() if line.startswith(("R@", "mAP@")) and "paired" not in line]
    assert printed == ["mAP@5", "mAP@10", "mAP@25", "mAP@50", "R@5", "R@10", "R@50"]
    assert "not shown: R@1; queries have so many right answers that a perfect ranking would reach 0.250 only" in out
    assert evaluate(shop, *given, "--json") == 0
    told = json.loads(capsys.readouterr().out)["evaluations"][0]
    assert 0 <= told["metrics"]["R@1"] <= told["ceilings"]["R@1"] == 0.25
    assert "R@1" in json.loads((tmp_path / "report" / "report.json").read_text())["evaluations"][0]["metrics"]
    page, table = ((tmp_path / "report" / name).read_text() for name in ("index.html", "table.md"))
    assert "| method | mAP@5 | mAP@10 | mAP@25 | mAP@50 | R@5 | R@10 | R@50 |" in table
    assert ">R@1<" not in page
    for text in (page, table):
        assert (
            "Not shown: R@1. Queries have so many right answers that a perfect ranking would reach 0.250 only." in text
        )


def test_for_people(shop: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(shop, "--model", model, "--method", "image,text") == 0
    lines = capsys.readouterr().out.splitlines()
    assert "colour changes, kept kind, maker" in lines[0]
    assert lines[1] == f"24 queries over 12 images, model {model}"
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


def test_an_image_that_cannot_be_read(
    shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = shop / "shirt" / "Red 0.png"
    whole = broken.read_bytes()
    broken.write_bytes(b"<html>")
    try:
        assert evaluate(shop, "--model", model) == 1
        assert "--allow-missing" in one_error_line(capsys)
        for more in ([], ["--report", tmp_path]):
            assert evaluate(shop, "--model", model, "--allow-missing", "--json", *more) == 0
            out, err = capsys.readouterr()
            told = json.loads(out)
            assert (told["gallery"], told["missing"]) == (11, 1)
            assert "counted as missing" in err
    finally:
        broken.write_bytes(whole)


def test_missing_images(shop: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = (shop / "shirt" / "Red 0.png").rename(shop / "elsewhere.png")
    try:
        assert evaluate(shop, "--model", model) == 1
        line = one_error_line(capsys)
        assert "shirt/Red 0" in line
        assert "--allow-missing" in line
        assert evaluate(shop, "--model", model, "--allow-missing") == 0
        assert "1 images are missing: these figures are not comparable" in capsys.readouterr().out
    finally:
        moved.rename(shop / "shirt" / "Red 0.png")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--method", "magic"], "There is no method 'magic'"),
        (["--method", "searle"], "none of searle; train them with `fti4cir train --method searle --backbone "),
        (
            ["--method", "searle-oti"],
            "holds no concepts for searle-oti; train them with `fti4cir train --method searle",
        ),
        (["--method", "caption"], "give them with --captions FILE"),
        (["--captions", "c.csv"], "--captions is for the method caption only"),
        (["--method", "caption", "--captions", "gone.csv"], "--captions: 'gone.csv' does not exist"),
        (["--model", "mini"], "and mini cannot be compared in one pass"),
        (["--image-weight", "2", "--method", "sum"], "from 0 to 1"),
        (["--image-weight", "0.4", "--method", "image"], "for the method sum only"),
        (["--seed", "4"], "give --limit"),
        (["--change", "size"], "no column 'size'"),
        (["--model", "gone"], "There is no model 'gone'"),
        (["--root", "gone"], "The root gone is not a folder"),
    ],
)
def test_mistakes(shop: Path, model: Path, capsys: pytest.CaptureFixture[str], more: list[str], says: str) -> None:
    assert evaluate(shop, "--model", model, *more) == 1
    assert says in one_error_line(capsys)


def test_a_model_without_weights(shop: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(shop, "--model", clip_folder) == 1
    assert "has no inversion weights, so it cannot compose" in one_error_line(capsys)


@pytest.mark.slow
def test_several_models(
    shop: Path, model: Path, encoder: ClipEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = save_model(tmp_path / "k8", random_inversion(1, num_latent=8), encoder=encoder, trained={})
    word = save_model(
        tmp_path / "word", random_inversion(2, max_attributes=0), encoder=encoder, trained={}, method="pic2word"
    )
    models = ["--model", word, "--model", model, "--model", other]
    methods = ["--method", "fti4cir,pic2word,image"]
    assert evaluate(shop, *models, *methods, "--json") == 0
    out, err = capsys.readouterr()
    assert err.splitlines() == [f"model: {one}" for one in (word, model, other)]
    told = json.loads(out)
    expected = [("fti4cir", model), ("fti4cir", other), ("pic2word", word), ("image", word)]
    assert [(one["method"], one["model"]) for one in told["evaluations"]] == [(n, str(m)) for n, m in expected]
    assert [(one["method"], one["model"]) for one in told["differences"]] == [(n, str(m)) for n, m in expected[1:]]
    assert {(one["against"], one["against_model"]) for one in told["differences"]} == {("fti4cir", str(model))}
    for (name, one), row in zip(expected[:3], told["evaluations"], strict=False):
        assert evaluate(shop, "--model", one, "--method", name, "--json") == 0
        assert json.loads(capsys.readouterr().out) == row  # as each is by itself

    assert evaluate(shop, *models) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].endswith(f"models {word}, {model}, {other}")
    assert lines[3].split() == ["pic2word", "fti4cir", f"({model.name})", "fti4cir", "(k8)"]
    assert lines[-1].startswith("  fti4cir (k8) - pic2word: ")

    report = tmp_path / "report"
    assert evaluate(shop, *models, *methods, "--report", report) == 0
    figures = json.loads((report / "report.json").read_text())
    assert [one["num_latent"] for one in figures["latent"]] == [6, 8]
    assert figures["labels"] == [f"fti4cir ({model.name})", "fti4cir (k8)", "pic2word", "image"]


def test_a_model_that_no_method_stands_on(
    shop: Path, model: Path, encoder: ClipEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    word = save_model(
        tmp_path / "word", random_inversion(2, max_attributes=0), encoder=encoder, trained={}, method="pic2word"
    )
    assert evaluate(shop, "--model", model, "--model", word, "--method", "fti4cir") == 0
    assert f"left out: {word}; none of the methods stands on it" in capsys.readouterr().err


def test_captions(shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{kind}/{colour} {n}.png" for kind in ("shirt", "shoe") for colour in COLOURS for n in range(2)]
    captions = tmp_path / "captions.jsonl"
    captions.write_text("\n".join(json.dumps({"image": name, "caption": f"a {name[:-6]}"}) for name in names))
    given = ["--model", model, "--method", "caption,text", "--json"]
    assert evaluate(shop, *given, "--captions", captions) == 0
    told = json.loads(capsys.readouterr().out)["evaluations"]
    assert [one["method"] for one in told] == ["caption", "text"]
    assert told[0]["metrics"] != told[1]["metrics"]
    captions.write_text("\n".join(captions.read_text().splitlines()[1:]))
    assert evaluate(shop, *given, "--captions", captions) == 1
    assert "shirt/Red 0.png has no caption" in one_error_line(capsys)


@pytest.mark.parametrize("cached", [False, True])
def test_ctrl_c_says_what_is_kept(
    shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
    cached: bool,
) -> None:  # fmt: skip
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ClipEncoder, "encode_pixels", interrupted)
    assert evaluate(shop, "--model", model, *([f"--cache={tmp_path}"] if cached else [])) == 130
    line = one_error_line(capsys)
    assert ("what is done is kept, and the same command goes on from there." in line) == cached


def test_a_template_without_a_place(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate(shop, template="in red") == 1
    assert "{value}" in one_error_line(capsys)


def test_what_a_benchmark_needs(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "attributes", "--root", str(shop)]) == 2
    assert "Missing option '--table'" in one_error_line(capsys)
    assert evaluate(shop, "--split", "val") == 2
    assert "No such option: --split" in one_error_line(capsys)


NAMES = "available are: circo, cirr, fashioniq, attributes, descriptions."


def test_an_unknown_benchmark(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["evaluate", "coco", "--root", str(shop)]) == 2
    assert f"There is no benchmark 'coco'; {NAMES}" in one_error_line(capsys)
    assert cli.run(["evaluate"]) == 2
    assert f"Give a benchmark; {NAMES}" in one_error_line(capsys)
