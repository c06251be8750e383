"""The command line as a user types it."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import fti4cir
from fti4cir import cli
from fti4cir.errors import ModelError
from fti4cir.models import names
from fti4cir.search import demo, indexing
from fti4cir.search.locations import default_location
from fti4cir.search.schema import Row, StoreInfo
from fti4cir.search.store import Store
from standin import ColourModel, save_colour

# A process of its own, with the stand-in for the bundled model.
PROGRAM = """
import sys, fti4cir
from standin import ColourModel
fti4cir.load = lambda name: ColourModel(seconds_a_batch={seconds})
from fti4cir.__main__ import main
main()
"""


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Load the stand-in instead of real weights; gives the names that were asked for."""
    asked: list[str] = []

    def load(name: str) -> ColourModel:
        asked.append(name)
        return ColourModel(name=name, fingerprint="colours-1" if name == "mini" else f"colours-{name}")

    monkeypatch.setattr(fti4cir, "load", load, raising=False)
    monkeypatch.setattr(names, "fetch", names.check)  # nothing to download
    return asked


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "my photos"
    save_colour(folder / "red.jpg", (230, 20, 20))
    save_colour(folder / "más" / "синий.png", (20, 20, 230))
    save_colour(folder / "magenta.webp", (230, 20, 230))
    save_colour(folder / "green.gif", (20, 230, 20))
    (folder / "broken.jpg").write_text("<html>not found</html>")
    return folder


def run(*arguments: str | Path) -> int:
    return cli.run([str(argument) for argument in arguments])


def start(*arguments: str | Path, seconds: float = 0.0, **options: object) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM.format(seconds=seconds), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would their children.
        **{"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options},
    )


def one_error_line(err: str) -> str:
    lines = [line for line in err.splitlines() if line.startswith("fti4cir: error: ")]
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    return lines[0]


