from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from fti4cir.images.prefetch import prefetch


def test_results_come_in_order_and_not_far_ahead() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(100):
            taken.append(number)
            yield number

    results = prefetch(lambda number: number * number, items(), ahead=8)
    for place in range(100):
        assert next(results) == place * place
        assert len(taken) <= place + 9
    assert next(results, None) is None


def test_what_the_function_raises_comes_in_its_place() -> None:
    results = prefetch(lambda number: 1 // number, [2, 1, 0, 3])
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_who_stops_early_waits_for_nothing_that_has_not_begun() -> None:
    begun: list[int] = []
    release = threading.Event()

    def work(number: int) -> int:
        begun.append(number)
        if number:
            release.wait(5)
        return number

    results = prefetch(work, range(50), ahead=40, workers=1)
    assert next(results) == 0
    release.set()
    results.close()
    assert len(begun) < 40
