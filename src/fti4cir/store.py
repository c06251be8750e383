"""The store of indexed pictures: one Lance table, a row a picture. It knows no model.

A row holds `path` (relative to the indexed folder, with forward slashes), `mtime_ns` and `size` (of the file,
in nanoseconds and bytes), `digest` (of its content), `width` and `height` (of the upright picture, in pixels)
and `vector` (float32, unit length). All but the vector can be used in a filter.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfFlat
from numpy.typing import NDArray

from .errors import StoreError

ANN_ROWS = 100_000
"""With fewer rows, search is exact: every vector is looked at. From here on an approximate index is kept."""

_TABLE = "pictures"
_METADATA_KEY = b"fti4cir"
_FORMAT = 1

# Partitions of the approximate index that a search looks at. Among 100,000 clustered vectors of 256, this many
# held all true neighbours, in 11 ms where an exact search took 91 ms.
_PROBES = 32

# Old versions of the table serve searches that began before a write; none takes a day.
_KEEP_VERSIONS = timedelta(days=1)
# Paths named in one SQL expression; the parser gets slow with very long ones.
_PATHS_AT_ONCE = 1_000


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds: it is fixed when the store is made."""

    root: Path
    """The indexed folder, absolute."""
    model: str
    """The name of the model that made the vectors."""
    fingerprint: str
    """Of the same model; it changes when the vectors would."""
    width: int
    """Numbers in a vector."""


class FileState(NamedTuple):
    """What tells a changed file from an unchanged one without reading it."""

    mtime_ns: int
    size: int


class Row(NamedTuple):
    """One indexed picture; the fields are the table's columns."""

    path: str
    mtime_ns: int
    size: int
    digest: str
    width: int
    height: int
    vector: NDArray[np.float32]  # (D,), unit length


class Hit(NamedTuple):
    """One found picture: its path relative to the root, and the cosine of its vector with the query."""

    path: str
    score: float


def default_location(folder: str | Path) -> Path:
    """Where the first store of a folder lies unless somebody says otherwise: within it, hidden."""
    return Path(folder) / ".fti4cir"


def folder_stores(folder: str | Path) -> list[Store]:
    """The stores that a folder holds, one a model, in the order in which they were made.

    The first lies in `.fti4cir` itself, others in folders within it, whose names begin with their number.
    StoreError if one cannot be opened.
    """
    top = default_location(folder)
    numbered = sorted((number, place) for place in _listed(top) if (number := _number(place)) is not None)
    places = [top, *(place for _, place in numbered)]
    return [Store.open(place) for place in places if Store.exists(place)]


def location_for(folder: str | Path, model: str, fingerprint: str) -> Path:
    """Where the store of a folder for a model is, or where it should be made if there is none.

    Raises StoreError if a store in the folder cannot be opened.
    """
    stores = folder_stores(folder)
    for store in stores:
        if store.info.fingerprint == fingerprint:
            return Path(store.location)
    top = default_location(folder)
    if not Store.exists(top):
        return top
    last = max(_number(Path(store.location)) or 1 for store in stores)
    name = re.sub(r"[^a-z0-9]+", "-", Path(model).name.lower()).strip("-") or "model"
    return top / f"{last + 1}-{name[:40]}"


def _listed(folder: Path) -> list[Path]:
    try:
        return list(folder.iterdir())
    except OSError:  # there is none, or it is no folder: `Store.exists` decides what that means
        return []


def _number(place: Path) -> int | None:
    """The number with which the name of a store's folder begins; None if it has none."""
    found = re.match(r"(\d{1,9})-", place.name)
    return int(found[1]) if found else None


def check_condition(where: str) -> None:
    """Refuse a condition that no store could use, before any is opened; StoreError says why."""
    with _explained(f"Cannot use the condition {where!r}"):
        _require_alone(where)
        # Also in brackets: Lance passes over what follows a condition, such as an ORDER BY.
        empty = lancedb.connect("memory://").create_table(_TABLE, schema=pa.schema(_columns(1)))
        empty.search().where(f"({where})").select(["path"]).limit(1).to_arrow()


# Strings and quoted names of SQL, in which all else is text.
_QUOTED = re.compile(r"""'[^']*'|"[^"]*"|`[^`]*`""")


def _require_alone(where: str) -> None:
    """ValueError unless the brackets of a condition match; what else it may say, Lance knows."""
    bare = _QUOTED.sub("", where)
    depth = 0
    for character in bare:
        depth += {"(": 1, ")": -1}.get(character, 0)
        if depth < 0:
            break
    if depth:
        raise ValueError("its brackets do not match")
    if ";" in bare or "--" in bare or "/*" in bare:
        raise ValueError("it must be one condition, without a semicolon or a comment")


