"""What is shown of text that somebody else wrote."""

from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fti4cir.escaping import escape, is_utf8


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("más/синий 猫.png", "más/синий 猫.png"),
        ("a\nb\r\tc", r"a\nb\r\tc"),
        ("\x1b[31mred\x07", r"\x1b[31mred\x07"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066\u200f\ufeff\u2028", r"\u2066\u200f\ufeff\u2028"),
        ("\x9b2J", r"\x9b2J"),
        (os.fsdecode(b"caf\xe9"), r"caf\udce9"),
        ("👩\u200d🔬 می\u200cخواهم", "👩\u200d🔬 می\u200cخواهم"),  # joiners that emoji and Persian need
        ("a\u3000b\u202fc", "a\u3000b\u202fc"),  # spaces in Japanese names, and in macOS' screenshots
        ("tab\\n", "tab\\n"),
    ],
)
def test_what_acts_or_hides_is_escaped(text: str, shown: str) -> None:
    assert escape(text) == shown


@given(st.text())
def test_one_line_that_can_be_written(text: str) -> None:
    shown = escape(text)
    assert len(shown.splitlines()) <= 1
    assert is_utf8(shown)
    assert "\x1b" not in shown


def test_is_utf8() -> None:
    assert is_utf8("猫")
    assert not is_utf8(os.fsdecode(b"\xff"))
