"""Lines of progress in the log, and where the log goes."""

import itertools
import logging
import subprocess
import sys

import pytest

from fti4cir import progress
from fti4cir.cli.terminal import log_as_notes
from fti4cir.progress import ProgressLog
from fti4cir.wording import counted

logger = logging.getLogger("fti4cir.test")


def test_a_line_now_and_then_and_at_the_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count(0, 6)  # seconds
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    caplog.set_level("INFO", logger="fti4cir")
    log = ProgressLog(logger, "captions", total=400, already=100, unit="images")
    for done in (110, 112, 130, 400):
        log.update(done)
    assert caplog.messages == [
        "captions: 112 of 400 images, 1.0 a second; about 5 min left",
        "captions: 400 of 400 images, 12.5 a second; about 0 min left",
    ]


def test_work_that_has_not_begun_has_no_end_in_sight(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="fti4cir")
    ProgressLog(logger, "captions", total=5, already=5).update(5)
    assert caplog.messages == ["captions: 5 of 5, 0.0 a second"]


def test_the_command_line_shows_the_log_as_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with log_as_notes():
        logger.info("news of\x1b[1m a file")
        logger.warning("left out: %s", "a.png")
        logger.debug("details")
        monkeypatch.setenv("RANK", "1")  # another process, which `torchrun` started
        logger.info("the same")
    logger.info("afterwards")
    assert capsys.readouterr() == ("", "news of\\x1b[1m a file\nleft out: a.png\n")


@pytest.mark.parametrize("module", ["captions.generate", "search.indexing", "features.cache"])
def test_without_a_logging_setup_nothing_is_printed(module: str) -> None:
    code = (
        f"import logging, fti4cir.{module}\n"
        f"logger = logging.getLogger('fti4cir.{module}')\n"
        "logger.warning('left out')\n"
        "logger.info('news')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "")


def test_counted() -> None:
    assert [counted(number, "image") for number in (0, 1, 2)] == ["0 images", "1 image", "2 images"]
    assert counted(2, "query", "queries") == "2 queries"
