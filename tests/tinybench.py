"""Tiny copies of the published benchmarks, in their own layouts: a few images and queries each."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from standin import save_colour

REAL = Path(__file__).parents[2] / "shared" / "benchmarks"
"""The real annotation files, without images; where there are none, tests that need them are skipped."""


def write_json(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def colour(number: int) -> tuple[int, int, int]:
    """Another one for each image."""
    return (37 * number % 256, 91 * number % 256, 151 * number % 256)


def fashioniq(root: Path, categories: Sequence[str] = ("dress", "shirt", "toptee"), folder: str = "images") -> Path:
    """Per category five images, one of them in no query, and one query more than in the category before."""
    for order, category in enumerate(categories):
        names = [f"{category.upper()}{number}" for number in range(5)]
        write_json(root / "image_splits" / f"split.{category}.val.json", names)
        queries = [
            {"candidate": names[i], "target": names[i + 1], "captions": ["is red.", f" has {i} sleeves? "]}
            for i in range(order + 1)
        ]
        write_json(root / "captions" / f"cap.{category}.val.json", queries)
        for number, name in enumerate(names):
            save_colour(root / folder.format(category) / f"{name}.png", colour(10 * order + number))
    return root


def cirr(root: Path, annotation: str = "cirr", folder: str = "{}", split: str = "val") -> Path:
    """Two groups of six images, and a query from each of the first four images of a group to the next."""
    where = "dev" if split == "val" else split
    groups = [[f"{where}-{group}-{number}-img0" for number in range(6)] for group in range(2)]
    names = [name for group in groups for name in group]
    write_json(
        root / annotation / "image_splits" / f"split.rc2.{split}.json",
        {name: f"./{where}/{name}.png" for name in names},
    )
    queries: list[dict[str, Any]] = []
    for group in groups:
        for number in range(4):
            query = {
                "pairid": 100 + 3 * len(queries),
                "reference": group[number],
                "target_hard": group[number + 1],
                "target_soft": {group[number + 1]: 1.0, group[5]: 0.5},
                "caption": f"is number {number}",
                "img_set": {"id": 1, "members": group, "reference_rank": 0, "target_rank": 1},
            }
            if split == "test1":
                del query["target_hard"], query["target_soft"]
            queries.append(query)
    write_json(root / annotation / "captions" / f"cap.rc2.{split}.json", queries)
    for number, name in enumerate(names):
        save_colour(root / folder.format(where) / f"{name}.png", colour(number))
    return root


def circo(root: Path, folder: str = "COCO2017_unlabeled/unlabeled2017", info: str | None = None) -> Path:
    """Eight images; two queries, with three targets and with one; `info`: the folder of COCO's list, "" for none."""
    numbers = [7 * number + 3 for number in range(8)]  # 3, 10, 17, 24, 31, 38, 45, 52
    queries = [
        {
            "id": 0,
            "reference_img_id": 3,
            "target_img_id": 17,
            "relative_caption": "is red",
            "shared_concept": "a cat",
            "gt_img_ids": [17, 10, 24],
            "semantic_aspects": ["addition", "negation"],
        },
        {
            "id": 1,
            "reference_img_id": 10,
            "target_img_id": 45,
            "relative_caption": "is blue",
            "shared_concept": "a dog",
            "gt_img_ids": [45],
            "semantic_aspects": ["addition"],
        },
    ]
    write_json(root / "annotations" / "val.json", queries)
    hidden = ("target_img_id", "gt_img_ids", "semantic_aspects")
    test = [{name: value for name, value in query.items() if name not in hidden} for query in queries]
    write_json(root / "annotations" / "test.json", test)
    if info != "":
        images = [{"id": number, "file_name": f"{number:012}.jpg"} for number in reversed(numbers)]
        place = root / (info or "COCO2017_unlabeled/annotations") / "image_info_unlabeled2017.json"
        write_json(place, {"info": {}, "images": images})
    for number in numbers:
        save_colour(root / folder / f"{number:012}.jpg", colour(number))
    return root
