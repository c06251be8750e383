"""Small indexes for tests: rows of random vectors, and folders of plain colours."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np

from fti4cir.search.index_report import IndexReport
from fti4cir.search.indexing import index_folder, store_for
from fti4cir.search.schema import Row, StoreInfo
from fti4cir.search.store import Store
from standin import ColourModel

WIDTH = 16


INFO = StoreInfo(Path("/photos"), "mini", "print-1", WIDTH)


def make(location: str | Path, root: Path = Path("/photos"), width: int = WIDTH) -> Store:
    return Store.create(location, StoreInfo(root, "mini", "print-1", width))


def vectors(count: int, seed: int = 0) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(count, WIDTH)).astype(np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def rows(values: np.ndarray, start: int = 0) -> list[Row]:
    return [
        Row(f"d/{i}.jpg", i, 10 * i, f"digest{i}", 100 + i, 50, value) for i, value in enumerate(values, start=start)
    ]


def at_once(work: list[Callable[[], object]]) -> None:
    """Do all of it at the same time; raise what any of it raises."""
    start, errors = threading.Barrier(len(work)), list[BaseException]()

    def do(one: Callable[[], object]) -> None:
        start.wait()
        try:
            one()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=do, args=(one,)) for one in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def index(folder: Path, model: ColourModel | None = None) -> IndexReport:
    model = model or ColourModel()
    return index_folder(folder, store_for(folder, model), model=model)


def counts(report: IndexReport) -> tuple[int, int, int, int, int, int]:
    return (report.added, report.updated, report.unchanged, report.removed, len(report.skipped), report.total)
