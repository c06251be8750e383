"""What tests of the command line share."""

import pytest


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error that a command ended in: one line, the last on stderr, with nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    lines = [line for line in err.splitlines() if line.startswith("fti4cir: error: ")]
    assert err.splitlines()[-1:] == lines
    return lines[0]
