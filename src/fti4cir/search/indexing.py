"""Bring an index up to date with its folder of images."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InputError
from ..images.prefetch import prefetch
from ..progress import Progress
from ..wording import counted
from .comparison import Comparison, compare
from .embedding import KnownVectors, Prepared, embed, prepare
from .index_report import IndexReport
from .listing import Failure, ImageFile, list_images
from .locations import location_for
from .schema import Row, StoreInfo
from .store import Store
from .writer import RowWriter

if TYPE_CHECKING:
    from ..models.model import Model

_logger = logging.getLogger(__name__)

BATCH = 32
"""Images that the model encodes at once."""

# Images decoded ahead of the model: enough that it never waits, few enough to fit any memory.
_AHEAD = 2 * BATCH

# Where no lock is possible, another writer may undo what this one did (both make the table, for example). Then what is
# missing is written again, at most this many times.
_ROUNDS = 3


def store_for(folder: str | Path, model: Model, *, location: str | Path | None = None) -> Store:
    """The index of a folder for a model. A new index is made when its first image is written.

    Args:
        folder: the folder of images.
        model: the model that encodes them.
        location: where the index lies; None: in the folder's `.fti4cir`.

    Raises:
        StoreError: if the index cannot be opened, or the one at `location` belongs to another model.
    """
    location = location or location_for(folder, model.name, fingerprint=model.fingerprint)
    if Store.exists(location):
        store = Store.open(location)
        store.check_model(model.name, model.fingerprint)
        return store
    info = StoreInfo(Path(folder).resolve(), model.name, model.fingerprint, model.encoder.joint_width)
    return Store.planned(location, info)


def index_folder(
    folder: str | Path,
    store: Store,
    *,
    model: Model,
    progress: Progress | None = None,
    patience: float | None = None,
) -> IndexReport:
    """Bring an index up to date with a folder and the folders below it.

    Files whose size and time of change are the same as before are not read again. A file whose content the index
    already has under any name is read but not encoded. New and changed files are encoded and written every few
    seconds, and also when this is interrupted (by KeyboardInterrupt or any error); the next run continues from there.
    Files that cannot be read are skipped and listed. What cannot be read at the moment (a folder that cannot be
    listed, a file that cannot be opened) stays in the index as it is.

    If there is anything to do, one process at a time works on an index on a local disk. Other processes log that they
    wait, and then continue from what that process has written.

    Args:
        folder: the folder of images.
        store: its index.
        model: the model that made the index.
        progress: counts the images that have to be read.
        patience: seconds to wait for another process, and longer while the index is empty; then the work is left to
            that process. None: wait until it has finished.

    Raises:
        InputError: if the folder cannot be listed.
        StoreError: if the index belongs to another folder or model, or cannot be written.
    """
    root = Path(folder).resolve()
    store.check_model(model.name, model.fingerprint)
    store.check_root(root)
    run = _Run(root, store, model=model, progress=progress)
    run.look()
    if run.seen.up_to_date:
        return run.report()
    waiting = _Waiting(store, patience)
    with store.only_writer(waiting) as mine:
        # What another process wrote in the meantime is not done again.
        run.look(list_again=waiting.waited)
        for _ in range(_ROUNDS if mine else 0):
            if run.seen.up_to_date:
                break
            run.update()
            run.look()
            if not run.seen.up_to_date:  # another writer, where there is no lock
                run.look(list_again=True)
        run.finish()
        return run.report()


class _Waiting:
    """Decides whether to keep waiting for the process that is indexing, and logs the wait."""

    def __init__(self, store: Store, patience: float | None) -> None:
        self._store, self._patience = store, patience
        self._since: float | None = None

    @property
    def waited(self) -> bool:
        return self._since is not None

    def __call__(self) -> bool:
        if self._since is None:
            self._since = time.monotonic()
            _logger.info(f"Another process is indexing into '{self._store.location}'; waiting for it.")
        if self._patience is None or time.monotonic() - self._since < self._patience:
            return True
        written = len(self._store)
        if written:
            so_far = counted(written, "image")
            _logger.info(f"It is still indexing; going on with the {so_far} that it has written so far.")
        return not written


class _Run:
    """One indexing run: look, then update and look again until nothing is left to do."""

    seen: Comparison

    def __init__(self, root: Path, store: Store, *, model: Model, progress: Progress | None) -> None:
        self._root, self._store, self._model, self._progress = root, store, model, progress
        self._listing = list_images(root)
        self._unreadable: dict[Path, Failure] = {}
        self._new: dict[str, str] = {}  # the digest of each file that was not in the index before
        self._updated: set[str] = set()
        self._removed: dict[str, str] = {}  # the digest of each file removed from the index

    def look(self, *, list_again: bool = False) -> None:
        """Compare the folder with what the index holds now."""
        if list_again:
            self._listing = list_images(self._root)
        self.seen = self._compared()

    def update(self) -> None:
        """Write what is new and changed, remove what is gone, and remove extra rows of paths that are there twice."""
        if self.seen.has_doubles:
            self._store.repair()
        digests = self._store.digests() if self.seen.known else {}
        if self.seen.changed:
            self._write(set(digests.values()))
        if not os.path.isdir(self._root):
            raise InputError(f"The folder '{self._root}' vanished while it was indexed; what was done is kept.")
        # Only now is it known which files cannot be read.
        gone = self._compared().gone
        self._store.remove(gone)
        self._removed |= {key: digests.get(key, "") for key in gone}

    def finish(self) -> None:
        """Make searches fast again if this run changed anything."""
        if self._new or self._updated or self._removed:
            self._store.optimize()

    def report(self) -> IndexReport:
        """What the whole run has changed."""
        moved = (Counter(self._new.values()) & Counter(self._removed.values())).total()
        return IndexReport(
            added=len(self._new) - moved,
            updated=len(self._updated),
            unchanged=len(self.seen.kept - self._new.keys() - self._updated),
            removed=len(self._removed) - moved,
            moved=moved,
            skipped=sorted(self.seen.skipped),
            total=len(self._store),
            unsupported=self._listing.unsupported,
        )

    def _compared(self) -> Comparison:
        return compare(self._root, self._store, listing=self._listing, unreadable=self._unreadable)

    def _write(self, digests: set[str]) -> None:
        changed, done = self.seen.changed, 0
        with RowWriter(self._store) as writer:
            known = KnownVectors(self._store, writer, digests=digests)

            def read(file: ImageFile) -> Prepared:
                return prepare(file, self._model, known=known.digests)

            with closing(prefetch(read, changed, ahead=_AHEAD)) as prepared:
                while batch := list(islice(prepared, BATCH)):
                    rows, failures = embed(batch, self._model, known=known)
                    self._unreadable |= {failure.path: failure for failure in failures}
                    if rows:
                        writer.write(rows)
                        self._note(rows)
                    done += len(batch)
                    if self._progress is not None:
                        self._progress(done, len(changed))

    def _note(self, rows: Iterable[Row]) -> None:
        for row in rows:
            if row.path not in self.seen.known:
                self._new[row.path] = row.digest
            elif row.path not in self._new:
                self._updated.add(row.path)
