"""The store of indexed images: one Lance table, a row an image. It knows no model.

A row holds `path` (relative to the indexed folder, with forward slashes), `mtime_ns` and `size` (of the file,
in nanoseconds and bytes), `digest` (of its content), `width` and `height` (of the upright image, in pixels)
and `vector` (float32, unit length). All but the vector can be used in a filter.

A path has one row, whoever writes at the same time. `path` is the table's key, so that of two writers who insert
the same path the later one is refused by LanceDB and tries again. That holds on a local disk and in an object
store. Stores made before the key was declared may hold a path twice: searches show it once, `repair` removes the
rest.
"""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import lancedb
import numpy as np
import pyarrow as pa
from filelock import FileLock, Timeout
from lancedb.index import IvfFlat
from numpy.typing import NDArray

from ..errors import StoreError
from ..files import is_uri

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
# Values named in one SQL expression; the parser gets slow with very long ones.
_VALUES_AT_ONCE = 1_000

# What marks a column as the table's key for LanceDB. Its merge_insert then notices rows that another writer has
# inserted meanwhile; without the mark both are kept.
_KEY_MARK = b"lance-schema:unenforced-primary-key"
# What LanceDB says when another writer was faster, after its own attempts.
_CONFLICT = re.compile("commit conflict|concurrent writ|incompatible transaction", re.IGNORECASE)
_CONFLICT_SECONDS = 60.0
"""How long a change that other writers overtake is tried again."""

_LOCK = "index.lock"
_LOCK_POLL = 0.5
"""Seconds between two looks at a lock that another process holds."""

# Cosines that differ by less are a tie as far as the search is concerned that decides whether it has seen enough.
_TIE = 1e-6


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
    """One indexed image; the fields are the table's columns."""

    path: str
    mtime_ns: int
    size: int
    digest: str
    width: int
    height: int
    vector: NDArray[np.float32]  # (D,), unit length


class Hit(NamedTuple):
    """One found image: its path relative to the root, and the cosine of its vector with the query."""

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
        empty = lancedb.connect("memory://").create_table(_TABLE, schema=pa.schema(_fields(1)))
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