def _columns(width: int) -> list[pa.Field]:
    """The columns of a table whose vectors have so many numbers."""
    return [
        pa.field("path", pa.string(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
    ]


class Store:
    """An open store. Get one with `Store.create` or `Store.open`.

    Every change is atomic: a reader, or a process killed at any time, finds the table before or after it. A
    store that stays open sees what other processes write.
    """

    def __init__(self, location: str, table: Any, info: StoreInfo) -> None:
        self.location = location
        self.info = info
        self._table = table

    @staticmethod
    def exists(location: str | Path) -> bool:
        """Whether there is a store at a folder or URI; a StoreError if that cannot be found out."""
        # To connect to a local folder makes the folder, so look first.
        if not _is_uri(location):
            return (Path(location) / f"{_TABLE}.lance").is_dir()
        with _explained(f"Cannot reach the store '{location}'"):
            return _TABLE in _connect(location).list_tables().tables

    @classmethod
    def create(cls, location: str | Path, info: StoreInfo) -> Store:
        """Make an empty store; a StoreError if there is one already or the place cannot be written to."""
        about = {
            "format": _FORMAT,
            "root": _portable_root(location, info.root),
            "model": info.model,
            "fingerprint": info.fingerprint,
            "width": info.width,
        }
        schema = pa.schema(_columns(info.width), metadata={_METADATA_KEY: json.dumps(about).encode()})
        with _explained(f"Cannot make a store at '{location}' (--store names another place)"):
            table = _connect(location).create_table(_TABLE, schema=schema)
        return cls(str(location), table, info)

    @classmethod
    def open(cls, location: str | Path) -> Store:
        """Open a store; a StoreError if there is none, or none that this version can read."""
        if not cls.exists(location):
            raise StoreError(
                f"There is no store at '{location}'; make one with `fti4cir index FOLDER --store {location}`."
            )
        with _explained(f"Cannot open the store '{location}' (if it is damaged, delete it and index again)"):
            table = _connect(location).open_table(_TABLE)
            about = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
        if about.get("format") != _FORMAT:
            raise StoreError(
                f"The store '{location}' was made by another version of fti4cir or another program; "
                "delete it and index again, or name another place with --store."
            )
        root = Path(about["root"])
        if not root.is_absolute():
            root = (Path(location) / root).resolve()
        return cls(str(location), table, StoreInfo(root, about["model"], about["fingerprint"], about["width"]))

    def check_model(self, name: str, fingerprint: str) -> None:
        """A StoreError, with the mend, unless the named model made this store's vectors."""
        if fingerprint == self.info.fingerprint:
            return
        if name == self.info.model:
            raise StoreError(
                f"The store '{self.location}' was made with another version of the model '{name}'; "
                "delete it and index again."
            )
        raise StoreError(
            f"The store '{self.location}' was made with the model '{self.info.model}', not '{name}'; "
            "use that model, or index the folder again into another place (`fti4cir index FOLDER --store PLACE`)."
        )

    def __len__(self) -> int:
        """The number of pictures."""
        with self._reading():
            return int(self._table.count_rows())

    def files(self) -> dict[str, FileState]:
        """The state of every file when it was indexed, by relative path."""
        with self._reading():
            table = self._table.search().select(["path", "mtime_ns", "size"]).to_arrow()
        paths, times, sizes = (table[name].to_pylist() for name in ("path", "mtime_ns", "size"))
        return {path: FileState(*state) for path, *state in zip(paths, times, sizes, strict=True)}

    def upsert(self, rows: Sequence[Row]) -> None:
        """Write rows, in one change; a row whose path is there already replaces it."""
        if not rows:
            return
        vectors = np.stack([row.vector for row in rows])  # (N, D)
        columns = [pa.array([row[i] for row in rows]) for i in range(len(Row._fields) - 1)]
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.info.width))
        with self._writing():
            schema = self._table.schema
            data = pa.table([column.cast(schema.field(i).type) for i, column in enumerate(columns)], schema=schema)
            self._table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all().execute(data)

    def remove(self, paths: Iterable[str]) -> None:
        """Take the rows of these paths out; paths that are not there are passed over."""
        paths = list(paths)
        with self._writing():
            for start in range(0, len(paths), _PATHS_AT_ONCE):
                self._table.delete(f"path IN {_sql_list(paths[start : start + _PATHS_AT_ONCE])}")

    def optimize(self) -> None:
        """Make searches fast after writes: merge small files, drop old versions, keep the approximate index.

        The index is made once the store has ANN_ROWS pictures; later ones join it here, and until then are
        searched exactly. It is of the kind IVF-Flat: only the nearest partitions are looked at, but the vectors
        in them are whole, so that scores stay exact.
        """
        with self._writing():
            if self._table.count_rows() >= ANN_ROWS and not self._table.list_indices():
                self._table.create_index("vector", config=IvfFlat(distance_type="cosine"))
            self._table.optimize(cleanup_older_than=_KEEP_VERSIONS)

    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        where: str | None = None,
        without_paths: Sequence[str] = (),
        without_digests: Sequence[str] = (),
    ) -> list[Hit]:
        """The k pictures whose vectors have the greatest cosine with `vector` (D,), best first.

        Fewer only if the store has fewer: `where`, an SQL condition over the columns, and the excluded paths
        and digests hold before the k best are taken. Pictures of equal score come in the order of their paths.

        Raises StoreError if the condition cannot be understood.
        """
        if where is not None:
            check_condition(where)
        # Excluded pictures are taken out here and not by the condition, which whatever a user writes cannot change.
        paths, digests = set(without_paths), set(without_digests)
        wanted = k + len(paths) + len(digests)
        while True:
            rows = self._nearest(vector, wanted, where)
            hits = [Hit(path, score) for path, digest, score in rows if path not in paths and digest not in digests]
            if len(hits) >= k or len(rows) < wanted:
                break
            wanted *= 2  # there are several copies of what is excluded
        return sorted(hits, key=lambda hit: (-hit.score, hit.path))[:k]

    def _nearest(self, vector: NDArray[np.float32], k: int, where: str | None) -> list[tuple[str, str, float]]:
        """Path, digest and score of the k nearest rows, or of as many as there are."""
        # A condition may fail on a value, such as a division by zero, and then the store is not at fault.
        with self._reading() if where is None else _explained(f"Cannot use the condition {where!r}"):
            query = (
                self._table.search(vector, vector_column_name="vector")
                .distance_type("cosine")
                # Without the index these two change nothing. Zero means no upper limit: a narrow condition
                # must not leave fewer than k.
                .minimum_nprobes(_PROBES)
                .maximum_nprobes(0)
                .select(["path", "digest", "_distance"])
                .limit(min(k, max(1, self._table.count_rows())))
            )
            if where is not None:
                query = query.where(where, prefilter=True)
            table = query.to_arrow()
        paths, digests, distances = (table[name].to_pylist() for name in ("path", "digest", "_distance"))
        return [(path, digest, 1.0 - gone) for path, digest, gone in zip(paths, digests, distances, strict=True)]

    def _reading(self) -> Any:
        return _explained(f"Cannot read the store '{self.location}' (if it is damaged, delete it and index again)")

    def _writing(self) -> Any:
        return _explained(f"Cannot write to the store '{self.location}'")


