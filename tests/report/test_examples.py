"""Which queries are shown, and their thumbnails."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fti4cir.errors import ImageError
from fti4cir.report import Study
from fti4cir.report.examples import Thumbnails, choose
from standin import save_colour
from tinystudy import benchmark, ranked, two_methods


def with_figures(made: Study, figures: list[float]) -> Study:
    """Few enough of them that chance cannot hide a mistake."""
    first = replace(made.evaluations[0], per_query={"mAP@10": np.array(figures)})
    return replace(made, evaluations=(first,))


def test_best_and_worst(tmp_path: Path) -> None:
    made = with_figures(two_methods(tmp_path), [number / 24 for number in range(24)])
    random, best, worst = choose(made)
    assert (random.title, best.title, worst.title) == ("Random", "Best", "Worst")
    rest = sorted(set(range(24)) - set(random.queries))
    assert best.queries == tuple(rest[:-4:-1])
    assert worst.queries == tuple(rest[:3])
    assert "chance" not in best.why + worst.why
    assert choose(made) == choose(made)


def test_ties_are_told(tmp_path: Path) -> None:
    made = with_figures(two_methods(tmp_path), [1.0] * 20 + [0.0] * 4)
    _, best, worst = choose(made)
    assert "20 of 24 queries have 1.000: chance decided" in best.why
    assert "4 of 24 queries have 0.000" in worst.why
    assert len({*best.queries, *worst.queries}) == 6


def test_random_ones_do_not_depend_on_the_figures(tmp_path: Path) -> None:
    """If the best and the worst were taken first, the rest would not be a fair sample."""
    made = two_methods(tmp_path)
    chosen = {choose(with_figures(made, figures))[0].queries for figures in ([0.0] * 24, [0.0, 1.0] * 12, [1.0] * 24)}
    assert len(chosen) == 1


def test_few_queries(tmp_path: Path) -> None:
    whole = benchmark(tmp_path)
    for count, groups in ((1, 1), (7, 2), (9, 2), (10, 3)):
        part = replace(whole, queries=whole.queries[:count], values=())
        chosen = choose(Study((ranked(part, "one", 0),), "mAP@10", (), ()))
        assert len(chosen) == groups
        queries = [number for group in chosen for number in group.queries]
        assert sorted(queries) == list(range(count))


def test_thumbnails(tmp_path: Path) -> None:
    wide = save_colour(tmp_path / "wide.png", "red", (600, 300))
    thumbnails = Thumbnails()
    first = thumbnails.style_of(wide)
    second = thumbnails.style_of(save_colour(tmp_path / "small.png", "blue", (20, 30)))
    assert first != second
    assert thumbnails.style_of(wide) == first
    assert list(thumbnails.images) == [first, second]
    kind, _, data = thumbnails.images[first].partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(data))) as image:
        assert image.size == (144, 72)
        assert image.getpixel((70, 40))[0] > 240
    with pytest.raises(ImageError, match=r"gone\.png"):
        thumbnails.style_of(tmp_path / "gone.png")