def _fields(width: int) -> list[pa.Field]:
    """The columns of a table whose vectors have so many numbers."""
    return [
        pa.field("path", pa.string(), nullable=False, metadata={_KEY_MARK: b"true"}),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("digest", pa.string(), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("vector", pa.list_(pa.float32(), width), nullable=False),
    ]


class Store:
    """An open store. Get one with `Store.create`, `Store.open` or `Store.planned`.

    Every change is atomic: a reader, or a process killed at any time, finds the table before or after it. A
    store that stays open sees what other processes write.
    """

    def __init__(self, location: str, table: Any, info: StoreInfo) -> None:
        self.location = location
        self.info = info
        self._table = table
        self._database: Any = None
        self._has_key = False
        self._has_place = False  # whether its folder has been there

    @staticmethod
    def exists(location: str | Path) -> bool:
        """Whether there is a store at a folder or URI; a StoreError if that cannot be found out."""
        if is_uri(location):
            with _explained(f"Cannot reach the store '{location}'"):
                database = _connect(location)
                return _TABLE in database.list_tables().tables and _is_whole(database)
        # Connecting to a local folder would make the folder. A process that was killed while it made the store, or
        # that is about to make it, has the table's folder but no version of it.
        try:
            return any((Path(location) / f"{_TABLE}.lance" / "_versions").iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StoreError(f"Cannot reach the store '{location}': {error.strerror}.") from error

    @classmethod
    def create(cls, location: str | Path, info: StoreInfo) -> Store:
        """Make an empty store; a StoreError if there is one already or the place cannot be written to."""
        store = cls.planned(location, info)
        with _explained(_cannot_make(location)):
            store._database = _connect(location)
            store._table = store._database.create_table(_TABLE, schema=_schema(location, info))
        return store

    @classmethod
    def planned(cls, location: str | Path, info: StoreInfo) -> Store:
        """A store that its first written row makes; until then it is empty, and nothing is at its place."""
        return cls(str(location), None, info)

    @classmethod
    def open(cls, location: str | Path) -> Store:
        """Open a store; a StoreError if there is none, or none that this version can read."""
        if not cls.exists(location):
            raise StoreError(
                f"There is no store at '{location}'; make one with `fti4cir index FOLDER --store {location}`."
            )
        with _explained(f"Cannot open the store '{location}' (if it is damaged, delete it and index again)"):
            database = _connect(location)
            table = database.open_table(_TABLE)
            about = json.loads((table.schema.metadata or {}).get(_METADATA_KEY, b"{}"))
        if about.get("format") != _FORMAT:
            raise StoreError(
                f"The store '{location}' was made by another version of fti4cir or another program; "
                "delete it and index again, or name another place with --store."
            )
        root = Path(about["root"])
        if not root.is_absolute():
            root = (Path(location) / root).resolve()
        store = cls(str(location), table, StoreInfo(root, about["model"], about["fingerprint"], about["width"]))
        store._database = database
        return store

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

    def check_root(self, root: Path) -> None:
        """A StoreError, which says what to do, unless the store holds images of this folder (absolute)."""
        if self.info.root != root:
            raise StoreError(
                f"The store '{self.location}' holds images of '{self.info.root}', not of '{root}'; "
                "name another place with --store."
            )

    @contextmanager
    def only_writer(self, wait: Callable[[], bool]) -> Iterator[bool]:
        """Hold the store's lock between processes: True within it, False if another process kept it.

        `wait` is called whenever another process is found to hold it, and says whether to go on waiting. The
        system takes the lock from a process that ends, however it ends. Where no lock can be had (an object
        store, a folder that cannot be written to, a file system without locks) this goes on without: the lock
        saves two processes from doing the same work, and is not what keeps a path in one row.
        """
        if is_uri(self.location):
            yield True
            return
        lock = _Lock(Path(self.location))
        try:
            mine = lock.acquire(wait)
            self._has_place = True
            yield mine
        finally:
            lock.release(unused=not self.exists(self.location))

    def __len__(self) -> int:
        """The number of rows: of images, unless some path is there twice (see `repair`)."""
        with self._reading():
            table = self._opened()
            return 0 if table is None else int(table.count_rows())

    def files(self) -> dict[str, FileState]:
        """The state of every file when it was indexed, by relative path."""
        paths, times, sizes = self._columns("path", "mtime_ns", "size")
        return dict(zip(paths, map(FileState, times, sizes), strict=True))

    def digests(self) -> dict[str, str]:
        """The digest of every file when it was indexed, by relative path."""
        return dict(zip(*self._columns("path", "digest"), strict=True))

    def with_digests(self, digests: Collection[str]) -> dict[str, Row]:
        """For each of these digests that the store has, one of its rows."""
        rows: dict[str, Row] = {}
        wanted = list(digests)
        with self._reading():
            table = self._opened()
            if table is None:
                return {}
            for start in range(0, len(wanted), _VALUES_AT_ONCE):
                condition = f"digest IN {_sql_list(wanted[start : start + _VALUES_AT_ONCE])}"
                found = table.search().where(condition).select(list(Row._fields)).to_arrow()
                vectors = found["vector"].combine_chunks().flatten().to_numpy().reshape(-1, self.info.width)
                others = (found[name].to_pylist() for name in Row._fields[:-1])
                rows |= {row.digest: row for row in map(Row, *others, vectors)}
        return rows

    def snapshot(self) -> Store:
        """The store as it is now, to read from; later changes do not show in it."""
        with self._reading():
            table = self._opened()
            if table is None:
                return Store.planned(self.location, self.info)
            # Of the same connection: each has its own `memory://`.
            pinned = self._database.open_table(_TABLE)
            pinned.checkout(table.version)
        return Store(self.location, pinned, self.info)

    def upsert(self, rows: Iterable[Row]) -> None:
        """Write rows, in one change; a row whose path is there already replaces it, the last of a path wins."""
        rows = list({row.path: row for row in rows}.values())
        if not rows:
            return
        vectors = np.stack([row.vector for row in rows])  # (N, D)
        columns = [pa.array([row[i] for row in rows]) for i in range(len(Row._fields) - 1)]
        columns.append(pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), self.info.width))
        table = self._opened()
        if table is None:
            table = self._made()
        with self._writing():
            self._declare_key(table)
            schema = table.schema
            data = pa.table([column.cast(schema.field(i).type) for i, column in enumerate(columns)], schema=schema)
            merge = table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all()
            _retried(lambda: merge.execute(data))

    def remove(self, paths: Iterable[str]) -> None:
        """Take the rows of these paths out; paths that are not there are passed over."""
        self._delete("path", [_sql_text(path) for path in paths])

    def repair(self) -> int:
        """Leave one row of each path that has several, the latest; how many rows that removed."""
        paths, times, row_ids = self._columns("path", "mtime_ns", "_rowid")
        order = sorted(range(len(paths)), key=lambda i: (times[i], row_ids[i]))
        latest = {paths[i]: i for i in order}
        extra = [str(row_ids[i]) for i in order if latest[paths[i]] != i]
        # A row that another writer replaces or moves in the meantime gets another id, so that this passes it over.
        self._delete("_rowid", extra)
        return len(extra)

    def optimize(self) -> None:
        """Make searches fast after writes: merge small files, drop old versions, keep the approximate index.

        The index is made once the store has ANN_ROWS images; later ones join it here, and until then are
        searched exactly. It is of the kind IVF-Flat: only the nearest partitions are looked at, but the vectors
        in them are whole, so that scores stay exact.
        """
        with self._writing():
            table = self._opened()
            if table is None:
                return
            if table.count_rows() >= ANN_ROWS and not table.list_indices():
                _retried(lambda: table.create_index("vector", config=IvfFlat(distance_type="cosine")))
            _retried(lambda: table.optimize(cleanup_older_than=_KEEP_VERSIONS))

    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        where: str | None = None,
        without_paths: Sequence[str] = (),
        without_digests: Sequence[str] = (),
    ) -> list[Hit]:
        """The k images whose vectors have the greatest cosine with `vector` (D,), best first.

        Fewer only if the store has fewer: `where`, an SQL condition over the columns, and the excluded paths
        and digests hold before the k best are taken. Copies (images of equal digest) have equal scores.
        Images of equal score come in the order of their paths.

        Raises StoreError if the condition cannot be understood.
        """
        table = self._opened()
        if where is not None:
            check_condition(where)
        if table is None:
            return []
        # A condition may fail on a value, such as a division by zero, and then the store is not at fault.
        with self._reading() if where is None else _explained(f"Cannot use the condition {where!r}"):
            rows = int(table.count_rows())
            query = (
                table.search(vector, vector_column_name="vector")
                .distance_type("cosine")
                # Without the index these two change nothing. Zero means no upper limit: a narrow condition
                # must not leave fewer than k.
                .minimum_nprobes(_PROBES)
                .maximum_nprobes(0)
                .select(["path", "digest", "_distance"])
            )
            if where is not None:
                query = query.where(where, prefilter=True)
            # Excluded images are taken out here and not by the condition, which whatever a user writes cannot change.
            return _best(query, k, rows, set(without_paths), set(without_digests)) if rows else []

    def _opened(self) -> Any | None:
        """The table; None as long as nobody has made it."""
        if self._table is None and self.exists(self.location):
            found = Store.open(self.location)
            found.check_model(self.info.model, self.info.fingerprint)
            found.check_root(self.info.root)
            self._take(found)
        return self._table

    def _take(self, other: Store) -> None:
        self._database, self._table = other._database, other._table

    def _made(self) -> Any:
        """The table, made now, unless another process was faster."""
        # LanceDB would make the folder of a disk that was disconnected meanwhile, on another disk.
        if self._has_place and not os.path.isdir(self.location):
            raise StoreError(f"{_cannot_make(self.location)}: the folder is gone.")
        try:
            self._take(Store.create(self.location, self.info))
        except StoreError:
            if self._opened() is None:
                raise
        return self._table

    def _declare_key(self, table: Any) -> None:
        """Declare the key of a table that was made before keys were declared."""
        if self._has_key:
            return
        metadata = table.schema.field("path").metadata or {}
        if not any(name.startswith(_KEY_MARK) for name in metadata):
            try:
                _retried(lambda: table.set_unenforced_primary_key("path"))
            except ValueError as error:
                if "already set" not in str(error):  # by another writer, at the same time
                    raise
        self._has_key = True

    def _columns(self, *names: str) -> list[list[Any]]:
        """Whole columns as lists, in the same order; `_rowid` is where a row lies."""
        with self._reading():
            table = self._opened()
            if table is None:
                return [[] for _ in names]
            query = table.search().select([name for name in names if name != "_rowid"])
            found = query.with_row_id("_rowid" in names).to_arrow()
        return [found[name].to_pylist() for name in names]

    def _delete(self, column: str, values: Sequence[str]) -> None:
        """Take out the rows with one of these values, given as SQL."""
        with self._writing():
            table = self._opened()
            if table is None:
                return
            for start in range(0, len(values), _VALUES_AT_ONCE):
                condition = f"{column} IN ({', '.join(values[start : start + _VALUES_AT_ONCE])})"
                _retried(partial(table.delete, condition))

    def _reading(self) -> Any:
        return _explained(f"Cannot read the store '{self.location}' (if it is damaged, delete it and index again)")

    def _writing(self) -> Any:
        return _explained(f"Cannot write to the store '{self.location}'")


