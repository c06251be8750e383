"""A text that is too long, as the command line says it."""

from pathlib import Path

import pytest

from fti4cir import cli
from tinyclip import picture


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("紅" * 300, "the first {} of 300 characters were used"),
        ("red dog " * 100, "the first {} of 200 words were used"),
    ],
)
def test_one_line_says_how_much_was_used(
    tmp_path: Path, clip_folder: Path, capsys: pytest.CaptureFixture[str], text: str, says: str
) -> None:
    (tmp_path / "photos").mkdir()
    picture().save(tmp_path / "photos" / "a.png")
    arguments = ["search", str(tmp_path / "photos"), "--text", text, "--model", str(clip_folder), "--json"]
    assert cli.run(arguments) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "CutWarning" in line or "longer than" in line]
    before, after = says.split("{}")
    assert line.startswith("warning: The text is longer than the 77 tokens that ")
    assert before in line
    assert line.endswith(f"{after}, the rest was left out.")
