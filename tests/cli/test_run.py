"""What all commands of the command line have in common, as a user types them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from fti4cir import cli
from fti4cir.errors import ModelError
from fti4cir.search import indexing
from fti4cir.search.locations import default_location
from fti4cir.search.schema import Row, StoreInfo
from fti4cir.search.store import Store
from standin import save_colour
from terminal import error_line, one_error_line, run, start

pytestmark = pytest.mark.usefixtures("asked_models")


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
        assert says in error_line(err)

    def test_an_error_of_the_system(
        self, photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def full(*_: object, **__: object) -> None:
            raise OSError(28, "No space left on device", "/somewhere")

        monkeypatch.setattr(indexing, "index_folder", full)
        assert run("index", photos) == 1
        assert one_error_line(capsys).endswith("No space left on device: /somewhere")


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
        assert one_error_line(capsys).endswith(" equal to 1. See fti4cir --help.")
        assert run("serch") == 2
        assert one_error_line(capsys).endswith("'search'? See fti4cir --help.")

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
        message = one_error_line(capsys)
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
        assert "Interrupted" in error_line(done.stderr)
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