def _is_uri(location: str | Path) -> bool:
    return "://" in str(location)


def _connect(location: str | Path) -> Any:
    # An interval of zero: every query sees the latest version, which on a local disk costs nothing to look up.
    return lancedb.connect(str(location), read_consistency_interval=timedelta(0))


def _portable_root(location: str | Path, root: Path) -> str:
    """The root as it is written down: relative where the store lies within it, so that both can be moved."""
    if not _is_uri(location):
        place = Path(location).resolve()
        if place.is_relative_to(root):
            return "/".join([".."] * len(place.relative_to(root).parts)) or "."
    return root.as_posix()


def _sql_list(texts: Iterable[str]) -> str:
    return "(" + ", ".join("'" + text.replace("'", "''") + "'" for text in texts) + ")"


@contextmanager
def _explained(what: str) -> Iterator[None]:
    """Turn what LanceDB raises (there is no class of its own) into a StoreError of one sentence."""
    try:
        yield
    except (OSError, RuntimeError, ValueError) as error:
        # Lance puts a condition into a statement of its own, which the user has not written.
        reason = re.sub(r"Error parsing statement: .*\(sql parser error: (.*)\)$", r"\1", str(error), flags=re.DOTALL)
        reason = re.sub(r" at Line: \d+, Column: \d+", "", reason).partition("\n")[0]
        # Lance adds the place in its own source, which tells a user nothing.
        reason = re.sub(r",? ?\S+\.rs:\d+(:\d+)?", "", reason).removeprefix("Invalid input, ")
        raise StoreError(f"{what}: {reason.rstrip('.')}.") from error