def _connect(location: str | Path) -> Any:
    # LanceDB takes whatever has a colon for a URI, but not an absolute path.
    place = str(location) if is_uri(location) else str(Path(location).resolve())
    # An interval of zero: every query sees the latest version, which on a local disk costs nothing to look up.
    return lancedb.connect(place, read_consistency_interval=timedelta(0))


def _is_whole(database: Any) -> bool:
    """Whether the table can be opened: it is listed from its first file on, also while another process makes it."""
    try:
        database.open_table(_TABLE)
    except ValueError as error:
        if "was not found" in str(error):
            return False
        raise
    return True


def _schema(location: str | Path, info: StoreInfo) -> pa.Schema:
    """The table's columns and, as metadata, what it holds."""
    about = {
        "format": _FORMAT,
        "root": _portable_root(location, info.root),
        "model": info.model,
        "fingerprint": info.fingerprint,
        "width": info.width,
    }
    return pa.schema(_fields(info.width), metadata={_METADATA_KEY: json.dumps(about).encode()})


def _portable_root(location: str | Path, root: Path) -> str:
    """The root as it is written down: relative where the store lies within it, so that both can be moved."""
    if not is_uri(location):
        place = Path(location).resolve()
        if place.is_relative_to(root):
            return "/".join([".."] * len(place.relative_to(root).parts)) or "."
    return root.as_posix()


