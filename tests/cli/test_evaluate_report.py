"""`fti4cir evaluate ... --report` and `fti4cir evaluate descriptions` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fti4cir import cli
from standin import save_colour
from terminal import one_error_line
from tinybench import fashioniq

COLOURS = {"red": (220, 30, 30), "blue": (30, 30, 220), "black": (10, 10, 10)}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two images for each colour, a table of them, and captions."""
    folder = tmp_path_factory.mktemp("shop")
    rows, captions = ["file,colour"], ["image,caption"]
    for colour, pixel in COLOURS.items():
        for number in range(2):
            save_colour(folder / f"{colour}{number}.png", (pixel[0], pixel[1] + 9 * number, pixel[2]))
            rows.append(f"{colour}{number}.png,{colour}")
            captions += [f"{colour}{number}.png,a {colour} dog", f"{colour}{number}.png,cat {number}"]
    (folder / "table.csv").write_text("\n".join(rows))
    (folder / "captions.csv").write_text("\n".join(captions))
    return folder


def evaluate(benchmark: str, *more: str | Path) -> int:
    return cli.run(["evaluate", benchmark, *map(str, more)])


def attributes(shop: Path, *more: str | Path) -> int:
    table = ["--root", shop, "--table", shop / "table.csv", "--id", "file", "--change", "colour"]
    return evaluate("attributes", *table, "--template", "in {value}", *more)


@pytest.mark.slow
def test_report(shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--model", model, "--method", "text,fti4cir", "--json"]
    assert attributes(shop, *given) == 0
    without = json.loads(capsys.readouterr().out)
    assert attributes(shop, *given, "--report", tmp_path / "report") == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == without  # a report changes no figure
    assert f"written: {tmp_path / 'report' / 'index.html'}" in err
    told = json.loads((tmp_path / "report" / "report.json").read_text())
    assert told["evaluations"] == without["evaluations"]
    assert [one["most"] for one in told["words"]["limited"]] == [0, 1, 2, 4]
    assert "in blue" in (tmp_path / "report" / "index.html").read_text()


def test_one_page_a_part(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = fashioniq(tmp_path / "fashioniq", categories=("dress", "shirt", "toptee"))
    given = ["--root", root, "--model", model, "--method", "image", "--report", tmp_path / "report"]
    assert evaluate("fashioniq", *given) == 0
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"dress", "shirt", "toptee"}
    assert "is red" in (tmp_path / "report" / "dress" / "index.html").read_text()


def test_descriptions(shop: Path, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--root", shop, "--table", shop / "captions.csv", "--model", model]
    assert evaluate("descriptions", *given, "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["benchmark"], told["method"], told["queries"], told["gallery"]) == ("descriptions", "fti4cir", 6, 5)
    assert list(told["metrics"]) == ["R@1", "R@5", "R@10"]

    report = tmp_path / "report"
    assert evaluate("descriptions", *given, "--method", "fti4cir,image", "--limit", "4", "--report", report) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].startswith("4 queries over 5 captions")
    assert lines[-1].startswith("  image - fti4cir: ")
    assert "a red dog" in (report / "index.html").read_text()


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--table", "captions.csv", "--method", "sum"], "'sum' describes no image"),
        (["--table", "gone.csv"], "--table: 'gone.csv' does not exist"),
        (["--table", "captions.csv", "--report", "table.csv"], "table.csv is a file; give another --report"),
    ],
)
def test_mistakes(
    shop: Path,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    says: str,
) -> None:
    monkeypatch.chdir(shop)
    assert evaluate("descriptions", "--root", shop, "--model", model, *more) == 1
    assert says in one_error_line(capsys)


def test_descriptions_have_few_options(shop: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate("descriptions", "--root", shop) == 2
    assert "Missing option '--table'" in one_error_line(capsys)
    for option in ("--split", "--submission", "--predictions", "--cache", "--captions", "--image-weight"):
        assert evaluate("descriptions", "--root", shop, "--table", shop / "captions.csv", option, "x") == 2
        assert f"No such option: {option}" in one_error_line(capsys)
