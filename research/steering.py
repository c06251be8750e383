"""How strength and balance change what composed queries find, on held-out images. Prints JSON.

    python research/train_mini_inversion.py prepare --data DATA --work WORK
    python research/steering.py --work WORK [--clipart FOLDER] [--limit 1000] > steering.json

The tasks are those of `attributes.py`. With `--clipart`, the folder that Debian's package `openclipart-png` installs
(/usr/share/openclipart/png), there is one more: from a held-out photograph of Caltech-101 "as a drawing" to drawings of
the same class, and back. No training saw drawings of these classes, or the word for this style.
"""

from __future__ import annotations

import csv
import itertools
import json
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

import fti4cir
import script
from attributes import TASKS
from fti4cir.benchmarks import attributes
from fti4cir.benchmarks.base import Benchmark
from fti4cir.evaluation.evaluate import evaluate
from fti4cir.inversion.steering import ComposedQueries
from fti4cir.methods.registry import create
from fti4cir.models.queries import Queries

STRENGTHS = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 3.0)
BALANCES = (0.0, 0.25, 0.5, 0.75, 1.0)
SUM_WEIGHTS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)
_MOST_DRAWINGS = 8
"""Of a class."""
_MOST_BYTES = 400_000
"""Of a drawing's file: a few are hundreds of megapixels."""


class Shared:
    """The features of the last queries, which all settings are computed from."""

    def __init__(self, model: fti4cir.Model) -> None:
        self._model = model
        self._last: tuple[Queries, ComposedQueries] | None = None

    def of(self, queries: Queries) -> ComposedQueries:
        """Computed once for the same object."""
        if self._last is None or self._last[0] is not queries:
            self._last = queries, self._model.composed_queries(queries)
        return self._last[1]


class Steered:
    """FTI4CIR with a strength and a balance."""

    def __init__(self, shared: Shared, *, strength: float, balance: float) -> None:
        self._shared, self.strength, self.balance = shared, strength, balance
        self.name = f"strength {strength}, balance {balance}"

    def compose(self, queries: Queries) -> Tensor:
        """B queries to unit-length features (B, D)."""
        return self._shared.of(queries).at(strength=self.strength, balance=self.balance)


def measure(benchmark: Benchmark, model: fti4cir.Model) -> dict[str, Any]:
    """mAP@10 for each balance and strength, and of image, text and the sum at its best weight on these queries."""
    shared = Shared(model)
    steered = [
        Steered(shared, strength=strength, balance=balance)
        for balance, strength in itertools.product(BALANCES, STRENGTHS)
    ]
    sums = [create("sum", model, image_weight=weight) for weight in SUM_WEIGHTS]
    methods = [create("image", model), create("text", model), *sums, *steered]
    found = evaluate(benchmark, model.encoder, methods=methods, model=model.name)
    figures = [round(result.metrics()["mAP@10"], 4) for result in found]
    image, text, *others = figures
    grid = np.array(others[len(sums) :]).reshape(len(BALANCES), len(STRENGTHS))
    return {
        "protocol": benchmark.protocol,
        "queries": len(benchmark.queries),
        "image": image,
        "text": text,
        "sum at its best weight here": max(others[: len(sums)]),
        "as trained": float(grid[BALANCES.index(0.0), STRENGTHS.index(1.0)]),
        "best": float(grid.max()),
        "strengths": STRENGTHS,
        "balances": {str(balance): row for balance, row in zip(BALANCES, grid.tolist(), strict=True)},
    }


def drawings(work: Path, clipart: Path, limit: int) -> Benchmark:
    """Photographs and drawings of the same classes, laid out in WORK/drawings."""
    root = work / "drawings"
    rows = [["path", "domain", "class"]]
    by_class: defaultdict[str, list[Path]] = defaultdict(list)
    words = {path: _words(path) for path in sorted(clipart.rglob("*.png")) if path.stat().st_size <= _MOST_BYTES}
    for photo in sorted((work / "held_out" / "caltech101").rglob("*.jpg")):
        by_class[photo.parent.name.lower().replace("_", " ")].append(photo)
    for name, photos in by_class.items():
        found = [path for path, said in words.items() if set(name.split()) <= said][:_MOST_DRAWINGS]
        if found:
            rows += [[path, "photo", name] for path in _copied(photos, root / "photo" / name, root)]
            rows += [[path, "drawing", name] for path in _copied(found, root / "drawing" / name, root)]
    if len(rows) == 1:
        raise SystemExit(f"{clipart} has no drawings of these classes; install Debian's openclipart-png.")
    table = root / "table.csv"
    with open(table, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return attributes.load(root, table, "path", "domain", ["class"], "as a {value}", limit=limit)


def _words(path: Path) -> set[str]:
    """The words of a drawing's name and folder, also without a plural's s."""
    words = set(re.findall(r"[a-z]+", f"{path.parent.name} {path.stem}".lower()))
    return words | {word.removesuffix("s") for word in words}


def _copied(paths: list[Path], folder: Path, root: Path) -> Iterator[str]:
    """The names, relative to `root`, of small copies on white. Equal file names get a number."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        target = folder / f"{number}_{path.stem}.png"
        with Image.open(path) as image:
            image.thumbnail((256, 256))
            shown = image.convert("RGBA")
        on_white = Image.new("RGBA", shown.size, "white")
        on_white.alpha_composite(shown)
        on_white.convert("RGB").save(target)
        yield target.relative_to(root).as_posix()


def main() -> None:
    """Measure the tasks."""
    parser = script.parser(__doc__)
    script.add_work(parser)
    parser.add_argument("--clipart", type=script.existing_folder, help="a folder of PNG drawings, for one more task")
    parser.add_argument("--model", default="mini", help="what `fti4cir.load` takes")
    parser.add_argument("--limit", type=int, default=1000, help="queries of each task")
    options = parser.parse_args()
    script.log_progress()
    model = script.load_model(options.model)
    benchmarks = {name: task.load(options.work, part="held_out", limit=options.limit) for name, task in TASKS.items()}
    if options.clipart:
        benchmarks["drawings"] = drawings(options.work, options.clipart, options.limit)
    report = {}
    for task, benchmark in benchmarks.items():
        report[task] = measure(benchmark, model)
        script.progress.info(f"{task}: as trained {report[task]['as trained']}, best {report[task]['best']}")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
