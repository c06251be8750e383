"""How fast is searching and indexing here? Prints one JSON object; times in milliseconds unless named otherwise.

python perf/search.py [--model NAME_OR_DIR] [--count 5000] [--folder FOLDER]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import fti4cir
from fti4cir.errors import FtiError
from fti4cir.images.decode import find_images
from fti4cir.search.indexing import index_folder, store_for
from fti4cir.search.schema import Row, StoreInfo
from fti4cir.search.searcher import Searcher
from fti4cir.search.store import Store

TEXTS = ("in red", "for children", "with long sleeves", "at night, seen from above", "as a sketch")


def milliseconds(run: Callable[[int], object], times: int) -> dict[str, float]:
    """Median and 95th percentile of `run(0) .. run(times - 1)`, after three calls that do not count."""
    for i in range(3):
        run(i)
    taken = []
    for i in range(times):
        start = time.perf_counter()
        run(i)
        taken.append(1000 * (time.perf_counter() - start))
    return {"median": round(statistics.median(taken), 2), "p95": round(float(np.percentile(taken, 95)), 2)}


def photo_like_jpegs(folder: Path, count: int) -> None:
    """Smooth random images of 640 x 480, about as large and as slow to decode as a photo."""
    rng = np.random.default_rng(0)
    for i in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8))
        coarse.resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{i:05}.jpg", quality=90)


def store_of_random_vectors(location: Path, model: Any, count: int) -> Store:
    width = model.encoder.joint_width
    vectors = np.random.default_rng(0).normal(size=(count, width)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = Store.create(location, StoreInfo(location, model.name, model.fingerprint, width))
    store.upsert([Row(f"{i}.jpg", i, i, str(i), 640, 480, vector) for i, vector in enumerate(vectors)])
    store.optimize()
    return store


def cold_start(*arguments: str) -> dict[str, float]:
    """A whole process of the command line, the first of which (cold disk cache) does not count."""
    command = [sys.executable, "-c", "from fti4cir.__main__ import main; main()", *arguments]

    def run(_: int) -> None:
        subprocess.run(command, check=True, capture_output=True)

    return milliseconds(run, 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--count", type=int, default=5000, help="images in the store that is searched")
    parser.add_argument("--folder", type=Path, help="images to index; by default 640 that are made up")
    parser.add_argument("--queries", type=int, default=50)
    options = parser.parse_args()

    model = fti4cir.load(options.model)
    with tempfile.TemporaryDirectory() as name:
        temporary = Path(name)
        folder = options.folder
        if folder is None:
            folder = temporary / "images"
            folder.mkdir()
            photo_like_jpegs(folder, 640)
        start = time.perf_counter()
        report = index_folder(folder, store_for(folder, model, location=temporary / "indexed"), model=model)
        seconds = time.perf_counter() - start

        store = store_of_random_vectors(temporary / "store", model, options.count)
        searcher = Searcher(model, store)
        images = find_images(folder)[: options.queries]
        vectors = np.random.default_rng(1).normal(size=(options.queries, model.encoder.joint_width)).astype(np.float32)
        result = {
            "model": model.name,
            "cpus": os.cpu_count(),
            "indexed_images_per_second": round(report.added / seconds, 1),
            "indexed_images": report.added,
            "searched_images": len(store),
            "search": milliseconds(
                lambda i: searcher.search([images[i % len(images)]], TEXTS[i % len(TEXTS)]), options.queries
            ),
            "search_store_alone": milliseconds(lambda i: store.search(vectors[i], 10), options.queries),
            "cold_start_help": cold_start("--help"),
            "cold_start_search": cold_start(
                "search", str(temporary / "indexed"), "--text", "in red", "--model", options.model
            ),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    try:
        main()
    except FtiError as error:
        sys.exit(str(error))
