"""Conditions that a user wrote: the message says what is wrong and no more."""

from __future__ import annotations

from pathlib import Path

import pytest

from fti4cir.errors import StoreError
from tinyindex import make, rows, vectors


@pytest.mark.parametrize("where", ["", "nope = 1", "width <", "width = 'a'", "width", "1=1; drop table x"])
def test_a_condition_that_cannot_be_used(tmp_path: Path, where: str) -> None:
    store = make(tmp_path)
    store.upsert(rows(vectors(3)))
    with pytest.raises(StoreError) as caught:
        store.search(vectors(1)[0], 5, where=where, without_paths=["d/0.jpg"])
    message = str(caught.value)
    assert repr(where) in message
    assert "\n" not in message
    assert ".rs:" not in message


@pytest.mark.parametrize(
    ("where", "reason"), [("1/0 = 1", "Divide by zero error."), ("cast(path as int) > 1", "Cast error: Cannot cast ")]
)
def test_a_condition_that_fails_on_the_rows_says_why_and_no_more(tmp_path: Path, where: str, reason: str) -> None:
    store = make(tmp_path)
    store.upsert(rows(vectors(3)))
    with pytest.raises(StoreError) as caught:
        store.search(vectors(1)[0], 5, where=where)
    assert str(caught.value).startswith(f"Cannot use the condition {where!r}: {reason}")
