"""What does scoring a large benchmark cost beside encoding its images? Prints one JSON object.

python perf/evaluation.py [--images 123403] [--queries 800] [--width 512]

The default is the size of CIRCO's test split. Features are random; ranking and scoring is that of a real evaluation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fti4cir.benchmarks.base import Benchmark, Gallery, Query
from fti4cir.evaluation.ranking import judge, rank_gallery

IMAGES_PER_SECOND = 200  # through an image tower, for comparison


def unit_length(rows: int, width: int, seed: int) -> NDArray[np.float32]:
    generator = np.random.default_rng(seed)
    features = np.empty((rows, width), dtype=np.float32)
    for block in np.array_split(features, max(1, rows // 1000)):  # so that making them is not what takes most memory
        block[:] = generator.standard_normal(block.shape, dtype=np.float32)
        block /= np.linalg.norm(block, axis=1, keepdims=True)
    return features


def made_up(images: int, queries: int) -> Benchmark:
    """Queries with five targets each."""
    generator = np.random.default_rng(2)
    asked = []
    for _ in range(queries):
        reference, *others = map(int, generator.choice(images, 6, replace=False))
        asked.append(Query(("",), reference, (), None, tuple(others)))
    names = tuple(map(str, range(images)))
    return Benchmark(
        name="made-up",
        split="val",
        protocol="random features",
        gallery=Gallery(names, tuple(map(Path, names))),
        queries=tuple(asked),
        values=(),
        precision_cuts=(5, 10, 25, 50),
        recall_cuts=(5, 10, 25, 50),
    )


def peak_mb() -> float:
    """The most memory this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=123_403)
    parser.add_argument("--queries", type=int, default=800)
    parser.add_argument("--width", type=int, default=512)
    options = parser.parse_args()

    benchmark = made_up(options.images, options.queries)
    gallery = unit_length(options.images, options.width, 0)
    composed = unit_length(options.queries, options.width, 1)
    before = peak_mb()
    start = time.perf_counter()
    ranking, subset_ranking = rank_gallery(benchmark, composed, gallery=gallery)
    ranked = time.perf_counter()
    judge(benchmark, ranking, subset_ranking=subset_ranking, method="made up", model=None).intervals()
    scored = time.perf_counter()
    encoding = options.images / IMAGES_PER_SECOND
    result = {
        "cpus": os.cpu_count(),
        "images": options.images,
        "queries": options.queries,
        "width": options.width,
        "rank_seconds": round(ranked - start, 2),
        "score_seconds": round(scored - ranked, 2),
        "features_mb": round(gallery.nbytes / 1e6),
        "peak_mb_above_that": round(peak_mb() - before),
        f"encoding_seconds_at_{IMAGES_PER_SECOND}_images_per_second": round(encoding),
        "share_of_encoding": round((scored - start) / encoding, 4),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
