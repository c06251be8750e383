"""Whether `--without` keeps the unwanted out of the first five results, and what is wanted in. Prints JSON.

    python research/train_mini_inversion.py prepare --data DATA --work WORK
    python research/without.py --data DATA --work WORK > without.json

A query is a held-out image that shows one thing and not another, a text that asks for the other, and the first one as
unwanted. People wrote the facts. In photographs (Flickr8k) a thing is shown if one of five captions has a word for it,
so a thing that no caption mentions counts as not shown, even if it is there. In shop images the table says the colour
and the audience; what is wanted there is the same kind of clothing for another audience. `free` is the share of the
first five that do not show the unwanted, `wanted` of those that show what is asked for, and `both` of those that do
both; `hard` are the queries whose plain results are free in at most three of five.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import fti4cir
import script
from fti4cir.backbones.base import VisionFeatures
from fti4cir.models.queries import Queries
from fti4cir.search.unwanted import Unwanted, unit

# thing: as a text asks for it, as `--without` names it, words of captions that show it
THINGS = {
    "people": (
        "with people",
        "people",
        "people man men woman women boy boys girl girls child children person kid kids player players lady guy guys "
        "toddler baby rider skier surfer climber biker crowd skateboarder snowboarder hiker athlete couple someone "
        "swimmer group team runner cyclist bicyclist worker male female adult teen teenager teenagers teenage",
    ),
    "dog": ("with a dog", "dogs", "dog dogs puppy puppies greyhound greyhounds poodle terrier collie labrador"),
    "water": (
        "in the water",
        "water",
        "water pool ocean lake sea river wave waves stream pond swimming surf surfer surfing surfs splash splashes "
        "splashing fountain creek waterfall shore",
    ),
    "snow": (
        "in the snow",
        "snow",
        "snow snowy ski skier skiing snowboard snowboarder snowboarding ice sled snowmobile",
    ),
    "grass": ("on the grass", "grass", "grass grassy lawn field meadow"),
    "ball": ("with a ball", "a ball", "ball balls football soccer basketball baseball tennis volleyball frisbee"),
    "bicycle": (
        "on a bike",
        "a bicycle",
        "bike bikes bicycle bicycles biker bikers cyclist cyclists bicyclist bmx motorcycle motorbike biking",
    ),
    "beach": ("on a beach", "a beach", "beach sand sandy shore"),
    "red": ("in red", "red", "red"),
    "city": ("in the city", "buildings", "building buildings city street house sidewalk road"),
}
SHARES = (0.5, 0.75, 1.0, 1.25, 1.5)
_MOST = 6
"""Queries of each pair of things."""
_FEWEST = 10
"""Images that must show what is wanted without the unwanted."""
_FIRST = 5
_HARD = 0.6


class LabelledQuery(NamedTuple):
    """A query, and what each of the N images of its gallery shows."""

    reference: int
    text: str
    unwanted: str
    wanted: NDArray[np.bool_]
    """(N,) images that show what is asked for."""
    shows: NDArray[np.bool_]
    """(N,) images that show the unwanted."""


def photographs(data: Path, work: Path) -> tuple[list[Path], list[LabelledQuery]]:
    """The held-out photographs, and queries whose facts their captions state."""
    said: defaultdict[str, set[str]] = defaultdict(set)
    with open(data / "flickr8k_captions.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            said[row["image"]] |= set(re.findall("[a-z]+", row["caption"].lower()))
    paths = sorted((work / "held_out" / "flickr8k").rglob("*.jpg"))
    shown = {
        thing: np.array([not said[path.name].isdisjoint(words.split()) for path in paths])
        for thing, (_, _, words) in THINGS.items()
    }
    random_, queries = random.Random(0), []
    for wanted, unwanted in ((a, b) for a in THINGS for b in THINGS if a != b):
        if (shown[wanted] & ~shown[unwanted]).sum() < _FEWEST:
            continue
        references = np.flatnonzero(shown[unwanted] & ~shown[wanted]).tolist()
        for reference in random_.sample(references, min(_MOST, len(references))):
            queries.append(
                LabelledQuery(reference, THINGS[wanted][0], THINGS[unwanted][1], shown[wanted], shown[unwanted])
            )
    return paths, queries


def shop(work: Path) -> tuple[list[Path], list[LabelledQuery]]:
    """The held-out shop images, and queries for another audience without the reference's colour."""
    with open(work / "held_out_shop.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["baseColour"] not in {"", "NA"}]
    kinds, audiences, colours = (
        np.array([row[name] for row in rows]) for name in ("articleType", "gender", "baseColour")
    )
    random_, queries = random.Random(0), []
    for reference in random_.sample(range(len(rows)), len(rows)):
        for audience in sorted(set(audiences) - {audiences[reference]}):
            wanted = (kinds == kinds[reference]) & (audiences == audience)
            shows = colours == colours[reference]
            if (wanted & ~shows).sum() >= _FIRST:
                text = f"for {audience.lower()}"
                queries.append(LabelledQuery(reference, text, str(colours[reference]).lower(), wanted, shows))
    return [work / "held_out" / row["path"] for row in rows], queries[:500]


def measure(model: fti4cir.Model, paths: list[Path], queries: list[LabelledQuery]) -> dict[str, Any]:
    """The three shares of each way to leave out the unwanted, for all queries and the hard ones."""
    blocks = [model.features(paths[start : start + 64]) for start in range(0, len(paths), 64)]
    gallery = unit(np.concatenate([block.image.float().numpy() for block in blocks]))
    chosen = sorted({query.reference for query in queries})
    features = VisionFeatures(*(_rows_of(blocks, chosen, part) for part in ("image", "local")))
    index = [chosen.index(query.reference) for query in queries]
    composed = model.compose_features(Queries(features, [query.text for query in queries], index)).numpy()
    unwanted = Unwanted(model)
    own = np.stack([unwanted.direction(query.unwanted) for query in queries])
    raw = model.encode_texts([query.unwanted for query in queries]).numpy()
    ways = {
        "plain": composed,
        "0.5 of the whole feature": composed - 0.5 * raw,
        **{f"{share} of its own direction": composed - share * own for share in SHARES},
    }
    counted = {name: _count(unit(vectors) @ gallery.T, queries) for name, vectors in ways.items()}
    hard = counted["plain"]["free"] <= _HARD
    return {
        "images": len(paths),
        "queries": len(queries),
        "hard queries": int(hard.sum()),
        "ways": {
            name: {
                "all": {part: round(float(values.mean()), 4) for part, values in parts.items()},
                "hard": {part: round(float(values[hard].mean()), 4) for part, values in parts.items()},
            }
            for name, parts in counted.items()
        },
        "free by unwanted": {
            thing: {
                name: round(float(parts["free"][[query.unwanted == thing for query in queries]].mean()), 4)
                for name, parts in counted.items()
            }
            for thing in sorted({query.unwanted for query in queries})
        },
    }


def _rows_of(blocks: list[VisionFeatures], rows: list[int], part: str) -> Tensor:
    """Some rows of one part of the features."""
    return torch.cat([getattr(block, part) for block in blocks])[rows]


def _count(scores: NDArray[np.float32], queries: list[LabelledQuery]) -> dict[str, NDArray[np.float64]]:
    """For each query the shares among its first results."""
    figures: defaultdict[str, list[float]] = defaultdict(list)
    for row, query in zip(scores, queries, strict=True):
        row[query.reference] = -np.inf
        first = np.argsort(-row, kind="stable")[:_FIRST]
        free, wanted = ~query.shows[first], query.wanted[first]
        for name, values in (("free", free), ("wanted", wanted), ("both", free & wanted)):
            figures[name].append(float(values.mean()))
    return {name: np.array(values) for name, values in figures.items()}


def main() -> None:
    """Measure both sets."""
    parser = script.parser(__doc__)
    script.add_data(parser)
    script.add_work(parser)
    parser.add_argument("--model", default="mini", help="what `fti4cir.load` takes")
    options = parser.parse_args()
    model = script.load_model(options.model)
    report = {
        "photographs": measure(model, *photographs(options.data, options.work)),
        "shop": measure(model, *shop(options.work)),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
