"""Matrices that are computed once by blocks of rows and read from memory-mapped files, such as features of texts."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backbones.base import DualEncoder
from ..errors import CacheError
from ..files import writing
from ..inversion.compose import encode_sentences
from ..progress import ProgressLog

_logger = logging.getLogger(__name__)

_TEXT_BLOCK = 256
"""Sentences that pass the text tower together. They are the same with an interruption as without, because the size of
a batch may decide how features are rounded."""


def compute_texts(
    folder: Path, encoder: DualEncoder, texts: Sequence[str], *, label: str = "text features"
) -> NDArray[np.float32]:
    """Compute the features of texts unless `folder` holds them already: (N, D), not normalised.

    `label` is how lines of progress begin.

    Raises:
        CacheError: if the folder cannot be written to.

    """

    def encode(start: int, stop: int) -> Tensor:
        with torch.no_grad():
            return encode_sentences(encoder, [(text,) for text in texts[start:stop]])

    return compute_rows(
        folder,
        "texts",
        made_of=[encoder.fingerprint, list(texts)],
        shape=(len(texts), encoder.joint_width),
        block=_TEXT_BLOCK,
        make=encode,
        label=label,
    )


def compute_rows(
    folder: Path,
    name: str,
    *,
    made_of: object,
    shape: tuple[int, int],
    block: int,
    make: Callable[[int, int], Tensor],
    label: str | None = None,
) -> NDArray[np.float32]:
    """Compute the rows of a matrix that `folder` does not hold yet, block by block; logs progress.

    Args:
        folder: the cache; made if missing.
        name: what the rows are called in file names.
        made_of: all that decides the rows, as JSON can say it. Each such matrix has a file of its own.
        shape: rows and columns.
        block: rows that are made together, the same with an interruption as without.
        make: gives the rows from `start` up to `stop`, float32.
        label: how lines of progress begin, such as "features of captions"; None: `name`.

    Raises:
        CacheError: if the folder cannot be written to.

    """
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    path = folder / f"{name}-{key}.f32"
    if not path.exists():
        with writing(folder, CacheError):
            folder.mkdir(parents=True, exist_ok=True)
            _make_rows(path, shape, block, make, label or name)
    if path.stat().st_size != 4 * math.prod(shape):
        raise CacheError(f"The {name} in {path} are damaged; delete the file.")
    rows: NDArray[np.float32] = np.memmap(path, np.float32, "r", shape=shape)
    return rows


def _make_rows(path: Path, shape: tuple[int, int], block: int, make: Callable[[int, int], Tensor], label: str) -> None:
    """Write the rows into a file beside `path`, going on where an earlier run stopped, and rename it."""
    partial = path.with_suffix(".part")
    partial.touch()
    block_size = 4 * shape[1] * block
    blocks = partial.stat().st_size // block_size  # that an earlier run has made whole
    progress = ProgressLog(_logger, label, total=shape[0], already=blocks * block)
    with open(partial, "r+b") as file:
        file.truncate(blocks * block_size)
        file.seek(0, os.SEEK_END)
        for start in range(blocks * block, shape[0], block):
            stop = min(start + block, shape[0])
            file.write(make(start, stop).float().cpu().numpy().tobytes())
            file.flush()
            progress.update(stop)
        os.fsync(file.fileno())
    partial.replace(path)


def write_rows(path: Path, start: int, rows: NDArray[Any]) -> None:
    """Write rows of a file of equal rows, from row `start` on, through to the disk."""
    with open(path, "r+b") as file:
        file.seek(start * rows[0].nbytes)
        file.write(rows.tobytes())
        file.flush()
        os.fsync(file.fileno())