def _cannot_make(location: str | Path) -> str:
    return f"Cannot make a store at '{location}' (`fti4cir index --store` names another place)"


def _sql_text(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _sql_list(texts: Iterable[str]) -> str:
    return "(" + ", ".join(map(_sql_text, texts)) + ")"


def _best(query: Any, k: int, rows: int, without_paths: set[str], without_digests: set[str]) -> list[Hit]:
    """The k best of a query's hits but the excluded ones, each path once, with all ties at the end considered."""
    limit = k + len(without_paths) + len(without_digests)
    while True:
        # One more than asked for, to see whether the last one is tied with the next.
        limit = min(limit + 1, rows)
        table = query.limit(limit).to_arrow()
        found = [table[name].to_pylist() for name in ("path", "digest", "_distance")]
        scores: dict[str, float] = {}
        hits: dict[str, Hit] = {}
        for path, digest, distance in sorted(zip(*found, strict=True), key=lambda one: one[2]):
            if path not in without_paths and digest not in without_digests:
                hits.setdefault(path, Hit(path, scores.setdefault(digest, 1.0 - distance)))
        best = sorted(hits.values(), key=lambda hit: (-hit.score, hit.path))
        all_seen = len(table) < limit or limit >= rows
        if all_seen or (len(best) > k and 1.0 - max(found[2]) < best[k - 1].score - _TIE):
            return best[:k]
        limit *= 2


class _Lock:
    """A lock between processes, a file in the folder of a store; makes the folder where it is missing."""

    def __init__(self, place: Path) -> None:
        self._place = place
        # Not a soft lock (one that is held while a file exists), which stays behind when a process is killed.
        self._file = FileLock(place / _LOCK, fallback_to_soft=False)
        self._made: list[Path] = []

    def acquire(self, wait: Callable[[], bool]) -> bool:
        """As `Store.only_writer`."""
        seconds = 0.0
        while True:
            self._make_folders()
            try:
                self._file.acquire(timeout=seconds)
                return True
            except Timeout:
                if not wait():
                    return False
                seconds = _LOCK_POLL
            except FileNotFoundError:
                continue  # whoever had the lock has removed the folder, see `release`
            except (OSError, NotImplementedError):
                return True  # if nothing can be written here, the first write says why

    def release(self, unused: bool) -> None:
        """Give the lock back; what was made for a store that nothing was written to is removed again."""
        # Before the lock is free, so that nobody else is using the folder.
        if unused and self._made and self._file.is_locked:
            shutil.rmtree(self._place, ignore_errors=True)
        self._file.release()
        if unused:
            with suppress(OSError):  # something else is in it
                for folder in self._made:
                    if folder.exists():
                        folder.rmdir()

    def _make_folders(self) -> None:
        folders = (self._place, *self._place.parents)
        self._made = [folder for folder in folders if not os.path.exists(folder)]
        try:
            self._place.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{_cannot_make(self._place)}: {error.strerror}.") from error


_Result = TypeVar("_Result")


def _retried(change: Callable[[], _Result]) -> _Result:
    """Make a change, again while other writers are faster, for up to a minute."""
    until = time.monotonic() + _CONFLICT_SECONDS
    while True:
        try:
            return change()
        except (OSError, RuntimeError, ValueError) as error:
            if time.monotonic() > until or not _CONFLICT.search(str(error)):
                raise
        # Writers that failed together should not try again together.
        time.sleep(random.uniform(0.02, 0.5))


# The parts of LanceDB that an error has passed, and what the system calls it.
_LAYERS = re.compile(
    r"^lance error: |LanceError\(\w+\): |Query Execution error: |Error applying filter expression to batch: "
    r"|Arrow error: | \(os error \d+\)"
)


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
        reason = _LAYERS.sub("", reason)
        raise StoreError(f"{what}: {reason.rstrip('.')}.") from error
