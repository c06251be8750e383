"""The page of an explanation: self-contained, well formed, and safe whatever a name or a word holds."""

from __future__ import annotations

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fti4cir.errors import InputError
from fti4cir.models.explain import Attribute, Explanation
from fti4cir.models.real_words import NearWord
from fti4cir.report.explanation import explanation_page, write_html
from htmlpage import Page

HOSTILE = "</style><script>alert(1)</script>\"' onload=x <img src=x>"


def explanation(name: str = "a.png", word: str = "red", size: tuple[int, int] = (90, 40)) -> Explanation:
    heat = np.eye(4, dtype=np.float32) / 4
    near = (NearWord(word, 0.5), NearWord("blue", 0.25))
    return Explanation(
        model="tiny",
        source=name,
        image=Image.new("RGB", size, "red"),
        subject=near,
        attributes=(Attribute(2, 0.5, near, heat), Attribute(0, 0.3, near, heat)),
        relevance=(0.3, 0.2, 0.5),
        threshold=0.25,
    )


def test_what_it_says() -> None:
    read = Page(explanation_page(explanation()))
    assert "What tiny sees in a.png" in read.text
    assert re.sub(r"\s+", " ", read.text).count("a photo of red with red red") == 1
    assert "tiny makes 3 pseudo-words of the image" in read.text
    assert "Attribute 2" in read.text
    assert "those above 25%" in read.text
    assert read.tags.count("img") == 2
    assert read.classes.count("kept") == 2
    assert read.tags.count("hr") == 1  # the threshold
    assert "dark border was cut off" in read.text
    assert "dark border" not in Page(explanation_page(explanation(size=(40, 40)))).text


def test_the_image_is_shown() -> None:
    text = explanation_page(explanation())
    assert re.search(r"\.photo \{ --ratio: 90 / 40; background-image: url\(data:image/jpeg;base64,[\w+/=]+\); \}", text)
    assert text.count('class="photo"') == 3


def test_self_contained() -> None:
    """Every address is an image inside the file, and nothing runs."""
    text = explanation_page(explanation())
    assert "<script" not in text
    assert not re.search(r"(?:src|href)=\"(?!data:image/)|url\((?!data:image/)|@import", text)


def test_text_cannot_inject() -> None:
    """Names and words are text whatever they hold: the page has the same tags as with harmless ones."""
    expected = Page(explanation_page(explanation()))
    read = Page(explanation_page(replace(explanation(HOSTILE, HOSTILE), model=HOSTILE)))
    assert (read.tags, read.attributes) == (expected.tags, expected.attributes)
    assert read.text.count(HOSTILE) == 11  # the title twice, with two each; the summary; three words and three chips


def test_a_name_that_is_no_utf8(tmp_path: Path) -> None:
    write_html(explanation("a\udcff.png"), tmp_path / "page.html")
    assert "a\\udcff.png" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_without_attributes() -> None:
    read = Page(explanation_page(replace(explanation(), attributes=(), relevance=(), threshold=None)))
    assert "figure" not in read.tags
    assert "one pseudo-word" in read.text
    assert "with" not in re.findall(r"a photo of\s+red\s*(\w*)", read.text)


def test_without_real_words() -> None:
    assert "no real word" in Page(explanation_page(replace(explanation(), subject=()))).text


def test_a_page_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="cannot be written"):
        write_html(explanation(), tmp_path / "no" / "page.html")
    (tmp_path / "page.html").write_text("old")

    def full(number: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left"):
        write_html(explanation(), tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == "old"
