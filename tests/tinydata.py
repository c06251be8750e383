"""Forty generated images with captions, enough for a network on the tiny CLIP to learn something, and settings."""

import csv
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

from PIL import Image

PICTURES = 40  # of which four are kept out of training
COLOURS = {"red": (220, 30, 30), "black": (10, 10, 10), "blue": (30, 30, 220), "white": (240, 240, 240)}
SMALL = {"epochs": 3, "batch_size": 8, "learning_rate": 2e-3, "network.dropout": 0.2, "bfloat16": False}
SMALL_ATTRIBUTES = {"network.num_latent": 6, "network.max_attributes": 3}
"""For the methods that have any."""


def write_data(folder: Path) -> SimpleNamespace:
    """Plain images of a few colours and shapes, and a file that is none, in a folder `pictures`; a file `captions`."""
    lines = [{"image": "broken.png", "subject": "a red dog", "attribute": "on grass"}]
    for number in range(PICTURES):
        colour, pixel = list(COLOURS.items())[number % 4]
        kind, place = ("dog", "cat")[number // 4 % 2], ("on the grass", "in the snow")[number // 8 % 2]
        image = Image.new("RGB", (40, 36), (60, 160, 60) if "grass" in place else (200, 210, 230))
        image.paste(pixel, (5, 5, 25, 20) if kind == "dog" else (20, 10, 32, 34))
        image.putpixel((0, 0), (number, 0, 0))
        (folder / "pictures").mkdir(parents=True, exist_ok=True)
        image.save(folder / "pictures" / f"{number:02}.png")
        lines.append({"image": f"{number:02}.png", "subject": f"a {colour} {kind}", "attribute": place})
    (folder / "pictures" / "broken.png").write_text("<html>")
    (folder / "captions.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return SimpleNamespace(pictures=folder / "pictures", captions=folder / "captions.jsonl")


@contextmanager
def logged(action: Callable[[str], object] | None = None) -> Iterator[list[str]]:
    """The lines that the library logs meanwhile; `action` is called with each of them, and may raise."""
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())
            if action is not None:
                action(lines[-1])

    logger, handler = logging.getLogger("fti4cir"), Lines(logging.INFO)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        logger.setLevel(level)
        logger.removeHandler(handler)


def log_of(output: Path) -> list[dict[str, str]]:
    with open(output / "log.csv", newline="") as file:
        return list(csv.DictReader(file))


def weights_of(output: Path) -> bytes:
    return (output / "model.safetensors").read_bytes()
