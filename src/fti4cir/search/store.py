"""An index on disk: one Lance table, one row per image. It knows no model.

Each path has one row, even when several processes write at once. `path` is the table's key: if two writers insert the
same path, LanceDB refuses the later one, which tries again. That holds on a local disk and in an object store. Tables
made before the key was declared may hold a path twice. Searches show such a path once, and `repair` removes the extra
rows.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from lancedb.index import IvfFlat
from numpy.typing import NDArray

from ..errors import StoreError
from ..files import is_uri
from .conditions import check_condition, condition_errors
from .lance import connect, explained, is_complete, retried, sql_in, sql_text
from .lock import WriterLock, cannot_make
from .nearest import Hit, best
from .schema import TABLE, FileState, Row, StoreInfo, from_arrow, has_key, new_schema, read_info, to_arrow

ANN_ROWS = 100_000
"""Below this number of rows, search is exact. From this number on, an approximate nearest-neighbour index is kept."""

# Partitions of the nearest-neighbour index that a search reads. Among 100,000 clustered vectors of 256 numbers, this
# many held all true neighbours, in 11 ms; an exact search took 91 ms.
_PROBES = 32

# Old versions of the table serve searches that began before a write. No search takes a day.
_KEEP_VERSIONS = timedelta(days=1)
# Values named in one SQL expression; the parser gets slow with very long ones.
_VALUES_AT_ONCE = 1_000


class Store:
    """An open index. Get one with `Store.create`, `Store.open` or `Store.planned`.

    Every change is atomic: a reader, or a process killed at any time, finds the table as it was before or after the
    change. An open store sees what other processes write.
    """

    def __init__(self, location: str, table: Any, *, info: StoreInfo) -> None:
        self.location = location
        self.info = info
        self._table = table
        self._database: Any = None
        self._has_key = False
        self._had_folder = False

    @staticmethod
    def exists(location: str | Path) -> bool:
        """Whether there is an index at a folder or URI.

        Raises:
            StoreError: if the place cannot be reached.
        """
        if is_uri(location):
            with explained(f"Cannot reach the index '{location}'"):
                database = connect(location)
                return TABLE in database.list_tables().tables and is_complete(database, TABLE)
        # Connecting to a local folder would create the folder. A process that is making the index, or was killed while
        # it did, leaves the table's folder without any version of the table.
        try:
            return any((Path(location) / f"{TABLE}.lance" / "_versions").iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise StoreError(f"Cannot reach the index '{location}': {error.strerror}.") from error

    @classmethod
    def create(cls, location: str | Path, info: StoreInfo) -> Store:
        """Make an empty index.

        Raises:
            StoreError: if there is one already, or the place cannot be written to.
        """
        store = cls.planned(location, info)
        with explained(cannot_make(location)):
            store._database = connect(location)
            store._table = store._database.create_table(TABLE, schema=new_schema(location, info))
        return store

    @classmethod
    def planned(cls, location: str | Path, info: StoreInfo) -> Store:
        """An index that is made when the first row is written. Until then it is empty and nothing is on disk."""
        return cls(str(location), None, info=info)

    @classmethod
    def open(cls, location: str | Path) -> Store:
        """Open an index.

        Raises:
            StoreError: if there is none, or this version cannot read it.
        """
        if not cls.exists(location):
            raise StoreError(
                f"There is no index at '{location}'; make one with `fti4cir index FOLDER --store {location}`."
            )
        with explained(f"Cannot open the index '{location}' (if it is damaged, delete it and index again)"):
            database = connect(location)
            table = database.open_table(TABLE)
            info = read_info(location, table.schema)
        store = cls(str(location), table, info=info)
        store._database = database
        return store

    def check_model(self, name: str, fingerprint: str) -> None:
        """Raise a StoreError that says what to do, unless the named model made this index's vectors."""
        if fingerprint == self.info.fingerprint:
            return
        if name == self.info.model:
            raise StoreError(
                f"The index '{self.location}' was made with another version of the model '{name}'; "
                "delete it and index again."
            )
        raise StoreError(
            f"The index '{self.location}' was made with the model '{self.info.model}', not '{name}'; "
            "use that model, or index the folder again into another place (`fti4cir index FOLDER --store PLACE`)."
        )

    def check_root(self, root: Path) -> None:
        """Raise a StoreError that says what to do, unless the index holds images of this folder (absolute)."""
        if self.info.root != root:
            raise StoreError(
                f"The index '{self.location}' holds images of '{self.info.root}', not of '{root}'; "
                "name another place with --store."
            )

    @contextmanager
    def only_writer(self, wait: Callable[[], bool]) -> Iterator[bool]:
        """Hold the lock between processes that index: True within it, False if another process kept it.

        `wait` is called each time another process is found to hold the lock, and says whether to keep waiting. The
        system releases the lock of a process that ends, however it ends. Where no lock is possible (an object store, a
        folder that cannot be written to, a file system without locks), this goes on without one. The lock only
        prevents duplicate work; the table's key is what keeps each path in one row.
        """
        if is_uri(self.location):
            yield True
            return
        lock = WriterLock(Path(self.location))
        try:
            mine = lock.acquire(wait)
            self._had_folder = True
            yield mine
        finally:
            lock.release(unused=not self.exists(self.location))

    def __len__(self) -> int:
        """The number of rows. It is also the number of images, unless a path is there twice (see `repair`)."""
        with self._reading():
            table = self._current_table()
            return 0 if table is None else int(table.count_rows())

    def files(self) -> dict[str, FileState]:
        """The state of every file when it was indexed, by relative path."""
        paths, times, sizes = self._columns("path", "mtime_ns", "size")
        return dict(zip(paths, map(FileState, times, sizes), strict=True))

    def digests(self) -> dict[str, str]:
        """The digest of every file when it was indexed, by relative path."""
        return dict(zip(*self._columns("path", "digest"), strict=True))

    def with_digests(self, digests: Collection[str]) -> dict[str, Row]:
        """For each of these digests that the index has, one of its rows."""
        rows: dict[str, Row] = {}
        wanted = list(map(sql_text, digests))
        with self._reading():
            table = self._current_table()
            if table is None:
                return {}
            for start in range(0, len(wanted), _VALUES_AT_ONCE):
                condition = sql_in("digest", wanted[start : start + _VALUES_AT_ONCE])
                found = table.search().where(condition).select(list(Row._fields)).to_arrow()
                rows |= {row.digest: row for row in from_arrow(found)}
        return rows

    def snapshot(self) -> Store:
        """The index as it is now, for reading. Later changes do not show in it."""
        with self._reading():
            table = self._current_table()
            if table is None:
                return Store.planned(self.location, self.info)
            # From the same connection, because each connection has its own `memory://`.
            pinned = self._database.open_table(TABLE)
            pinned.checkout(table.version)
        return Store(self.location, pinned, info=self.info)

    def upsert(self, rows: Iterable[Row]) -> None:
        """Write rows in one change. A row replaces the one with its path; of equal paths, the last row is written."""
        rows = list({row.path: row for row in rows}.values())
        if not rows:
            return
        table = self._current_table()
        if table is None:
            table = self._create_table()
        with self._writing():
            self._declare_key(table)
            data = to_arrow(rows, table.schema)
            merge = table.merge_insert("path").when_matched_update_all().when_not_matched_insert_all()
            retried(lambda: merge.execute(data))

    def remove(self, paths: Iterable[str]) -> None:
        """Remove the rows of these paths. Paths that are not in the index are ignored."""
        self._delete("path", [sql_text(path) for path in paths])

    def repair(self) -> int:
        """Keep only the latest row of each path that has several; returns how many rows were removed."""
        paths, times, row_ids = self._columns("path", "mtime_ns", "_rowid")
        order = sorted(range(len(paths)), key=lambda i: (times[i], row_ids[i]))
        latest = {paths[i]: i for i in order}
        extra = [str(row_ids[i]) for i in order if latest[paths[i]] != i]
        # A row that another writer replaces or moves in the meantime gets another id, so this does not remove it.
        self._delete("_rowid", extra)
        return len(extra)

    def optimize(self) -> None:
        """Keep searches fast after writes: merge small files, drop old versions, update the nearest-neighbour index.

        That index is made once there are ANN_ROWS images. Later images are added to it here, and are searched exactly
        until then. It is of the kind IVF-Flat: only the nearest partitions are read, but their vectors are whole, so
        scores stay exact.
        """
        with self._writing():
            table = self._current_table()
            if table is None:
                return
            if table.count_rows() >= ANN_ROWS and not table.list_indices():
                retried(lambda: table.create_index("vector", config=IvfFlat(distance_type="cosine")))
            retried(lambda: table.optimize(cleanup_older_than=_KEEP_VERSIONS))

    def search(
        self,
        vector: NDArray[np.float32],
        k: int,
        *,
        where: str | None = None,
        without_paths: Collection[str] = (),
        without_digests: Collection[str] = (),
    ) -> list[Hit]:
        """The k images whose vectors have the greatest cosine with `vector` (D,), best first.

        There are fewer only if fewer images qualify: `where`, an SQL condition over the columns, and the excluded
        paths and digests are applied before the k best are taken. Copies (images of equal digest) have equal scores.
        Images of equal score come in the order of their paths.

        Raises:
            StoreError: if the condition cannot be understood.
        """
        table = self._current_table()
        if where is not None:
            check_condition(where)
        if table is None:
            return []
        # A condition may fail on a value, such as a division by zero. Then the index is not at fault.
        with self._reading() if where is None else condition_errors(where):
            rows = int(table.count_rows())
            query = (
                table.search(vector, vector_column_name="vector")
                .distance_type("cosine")
                # Without a nearest-neighbour index these two change nothing. Zero means no upper limit: a narrow
                # condition must not leave fewer than k.
                .minimum_nprobes(_PROBES)
                .maximum_nprobes(0)
                .select(["path", "digest", "_distance"])
            )
            if where is not None:
                query = query.where(where, prefilter=True)
            if not rows:
                return []
            # Excluded images are not part of the condition, so nothing that a user writes there can bring them back.
            return best(query, k, rows=rows, without_paths=set(without_paths), without_digests=set(without_digests))

    def _current_table(self) -> Any | None:
        """The table; None as long as no process has made it."""
        if self._table is None and self.exists(self.location):
            found = Store.open(self.location)
            found.check_model(self.info.model, self.info.fingerprint)
            found.check_root(self.info.root)
            self._adopt(found)
        return self._table

    def _adopt(self, other: Store) -> None:
        self._database, self._table = other._database, other._table

    def _create_table(self) -> Any:
        """Make the table, or open it if another process was faster."""
        # If the folder's disk was disconnected in the meantime, LanceDB would create the folder on another disk.
        if self._had_folder and not os.path.isdir(self.location):
            raise StoreError(f"{cannot_make(self.location)}: the folder is gone.")
        try:
            self._adopt(Store.create(self.location, self.info))
        except StoreError:
            if self._current_table() is None:
                raise
        return self._table

    def _declare_key(self, table: Any) -> None:
        """Declare the key of a table that was made before keys were declared."""
        if self._has_key:
            return
        if not has_key(table.schema):
            try:
                retried(lambda: table.set_unenforced_primary_key("path"))
            except (OSError, RuntimeError, ValueError):
                table.checkout_latest()
                if not has_key(table.schema):  # else another writer has declared it at the same time
                    raise
        self._has_key = True

    def _columns(self, *names: str) -> list[list[Any]]:
        """Whole columns as lists, in the same order. `_rowid` is LanceDB's number of a row."""
        with self._reading():
            table = self._current_table()
            if table is None:
                return [[] for _ in names]
            query = table.search().select([name for name in names if name != "_rowid"])
            found = query.with_row_id("_rowid" in names).to_arrow()
        return [found[name].to_pylist() for name in names]

    def _delete(self, column: str, values: Sequence[str]) -> None:
        """Remove the rows whose column has one of these values, given as SQL."""
        with self._writing():
            table = self._current_table()
            if table is None:
                return
            for start in range(0, len(values), _VALUES_AT_ONCE):
                retried(partial(table.delete, sql_in(column, values[start : start + _VALUES_AT_ONCE])))

    def _reading(self) -> AbstractContextManager[None]:
        return explained(f"Cannot read the index '{self.location}' (if it is damaged, delete it and index again)")

    def _writing(self) -> AbstractContextManager[None]:
        return explained(f"Cannot write to the index '{self.location}'")
