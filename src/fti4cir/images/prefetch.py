"""Work ahead of the caller: while a model is busy, threads read and decode the next images."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def prefetch(
    function: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = 64, workers: int | None = None
) -> Generator[Result, None, None]:
    """Results of a function for each item, in order, computed by threads a few items ahead.

    Unlike `Executor.map`, which would soon hold the images of a whole folder, this holds at most `ahead` + 1 results.
    Items are taken in the caller's thread, so that they may come from a source with one reader, such as a tar file.
    Close the generator to stop early: work that has not begun is cancelled.

    Args:
        function: called in a thread. Its exceptions are raised in place of its result.
        items: taken one by one.
        ahead: how many results may wait, at least 1.
        workers: threads; None: one for each processor.

    >>> list(prefetch(len, ["a", "bc"]))
    [1, 2]
    """
    pool = ThreadPoolExecutor(workers or os.cpu_count())
    waiting: deque[Future[Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        # After Ctrl-C, do not wait for results that are not used.
        pool.shutdown(cancel_futures=True)
