"""The table `log.csv` of a training: a row for each report."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

from ..errors import TrainingError
from ..files import replacing, writing
from .validate import COLUMNS


class Log:
    """The log in a folder, with a column for each loss."""

    def __init__(self, folder: Path, losses: Iterable[str]) -> None:
        self._folder, self._file = folder, folder / "log.csv"
        self._columns = ["step", "epoch", "learning_rate", "total", *losses, "attributes", *COLUMNS]

    def start(self, step: int) -> None:
        """Begin the log, or drop its rows after `step`, which will be written again."""
        with writing(self._folder, TrainingError):
            text = self._file.read_text(encoding="utf-8") if self._file.exists() else ""
            whole = text[: text.rfind("\n") + 1]  # a last line without its end was cut off
            kept = [row for row in csv.DictReader(io.StringIO(whole)) if int(row["step"]) <= step]
            table = io.StringIO(newline="")
            writer = self._writer(table)
            writer.writeheader()
            writer.writerows(kept)
            with replacing(self._file) as file:
                file.write(table.getvalue().encode())

    def append(self, row: Mapping[str, object]) -> None:
        """Add a row; columns that it lacks stay empty."""
        with writing(self._folder, TrainingError), open(self._file, "a", newline="", encoding="utf-8") as file:
            self._writer(file).writerow(row)

    def _writer(self, file: io.StringIO | io.TextIOWrapper) -> csv.DictWriter[str]:
        # A log of an older version has columns for the losses of all methods, which stay empty.
        return csv.DictWriter(file, self._columns, restval="", extrasaction="ignore", lineterminator="\n")
