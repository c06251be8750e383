"""Reports of evaluations: one page to look at, and the figures to go on with."""

from __future__ import annotations

import json
from pathlib import Path

from ..files import replacing
from .page import page
from .study import Study, measure, measure_descriptions, study
from .table import comma_separated, figures, markdown

__all__ = ["Study", "measure", "measure_descriptions", "study", "write"]


def write(study: Study, folder: str | Path) -> Path:
    """Write a report: `report.json`, `table.md`, `table.csv`, and `index.html`, which needs nothing beside it.

    The folder is made where there is none. Each file is replaced as a whole, so that none is ever half of one report
    and half of another; other files in the folder are left alone.

    Returns:
        The page.

    Raises:
        ImageError: if an image that is shown cannot be read.
    """
    folder = Path(folder)
    summary = figures(study)
    contents = {
        "report.json": json.dumps(summary, indent=1) + "\n",
        "table.md": markdown(summary),
        "table.csv": comma_separated(summary),
        "index.html": page(study, summary),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        with replacing(folder / name) as file:
            file.write(content.encode())
    return folder / "index.html"
