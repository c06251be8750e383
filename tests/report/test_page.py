"""The page: whole, self-contained, and true to the figures."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from fti4cir.html import stylesheet
from fti4cir.report import Study
from fti4cir.report.examples import choose
from fti4cir.report.page import page
from fti4cir.report.study import Item, Words
from fti4cir.report.table import figures, hits
from htmlpage import Page
from tinystudy import two_methods


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Study:
    return two_methods(tmp_path_factory.mktemp("pictures"))


def test_self_contained(made: Study) -> None:
    text = page(made, figures(made))
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=|url\((?!data:image/)|@import", text)


def test_what_it_says(made: Study) -> None:
    summary = figures(made)
    read = Page(page(made, summary))
    first = summary["evaluations"][0]["metrics"]["mAP@10"]
    assert f"good reaches mAP@10 {first:.3f}" in read.text
    assert "colours & <more>" in read.text
    assert "this, but in <red> & " in read.text
    assert f"{-summary['differences'][1]['difference']:.3f} more than bad (+" in read.text
    assert "may be chance" in read.text or all(one["significant"] for one in summary["differences"])
    assert "missing" not in read.text
    assert "5 images are missing." in Page(page(made, {**summary, "missing": 5})).text
    for value in range(4):
        assert f"<value> {value}" in read.text


def test_every_figure_says_whose_it_is(made: Study) -> None:
    """On a phone a method's figures stand one below the other, without the table's head: each has its method's name."""
    read = Page(page(made, figures(made)))
    summary = figures(made)
    cells = len(summary["shown"]) * (2 * len(made.evaluations) - 1)  # the figures, and the differences to the first
    assert read.classes.count("who") == read.classes.count("figure") == cells
    narrow = stylesheet().partition("@media (max-width")[2]
    assert "  table, caption, tbody, tr, tbody th, td { display: block; }" in narrow


def test_right_answers_are_marked(made: Study) -> None:
    read = Page(page(made, figures(made)))
    shown = [number for group in choose(made) for number in group.queries]
    right = sum(int(hits(made.questions, one.ranking)[shown, :8].sum()) for one in made.evaluations)
    assert right > 0
    assert read.classes.count("right") == read.classes.count("tick-mark") == right
    number = shown[0]
    first = hits(made.questions, made.evaluations[0].ranking)[number].argmax() + 1
    precision = made.evaluations[0].per_query["mAP@10"][number]
    assert f"first right one at rank {first}; AP@10 {precision:.3f}" in read.text


def test_words_and_latent_attributes(made: Study) -> None:
    first = made.evaluations[0]
    words = Words(first, np.array([1, 2, 2]), 4, 0.05, ((0, made.evaluations[1]), (4, first)))
    plain = Page(page(made, figures(made))).text
    wordy = replace(made, words=words, latent=((6, first), (8, first)))
    read = Page(page(wordy, figures(wordy))).text
    for title in ("Attribute words an image", "mAP@10 by the most attribute words", "mAP@10 by latent attributes"):
        assert title in read
        assert title not in plain
    assert "relevance above 0.05, at least one, at most 4; over 3 images" in read


def test_several_models_of_one_method(made: Study) -> None:
    first, second = (replace(one, method="ours", model=f"runs/{one.method}") for one in made.evaluations)
    words = Words(second, np.array([1, 2, 2]), 4, 0.05, ((0, first), (4, second)))
    both = replace(made, evaluations=(first, second), words=words, latent=((6, second), (8, first)))
    text = page(both, figures(both))
    read = Page(text).text
    assert "ours (good) reaches mAP@10" in read
    assert "more than ours (bad) (" in read
    assert "modelsruns/good, runs/bad" in read
    assert "Difference to ours (good), paired by query" in read
    assert "Highest mAP@10 by ours (good)," in read
    assert "queries start from. Made by ours (bad)." in read
    assert "The bar is ours (good), the marks on it are ours (bad)." in read
    assert "mAP@10 over latent attributes K of the model: ours from" in text
    assert text.count(">ours (bad)<") > 6


def test_captions_instead_of_images(made: Study) -> None:
    texts = tuple(Item(f"a caption <{number}>", None) for number in range(len(made.gallery)))
    described = replace(made, gallery=texts, one_is_enough=True)
    read = Page(page(described, figures(described)))
    assert "a caption <3>" in read.text
    assert "strip" not in read.classes
    assert read.classes.count("image") == 12  # the images of the queries


def test_one_method_without_values(made: Study) -> None:
    alone = replace(made, evaluations=(replace(made.evaluations[0], values=()),))
    read = Page(page(alone, figures(alone))).text
    assert "Difference" not in read
    assert "by value" not in read
