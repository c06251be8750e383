"""How far long work is: as numbers for a progress bar, and as lines in the log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

Progress = Callable[[int, int], object]
"""Is called with the number of items that are done and with the number of all items."""

EVERY = 10.0
"""Seconds between two lines of the log."""

# An application that has not set up logging would otherwise print this library's warnings. This stands here and not
# in the package's `__init__`, because importing `logging` takes milliseconds in which Ctrl-C would end in a traceback.
logging.getLogger("fti4cir").addHandler(logging.NullHandler())


class ProgressLog:
    """Logs now and then how much of some work is done, how fast it goes, and about how long the rest takes.

    Args:
        logger: gets the lines, at the level INFO.
        what: how each line begins, such as "captions".
        total: number of items.
        already: how many of them an earlier run has done.
        unit: what the items are, such as "images".

    """

    def __init__(self, logger: logging.Logger, what: str, *, total: int, already: int = 0, unit: str = "") -> None:
        self._logger, self._what, self._total, self._already = logger, what, total, already
        self._unit = f" {unit}" if unit else ""
        self._started = self._logged = time.monotonic()

    def update(self, done: int) -> None:
        """Take how many items are done, those of earlier runs included; logs a line if it is time, or if all are."""
        now = time.monotonic()
        if done < self._total and now - self._logged <= EVERY:
            return
        self._logged = now
        rate = max(done - self._already, 0) / max(now - self._started, 1e-6)
        left = f"; {minutes_left((self._total - done) / rate)}" if rate else ""
        self._logger.info(f"{self._what}: {done} of {self._total}{self._unit}, {rate:.1f} a second{left}")


def minutes_left(seconds: float) -> str:
    """How long work still takes, for a line of progress.

    >>> minutes_left(150)
    'about 2 min left'
    """
    return f"about {seconds / 60:.0f} min left"
