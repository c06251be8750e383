"""What decoding JPEGs at a fraction of their size saves a model's index, and what it does to the features.

    python perf/decoding.py PHOTOS [--sizes 640x480 1600x1200 4000x3000] [--limit 60] [--model mini]

Each photograph is cut to the aspect ratio of a size, brought to it and compressed as a camera does. Its feature is made
from exactly decoded pixels, and from those decoded to at least once, twice and three times the model's input size.
Printed as JSON, for each size and way: processor time to decode and preprocess an image, and to encode it, in
milliseconds; the cosine to the exact feature (median, least), and the share of images whose nearest neighbour among
the exact features of all others is the same.

A photograph that is smaller than a size is enlarged. Its fine structure is then smoother than a camera's, which
flatters decoding at a fraction; `--noise` puts grain of so many grey levels on it, as a sensor has.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

import fti4cir
from fti4cir.errors import FtiError
from fti4cir.images.decode import decode_image, find_images, open_image
from fti4cir.models.model import Model


def camera_jpeg(path: Path, size: tuple[int, int], noise: float, seed: int) -> bytes:
    """The photograph as a JPEG of this size, long side across or upright as it is."""
    image = open_image(path)
    size = size if image.width >= image.height else (size[1], size[0])
    image = ImageOps.fit(image, size, Image.Resampling.LANCZOS)
    if noise:
        grain = np.random.default_rng(seed).normal(0, noise, (image.height, image.width, 1)).astype(np.float32)
        image = Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


def features(model: Model, files: list[bytes], at_least: int | None) -> tuple[Tensor, float, float]:
    """Unit-length features (N, D), and the seconds of decoding and of encoding."""
    begin = time.process_time()
    pixels = [model.encoder.preprocess(decode_image(data, "an image", at_least=at_least).image) for data in files]
    decoded = time.process_time()
    blocks = [
        model.encoder.encode_pixels(torch.stack(pixels[start : start + 32])).image
        for start in range(0, len(pixels), 32)
    ]
    return F.normalize(torch.cat(blocks), dim=-1), decoded - begin, time.process_time() - decoded


def nearest(queries: Tensor, gallery: Tensor) -> Tensor:
    """The nearest other image of each, (N,)."""
    return (queries @ gallery.T).fill_diagonal_(-2).argmax(dim=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--sizes", nargs="+", default=["640x480", "1600x1200", "4000x3000"])
    parser.add_argument("--limit", type=int, default=60, help="photographs, spread evenly over the folder")
    parser.add_argument("--noise", type=float, default=0.0)
    parser.add_argument("--model", default="mini")
    options = parser.parse_args()
    model = fti4cir.load(options.model)
    found = find_images(options.photos)
    paths = found[:: max(1, len(found) // options.limit)][: options.limit]
    side = model.encoder.input_size
    rows = []
    for name in options.sizes:
        width, height = map(int, name.split("x"))
        files = [camera_jpeg(path, (width, height), options.noise, seed) for seed, path in enumerate(paths)]
        exact, *_ = features(model, files, None)
        for times in (None, 3, 2, 1):
            other, decoding, encoding = features(model, files, None if times is None else times * side)
            cosine = (exact * other).sum(dim=1)
            rows.append(
                {
                    "size": name,
                    "decoded to at least": "exactly" if times is None else f"{times} x {side}",
                    "images": len(files),
                    "decoding ms": round(1000 * decoding / len(files), 2),
                    "encoding ms": round(1000 * encoding / len(files), 2),
                    "cosine median": round(cosine.median().item(), 5),
                    "cosine least": round(cosine.min().item(), 5),
                    "same nearest": round((nearest(other, exact) == nearest(exact, exact)).float().mean().item(), 3),
                }
            )
    print(json.dumps({"model": model.name, "noise": options.noise, "rows": rows}, indent=1))


if __name__ == "__main__":
    try:
        main()
    except FtiError as error:
        sys.exit(str(error))
