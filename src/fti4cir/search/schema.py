"""The columns of an index: one row per image, and what is recorded once for the whole table.

A row holds `path` (relative to the indexed folder, with forward slashes), `mtime_ns` and `size` (of the file, in
nanoseconds and bytes), `digest` (of its content), `width` and `height` (of the upright image, in pixels) and `vector`
(float32, unit length). Every column except the vector can be used in a filter.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import StoreError
from ..files import is_uri

TABLE = "pictures"
"""The table's name on disk."""

# Marks a column as the table's key for LanceDB. Its merge_insert then notices rows that another writer has inserted
# in the meantime; without the mark, both rows are kept.
_KEY_MARK = b"lance-schema:unenforced-primary-key"
_METADATA_KEY = b"fti4cir"
_FORMAT = 1


@dataclass(frozen=True)
class StoreInfo:
    """What holds for every row of an index; it is fixed when the index is made."""

    root: Path
    """The indexed folder, absolute."""
    model: str
    """The name of the model that made the vectors."""
    fingerprint: str
    """The same model's fingerprint, which changes whenever its vectors would."""
    width: int
    """Numbers in a vector."""


class FileState(NamedTuple):
    """Distinguishes a changed file from an unchanged one without reading it."""

    mtime_ns: int
    size: int


class Row(NamedTuple):
    """One indexed image. The fields are the table's columns."""

    path: str
    mtime_ns: int
    size: int
    digest: str
    width: int
    height: int
    vector: NDArray[np.float32]  # (D,), unit length


def columns(width: int) -> list[pa.Field]:
    """The columns of a table whose vectors have `width` numbers."""
    return [
        pa.field("path", pa.string(), nullable=False, metadata={_KEY_MARK: b"true"}),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
    ]


def new_schema(location: str | Path, info: StoreInfo) -> pa.Schema:
    """The schema of a new table: its columns, and the `StoreInfo` as metadata."""
    about = {
        "format": _FORMAT,
        "root": _portable_root(location, info.root),
        "model": info.model,
        "fingerprint": info.fingerprint,
        "width": info.width,
    }
    return pa.schema(columns(info.width), metadata={_METADATA_KEY: json.dumps(about).encode()})


def read_info(location: str | Path, schema: pa.Schema) -> StoreInfo:
    """The inverse of `new_schema`.

    Raises:
        StoreError: if the table was made by another version or another program.
        ValueError: if the metadata is damaged.
    """
    about = json.loads((schema.metadata or {}).get(_METADATA_KEY, b"{}"))
    if about.get("format") != _FORMAT:
        raise StoreError(
            f"The index '{location}' was made by another version of fti4cir or another program; "
            "delete it and index again, or name another place with --store."
        )
    root = Path(about["root"])
    if not root.is_absolute():
        root = (Path(location) / root).resolve()
    return StoreInfo(root, about["model"], about["fingerprint"], about["width"])


def has_key(schema: pa.Schema) -> bool:
    """Whether `path` is declared as the table's key. Early versions made tables without a key."""
    metadata = schema.field("path").metadata or {}
    return any(name.startswith(_KEY_MARK) for name in metadata)


def to_arrow(rows: Sequence[Row], schema: pa.Schema) -> pa.Table:
    """Rows, at least one, as an Arrow table of this schema."""
    vectors = np.stack([row.vector for row in rows])  # (N, D)
    values = [pa.array([row[i] for row in rows]) for i in range(len(Row._fields) - 1)]
    values.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]))
    return pa.table([column.cast(schema.field(i).type) for i, column in enumerate(values)], schema=schema)


def from_arrow(found: Any) -> list[Row]:
    """The rows of an Arrow table that has all columns of `Row`."""
    vectors = found["vector"].combine_chunks()
    values = vectors.flatten().to_numpy().reshape(len(found), vectors.type.list_size)
    return list(map(Row, *(found[name].to_pylist() for name in Row._fields[:-1]), values))


def _portable_root(location: str | Path, root: Path) -> str:
    """The root as it is recorded: relative if the index lies within it, so that both can be moved together."""
    if not is_uri(location):
        place = Path(location).resolve()
        if place.is_relative_to(root):
            return "/".join([".."] * len(place.relative_to(root).parts)) or "."
    return root.as_posix()
