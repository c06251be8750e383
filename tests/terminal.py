"""What tests of the command line share: running a command, here or in a process, and the error that it ends in."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from fti4cir import cli

# The command line, with the stand-in for the bundled model.
PROGRAM = """
import sys, fti4cir
from standin import ColourModel
fti4cir.load = lambda name: ColourModel(seconds_a_batch={seconds})
from fti4cir.__main__ import main
main()
"""


def run(*arguments: object) -> int:
    """Run the command line in this process; its exit status."""
    return cli.run([str(argument) for argument in arguments])


def start(
    *arguments: object, seconds: float = 0.0, program: str | None = None, **options: object
) -> subprocess.Popen[str]:
    """Start a process of its own.

    Args:
        arguments: of the command line.
        seconds: that the stand-in takes for each batch of images.
        program: the Python code instead of the command line with the stand-in.
        options: of `subprocess.Popen`.

    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path])}
    return subprocess.Popen(
        [sys.executable, "-c", program or PROGRAM.format(seconds=seconds), *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and so would their children.
        **{"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **options},
    )


def error_line(err: str) -> str:
    """The error on a command's stderr: one line, the last, without a traceback."""
    lines = [line for line in err.splitlines() if line.startswith("fti4cir: error: ")]
    assert len(lines) == 1
    assert err.splitlines()[-1] == lines[0]
    assert "Traceback" not in err
    return lines[0]


def one_error_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The error that a command ended in, with nothing on stdout."""
    out, err = capsys.readouterr()
    assert out == ""
    return error_line(err)