class TestIndex:
    def test_json_fields_are_exact(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("index", photos, "--json") == 0
        out, err = capsys.readouterr()
        report = json.loads(out)
        assert list(report) == ["added", "updated", "unchanged", "removed", "moved", "skipped", "total"]
        assert [report[key] for key in ("added", "updated", "unchanged", "removed", "total")] == [4, 0, 0, 0, 4]
        assert [list(skip) for skip in report["skipped"]] == [["path", "reason"]]
        assert report["skipped"][0]["path"] == str(photos / "broken.jpg")
        assert "broken.jpg" in err

    def test_for_people(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("index", photos) == 0
        assert capsys.readouterr().out == "4 images: 4 added, 0 updated, 0 unchanged, 0 removed, 0 moved, 1 skipped\n"
        assert run("index", photos) == 0
        assert "0 added, 0 updated, 4 unchanged" in capsys.readouterr().out

    def test_images_of_other_kinds_are_named_in_one_line_a_kind(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        folder = tmp_path / "raw"
        folder.mkdir()
        for name in ("a.CR2", "b.nef", "c.psd", "notes.txt"):
            (folder / name).touch()
        assert run("index", folder) == 0
        out, err = capsys.readouterr()
        assert out.startswith("0 images")
        lines = [line for line in err.splitlines() if "not supported" in line]
        assert len(lines) == 2
        assert "2 camera RAW files (.cr2, .nef)" in lines[1]
        assert "1 Photoshop file (.psd)" in lines[0]
        assert run("search", folder, "--text", "red") == 0
        assert "camera RAW" in capsys.readouterr().err
        assert run("index", folder, "--json") == 0
        skipped = json.loads(capsys.readouterr().out)["skipped"]
        assert [Path(one["path"]).name for one in skipped] == ["a.CR2", "b.nef", "c.psd"]
        assert all("export it as JPEG or PNG" in one["reason"] for one in skipped)

    def test_an_image_cut_short_is_indexed_and_said_to_be_cut(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        path = save_colour(tmp_path / "photos" / "cut.bmp", "red", (60, 60))
        path.write_bytes(path.read_bytes()[:-2000])
        assert run("index", tmp_path / "photos") == 0
        out, err = capsys.readouterr()
        assert out.startswith("1 image: 1 added")
        assert f"warning: The file '{path}' is cut short or damaged: 20 % of the image is missing" in err
        assert run("search", tmp_path / "photos", "--image", path) == 0
        assert capsys.readouterr().err.count("is cut short") == 1

    def test_another_place(self, photos: Path, tmp_path: Path) -> None:
        assert run("index", photos, "--store", tmp_path / "s") == 0
        assert len(Store.open(tmp_path / "s")) == 4
        assert not default_location(photos).exists()

    def test_the_model_is_named_and_a_better_one_once_a_folder(
        self, photos: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        hints = []
        for command in (["index", photos], ["index", photos], ["search", photos, "--text", "red"]):
            assert run(*command) == 0
            err = capsys.readouterr().err
            assert err.count("model: mini") == 1
            hints.append(err.count("--model vit-l-14"))
        assert hints == [1, 0, 0]

    def test_no_hint_before_an_error(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("search", photos, "--text", "red", "--where", "1 / (width - width) > 0") == 1
        err = capsys.readouterr().err
        assert "vit-l-14" not in err
        assert "Cannot use the condition" in one_error_line(err)
        assert "ivide by zero" in one_error_line(err)

    def test_a_store_is_brought_up_to_date_with_its_own_model(self, photos: Path, models: list[str]) -> None:
        assert run("index", photos, "--model", "vit-l-14") == 0
        assert run("index", photos) == 0
        assert run("search", photos, "--text", "red") == 0
        assert models == ["vit-l-14"] * 3


class TestOneIndexAModel:
    def test_another_model_gets_an_index_of_its_own(
        self, photos: Path, models: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        query = ["search", photos, "--text", "red", "--json"]
        assert run(*query) == 0
        assert run(*query, "--model", "vit-l-14") == 0
        assert "4 added" in capsys.readouterr().err  # made on demand
        places = sorted(path.name for path in default_location(photos).iterdir() if path.name[0].isdigit())
        assert places == ["2-vit-l-14"]
        assert len(Store.open(default_location(photos) / "2-vit-l-14")) == 4
        assert run(*query, "--model", "mini") == 0
        assert run(*query, "--model", "vit-l-14") == 0
        assert "added" not in capsys.readouterr().err  # each is kept
        assert models == ["mini", "vit-l-14", "mini", "vit-l-14"]

    def test_without_a_model_the_index_that_was_made_last(self, photos: Path, models: list[str]) -> None:
        for name in ("vit-l-14", "someone/clip", "mini"):
            assert run("index", photos, "--model", name) == 0
        save_colour(photos / "new.png", "white")
        assert run("index", photos, "--model", "vit-l-14") == 0  # to bring one up to date changes nothing
        assert run("search", photos, "--text", "red") == 0
        assert models[-1] == "mini"
        places = sorted(path.name for path in default_location(photos).iterdir() if path.name[0].isdigit())
        assert places == ["2-clip", "3-mini"]

    def test_a_store_of_another_model_is_refused_before_that_is_loaded(
        self, photos: Path, tmp_path: Path, models: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("index", photos, "--store", tmp_path / "s") == 0
        models.clear()
        capsys.readouterr()
        for command in (["search", tmp_path / "s", "--text", "red"], ["index", photos, "--store", tmp_path / "s"]):
            assert run(*command, "--model", "vit-l-14") == 1
            message = one_error_line(capsys.readouterr().err)
            assert "was made with the model 'mini', not 'vit-l-14'; leave the model out" in message
        assert models == []


class TestSearch:
    def search(self, capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> list[str]:
        assert run("search", *arguments, "--json") == 0
        answer = json.loads(capsys.readouterr().out)
        assert answer["model"] == "mini"
        scores = [result["score"] for result in answer["results"]]
        assert scores == sorted(scores, reverse=True)
        assert all(list(result) == ["path", "score"] and Path(result["path"]).is_file() for result in answer["results"])
        return [Path(result["path"]).stem for result in answer["results"]]

    def test_a_folder_is_indexed_on_first_use_and_kept_up_to_date(
        self, photos: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.search(capsys, photos, "--text", "green", "-k", "1") == ["green"]
        save_colour(photos / "purer.png", (0, 255, 0))
        (photos / "green.gif").unlink()
        assert self.search(capsys, photos, "--text", "green", "-k", "1") == ["purer"]

    def test_a_store(self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        run("index", photos, "--store", tmp_path / "s")
        capsys.readouterr()
        (photos / "green.gif").rename(photos / "renamed.gif")  # a store is searched as it is
        assert run("search", tmp_path / "s", "--text", "green", "--json", "-k", "1") == 0
        assert json.loads(capsys.readouterr().out)["results"][0]["path"].endswith("green.gif")

    def test_every_kind_of_query(self, photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
        red = photos / "red.jpg"
        assert self.search(capsys, photos, "--image", red)[0] == "magenta"
        assert self.search(capsys, photos, "--image", red, "--text", "blue", "-k", "1") == ["magenta"]
        assert "red" not in self.search(capsys, photos, "--image", red, "--text", "red")
        assert self.search(capsys, photos, "--image", red, "--include-reference")[0] == "red"
        two = self.search(capsys, photos, "--image", red, "--image", photos / "más" / "синий.png")
        assert two == ["magenta", "green"]
        assert self.search(capsys, photos, "--text", "red blue", "--without", "blue", "-k", "1") == ["red"]
        assert self.search(capsys, photos, "--text", "red", "--where", "path LIKE 'más/%'") == ["синий"]

    def test_for_people(
        self, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(photos)
        assert run("search", ".", "--text", "blue", "-k", "2") == 0
        head, first, _ = capsys.readouterr().out.splitlines()
        assert head.split() == ["rank", "score", "image"]
        assert first.split() == ["1", "1.000", "más/синий.png"]
        assert run("search", ".", "--text", "blue", "--where", "width > 9999") == 0
        assert capsys.readouterr().out == "no images\n"


class TestMistakes:
    @pytest.mark.parametrize(
        ("arguments", "status", "says"),
        [
            (["search", "PHOTOS"], 1, "give --image, --text, or both"),
            (["search", "PHOTOS", "--without", "red"], 1, "give --image, --text, or both"),
            (["search", "PHOTOS", "--text", "  "], 1, "The text is empty"),
            (["search", "PHOTOS", "--image", "gone.jpg"], 2, "gone.jpg"),
            (["search", "PHOTOS", "--image", "PHOTOS"], 2, "is a directory"),
            (["search", "PHOTOS", "--image", "PHOTOS/broken.jpg", "--text", "red"], 1, "broken.jpg"),
            (["search", "PHOTOS", "--text", "red", "--where", "nope = 1"], 1, "No field named nope"),
            (["search", "PHOTOS", "--text", "red", "-k", "0"], 2, "-k"),
            (["search", "PHOTOS", "--text", "red", "-k", "many"], 2, "-k"),
            (["search", "PHOTOS/gone", "--text", "red"], 1, "There is no folder"),
            (["search", "PHOTOS/red.jpg", "--text", "red"], 1, "is not a folder"),
            (["search", "PHOTOS", "--text", "red", "--model", "unknown"], 1, "There is no model 'unknown'"),
            (["search", "--text", "red"], 2, "SOURCE"),
            (["index", "PHOTOS/gone"], 1, "There is no folder"),
            (["index", "PHOTOS/red.jpg"], 1, "is not a folder"),
            (
                ["index", "PHOTOS", "--store", "PHOTOS/red.jpg"],
                1,
                "red.jpg' is a file, not a folder; give another --store",
            ),
            (["search", "PHOTOS", "--text", "red", "--where", "1=1) or (1=1"], 1, "brackets do not match"),
            (["search", "PHOTOS", "--text", "red", "--where", ""], 1, "Expected: an expression"),
            (["search", "PHOTOS", "--text", "red", "--without", "\udcff"], 1, "without is not valid UTF-8"),
            (["search", "PHOTOS", "--text", "\udcff red"], 1, "text is not valid UTF-8: '\\udcff red'"),
            (["explain", "PHOTOS/red.jpg", "--output", "PHOTOS/gone/x.html"], 1, "There is no folder"),
            (["explain", "PHOTOS/red.jpg", "--output", "PHOTOS"], 1, "--output takes a file's name"),
            (["explain", "PHOTOS/broken.jpg"], 1, "it is not an image"),
            (["index", "PHOTOS", "--colour"], 2, "--colour"),
            (["find"], 2, "find"),
            (["demo", "--folder", "PHOTOS/gone"], 1, "There is no folder"),
        ],
    )
    def test_one_line_and_no_traceback(
        self, photos: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, says: str
    ) -> None:
        assert run(*(argument.replace("PHOTOS", str(photos)) for argument in arguments)) == status
        out, err = capsys.readouterr()
        assert out == ""
        assert says in one_error_line(err)

    def test_an_error_of_the_system(
        self, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", "/somewhere")

        monkeypatch.setattr(indexing, "index_folder", full)
        assert run("index", photos) == 1
        assert one_error_line(capsys.readouterr().err).endswith("No space left on device: /somewhere")

    @pytest.mark.slow
    def test_a_disk_that_takes_no_more(self, photos: Path) -> None:
        run("index", photos)  # the table is there; only its rows cannot grow
        for i in range(50):
            save_colour(photos / f"{i}.png", (i, i, i))
        limit = (1000, 1000)  # bytes a file
        process = start("index", photos, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
        _, err = process.communicate(timeout=60)
        assert process.returncode == 1
        assert "Cannot write to the index" in one_error_line(err)
        assert run("index", photos) == 0
        assert len(Store.open(default_location(photos))) == 54


@pytest.mark.slow
def test_ctrl_c_loses_nothing(tmp_path: Path) -> None:
    for i in range(160):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))
    process = start("index", tmp_path, "--json", seconds=0.5)
    wait_until = time.monotonic() + 60
    while not default_location(tmp_path).exists() and time.monotonic() < wait_until:
        time.sleep(0.05)
    time.sleep(1.5)  # two or three batches of five
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "what is done is kept" in one_error_line(err)
    kept = len(Store.open(default_location(tmp_path)))
    assert 0 < kept < 160
    process = start("index", tmp_path, "--json")
    out, _ = process.communicate(timeout=60)
    report = json.loads(out)
    assert (report["added"], report["unchanged"], report["total"]) == (160 - kept, kept, 160)


class TestDemo:
    def test_images_of_ones_own(
        self, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (photos / "broken.jpg").unlink()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
        assert run("demo", "--folder", photos) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"4 images of {photos}\n")
        assert 'green.gif, but "in red"' in out
        assert "fti4cir search FOLDER" in out
        assert not default_location(photos).exists()  # nothing is left in the folder

    def test_photos_within_scikit_image(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("skimage")
        monkeypatch.setattr(demo, "_STAMPS", Path("/nowhere"))
        chosen = demo.choose_images()
        for example in chosen.examples:
            assert example.image is None or (chosen.folder / example.image).is_file()

    def test_no_images(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(demo, "_STAMPS", Path("/nowhere"))
        monkeypatch.setattr(demo, "find_spec", lambda name: None)
        assert run("demo") == 1
        assert "--folder" in one_error_line(capsys.readouterr().err)
        assert run("demo", "--folder", tmp_path) == 1
        assert "There are no images" in one_error_line(capsys.readouterr().err)


class TestProgram:
    def test_a_mistyped_folder_or_a_blank_text_needs_no_database(self, tmp_path: Path) -> None:
        """LanceDB takes seconds to import."""
        code = (
            "import sys\nfrom fti4cir.cli import run\n"
            "for line in (['search', 'gone', '--text', 'a'], ['search', '.', '--text', ' ']):\n"
            "    print(run(line), 'lancedb' in sys.modules)\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.stdout.splitlines() == ["1 False", "1 False"], done.stderr
        assert "There is no folder 'gone'" in done.stderr
        assert "The text is empty" in done.stderr

    def test_what_is_wrong_with_an_option_is_a_sentence(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run("search", ".", "-k", "0") == 2
        assert one_error_line(capsys.readouterr().err).endswith(" equal to 1. See fti4cir --help.")
        assert run("serch") == 2
        assert one_error_line(capsys.readouterr().err).endswith("'search'? See fti4cir --help.")

    def test_help_needs_no_torch_and_names_every_command(self) -> None:
        code = (
            "import sys\nfrom fti4cir.cli import run\nstatus = run(['--help'])\n"
            "heavy = {'torch', 'lancedb', 'transformers', 'pyarrow', 'numpy'} & set(sys.modules)\n"
            "sys.exit(status or (str(heavy) if heavy else 0))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for command in cli.COMMANDS:
            assert command in done.stdout

    def test_without_a_command(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert run() == 2
        assert "search" in capsys.readouterr().out

    def test_version(self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("importlib.metadata.version", lambda name: "1.2.3")
        assert run("--version") == 0
        assert capsys.readouterr().out == "fti4cir 1.2.3\n"

    def test_h_is_help_everywhere(self, capsys: pytest.CaptureFixture[str]) -> None:
        for command in ([], *([name] for name in cli.COMMANDS)):
            assert run(*command, "-h") == 0
            assert "Usage: fti4cir" in capsys.readouterr().out
        assert run("-h") == 0
        out = capsys.readouterr().out
        assert "--install-completion" in out
        assert "--show-completion" in out

    def test_completion_knows_the_commands(self) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "_FTI4CIR_COMPLETE": "complete_bash"}
        environment |= {"COMP_WORDS": "fti4cir se", "COMP_CWORD": "1"}
        code = "from fti4cir.__main__ import main; main()"
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
        assert done.stdout.split() == ["search"]

    def test_an_unexpected_error_is_one_line_and_a_variable_shows_more(
        self, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def broken(*_: object, **__: object) -> None:
            raise KeyError("two\nlines")

        monkeypatch.setattr(indexing, "index_folder", broken)
        monkeypatch.delenv("FTI4CIR_DEBUG", raising=False)
        assert run("index", photos) == 70
        message = one_error_line(capsys.readouterr().err)
        assert "Unexpected error" in message
        assert "KeyError" in message
        monkeypatch.setenv("FTI4CIR_DEBUG", "1")
        assert run("index", photos) == 70
        assert 'raise KeyError("two' in capsys.readouterr().err

    def test_a_warning_is_one_line_without_the_place_in_the_code(
        self, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def warn(*_: object, **__: object) -> None:
            warnings.warn("It was cut\x1b.", stacklevel=1)
            raise ModelError("Stop.")

        monkeypatch.setattr(indexing, "index_folder", warn)
        assert run("index", photos) == 1
        assert "warning: It was cut\\x1b.\n" in capsys.readouterr().err


# What can be found wrong without a model; MINI has an index that mini made.
AT_ONCE = [
    (["index", "gone"], "There is no folder 'gone'"),
    (["index", "table.csv"], "is not a folder"),
    (["index", "MINI", "--store", "table.csv/x"], "is a file, not a folder; give another --store"),
    (["index", "MINI", "--model", "unknown"], "There is no model 'unknown'"),
    (["search", "gone", "--text", "red"], "There is no folder 'gone'"),
    (["search", "MINI", "--text", " "], "The text is empty"),
    (["search", "MINI", "--text", "red", "--without", ""], "leave out is empty"),
    (["search", "MINI", "--image", "gone.jpg"], "gone.jpg"),
    (["search", "MINI", "--image", "table.csv"], "it is not an image"),
    (["search", "MINI", "--text", "red", "--where", "width >"], "Expected: an expression"),
    (["search", "MINI", "--text", "red", "--where", "nope = 1"], "No field named nope"),
    (["search", "MINI/.fti4cir", "--text", "red", "--model", "vit-l-14"], "was made with the model 'mini', not 'vit-l"),
    (["index", "MINI", "--store", "MINI/.fti4cir", "--model", "a/clip"], "made with the model 'mini', not 'a/clip'"),
    (["search", "MINI", "--text", "red", "--model", "vit-l-14"], "has to be downloaded once"),
    (["explain", "gone.jpg"], "Cannot read 'gone.jpg'"),
    (["explain", "table.csv"], "it is not an image"),
    (["explain", "MINI/red.png", "--output", "gone/x.html"], "There is no folder 'gone'"),
    (["explain", "MINI/red.png", "--model", "vit-l-14"], "has to be downloaded once"),
    (["caption", "gone", "--output", "x.jsonl"], "There is no folder or tar file 'gone'"),
    (["caption", "MINI", "--output", "gone/x.jsonl"], "There is no folder 'gone'"),
    (["caption", "MINI", "--output", "x.jsonl"], "has to be downloaded once"),
    (["train", "--images", "gone", "--captions", "table.csv", "--output", "m"], "no folder or tar file 'gone'"),
    (["train", "--images", "MINI", "--captions", "gone.csv", "--output", "m"], "--captions: 'gone.csv' does not exist"),
    (["train", "--images", "MINI", "--captions", "table.csv", "--output", "table.csv"], "give another --output"),
    (["train", "--images", "MINI", "--captions", "table.csv", "--output", "m", "--backbone", "x"], "no model 'x'"),
    (["convert", "gone.pth", "--backbone", "a/clip", "--output", "m"], "'gone.pth' does not exist"),
    (["verify", "cirr", "--root", "gone"], "gone"),
    (["evaluate", "cirr", "--root", "gone"], "gone"),
    (["evaluate", "descriptions", "--root", "MINI", "--table", "gone.csv"], "gone.csv"),
    (["evaluate", "attributes", "--root", "MINI", "--table", "gone.csv", "--id", "a", "--change", "b", "--template",
      "{value}"], "gone.csv"),
    (["demo", "--folder", "gone"], "There is no folder 'gone'"),
    (["demo", "--folder", "MINI", "--model", "unknown"], "There is no model 'unknown'"),
]  # fmt: skip


@pytest.mark.slow
def test_what_can_be_known_at_once_is_known_before_torch_is_imported(tmp_path: Path) -> None:
    """One process for all of them: none imports torch, so the next would still see that none did."""
    save_colour(tmp_path / "MINI" / "red.png", "red")
    info = StoreInfo(tmp_path / "MINI", "mini", "print-1", 3)
    Store.create(default_location(tmp_path / "MINI"), info).upsert([Row("red.png", 1, 1, "d", 1, 1, np.eye(3)[0])])
    (tmp_path / "table.csv").write_text("image,caption\n")
    code = (
        "import json, sys\nfrom fti4cir.cli import run\n"
        "for line in json.load(sys.stdin):\n"
        "    status = run(line)\n"
        "    print(status, 'torch' in sys.modules or 'transformers' in sys.modules)\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "HF_HUB_OFFLINE": "1"}
    environment["HF_HOME"] = environment["XDG_CACHE_HOME"] = str(tmp_path / "home")
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps([line for line, _ in AT_ONCE]),
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    errors, outcomes = done.stderr.splitlines(), done.stdout.splitlines()
    assert len(errors) == len(outcomes) == len(AT_ONCE), done.stderr
    for (line, says), error, outcome in zip(AT_ONCE, errors, outcomes, strict=True):
        assert error.startswith("fti4cir: error: "), line
        assert says in error, line
        assert outcome in {"1 False", "2 False"}, line


class TestProcess:
    """What only a process of its own can show."""

    @pytest.mark.slow
    def test_a_reader_that_has_gone(self, photos: Path) -> None:
        process = start("search", photos, "--text", "red")
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        err = process.stderr.read()
        process.stderr.close()
        assert process.wait(timeout=60) == 141
        assert "model: mini" in err
        assert not [line for line in err.splitlines() if not line.startswith(("model: ", "skipped: ", "5 ", "4 "))]

    def test_the_rest_of_the_output_cannot_be_written(self) -> None:
        code = "import sys; sys.argv[1:] = ['--help']\nfrom fti4cir.__main__ import main; main()"
        with open("/dev/full", "w") as full:
            done = subprocess.run([sys.executable, "-c", code], stdout=full, stderr=subprocess.PIPE, text=True)
        assert done.returncode == 1
        assert done.stderr == "fti4cir: error: No space left on device\n"

    def test_without_stderr_nothing_is_written_to_other_files(self, tmp_path: Path) -> None:
        code = "import sys; sys.argv[1:] = ['index', 'gone']\nfrom fti4cir.__main__ import main; main()"
        command = f"'{sys.executable}' -c \"$0\" 2>&- >out"
        done = subprocess.run(["sh", "-c", command, code], cwd=tmp_path)
        assert done.returncode == 1
        assert (tmp_path / "out").read_text() == ""

    @pytest.mark.parametrize("when", ["fti4cir.cli", "typer", "numpy", "torch", "lancedb"])
    def test_ctrl_c_while_modules_are_imported(self, when: str, tmp_path: Path) -> None:
        """Ctrl-C arrives as the import of a module begins."""
        save_colour(tmp_path / "red.png", "red")
        code = (
            "import os, signal, sys\n"
            "class Interrupt:\n"
            "    def find_spec(self, name, *_):\n"
            f"        if name == {when!r}:\n"
            "            sys.meta_path.remove(self)\n"
            "            os.kill(os.getpid(), signal.SIGINT)\n"
            "import fti4cir.__main__\n"
            "sys.meta_path.insert(0, Interrupt())\n"
            f"sys.argv[1:] = ['index', {str(tmp_path)!r}]\n"
            "fti4cir.__main__.main()\n"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )  # fmt: skip
        assert done.returncode == 130
        assert "Interrupted" in one_error_line(done.stderr)
        assert done.stderr.count("\n") == 1

    def test_the_entry_point_imports_next_to_nothing(self) -> None:
        code = (
            "import sys\nbefore = set(sys.modules)\nimport fti4cir.__main__\nprint(*sorted(set(sys.modules) - before))"
        )
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run([sys.executable, "-S", "-c", code], env=environment, capture_output=True, text=True)
        known = {"__future__", "fti4cir", "fti4cir.__main__", "fti4cir.errors"}
        # What `signal` and `os` need themselves.
        assert {name for name in done.stdout.split() if name.startswith("fti4cir") or name in {"typing", "re"}} <= known


def test_explain_writes_what_it_is_asked_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Explanation:
        def to_json(self) -> dict[str, int]:
            return {"attributes": 3}

        def __str__(self) -> str:
            return "3 attributes"

    model = ColourModel()
    monkeypatch.setattr(model, "explain", lambda path: Explanation(), raising=False)
    monkeypatch.setattr(fti4cir, "load", lambda name: model, raising=False)
    monkeypatch.setattr(
        "fti4cir.report.explanation.write_html", lambda explanation, path: path.write_text(str(explanation))
    )
    assert run("explain", photos / "red.jpg") == 0
    assert capsys.readouterr().out == "3 attributes\n"
    assert run("explain", photos / "red.jpg", "--output", tmp_path / "x.html", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"attributes": 3}
    assert (tmp_path / "x.html").read_text() == "3 attributes"


@pytest.mark.slow
def test_a_killed_process_leaves_a_store_that_goes_on(tmp_path: Path) -> None:
    for i in range(160):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))
    process = start("index", tmp_path, seconds=0.3)
    while not default_location(tmp_path).exists():
        time.sleep(0.05)
    time.sleep(0.5)
    process.kill()
    process.communicate(timeout=60)
    assert run("index", tmp_path) == 0
    assert len(Store.open(default_location(tmp_path))) == 160
    shutil.rmtree(default_location(tmp_path))
