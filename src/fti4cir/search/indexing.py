"""Bring a store up to date with a folder of images."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ImageError, InputError
from ..escaping import is_utf8
from ..files import is_uri
from ..images.decode import content_digest, decode_image, find_images, read_file
from ..images.prefetch import prefetch
from ..progress import Progress
from ..wording import counted
from .store import FileState, Row, Store, StoreInfo, location_for

if TYPE_CHECKING:
    from ..models.model import Model

_logger = logging.getLogger(__name__)

BATCH = 32
"""Images that the model encodes at once."""

WRITE_EVERY = 5.0
"""Seconds between writes to the store: the most work that a killed process loses."""

# Images decoded ahead of the model: enough that it never waits, few enough to fit any memory.
_AHEAD = 2 * BATCH

# Where no lock can be had, another writer may undo what this one did (both make the table, say). Then what is
# missing is written again, but not for ever.
_ROUNDS = 3


@dataclass(frozen=True)
class IndexReport:
    """What bringing a store up to date has changed."""

    added: int
    """New files, copies of others among them."""
    updated: int
    """Files that had changed, if only in their time."""
    unchanged: int
    removed: int
    """Images taken out of the store, because their files are gone or no longer hold an image."""
    moved: int
    """New files with the content of files that are gone: moved or renamed. They count neither as added nor as
    removed."""
    skipped: list[tuple[Path, str]]
    """Files and folders that cannot be read, absolute, each with the reason in a sentence."""
    total: int
    """Images that the store now holds."""
    unsupported: dict[str, list[Path]] = field(default_factory=dict)
    """Files that look like images of a kind that is not read, absolute, by kind; they are not among `skipped`."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`; the names are part of the command line's promise."""
        unsupported = [
            (path, f"Cannot read '{path}': {kind} files are not supported; export it as JPEG or PNG.")
            for kind, paths in self.unsupported.items()
            for path in paths
        ]
        skipped = sorted(self.skipped + unsupported)
        return {
            "added": self.added,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "moved": self.moved,
            "skipped": [{"path": _printable(path), "reason": reason} for path, reason in skipped],
            "total": self.total,
        }


def store_for(folder: str | Path, model: Model, location: str | Path | None = None) -> Store:
    """The store of a folder for a model, at `location` or else in the folder's `.fti4cir`; the first image makes it.

    Raises StoreError if it cannot be opened, or the one at `location` belongs to another model.
    """
    location = location or location_for(folder, model.name, model.fingerprint)
    if Store.exists(location):
        store = Store.open(location)
        store.check_model(model.name, model.fingerprint)
        return store
    info = StoreInfo(Path(folder).resolve(), model.name, model.fingerprint, model.encoder.joint_width)
    return Store.planned(location, info)


def index_folder(
    folder: str | Path,
    store: Store,
    model: Model,
    *,
    progress: Progress | None = None,
    patience: float | None = None,
) -> IndexReport:
    """Bring a store up to date with a folder and those below it.

    Files whose size and time of change are as they were are not read again. A file whose content the store
    has already, under whatever name, is read but not encoded. New and changed ones are encoded and written
    every few seconds, also when this is interrupted (KeyboardInterrupt, or any error): the next run goes on
    from there. Files that cannot be read are skipped and listed. What cannot be looked at for the moment (a
    folder that cannot be listed, a file that cannot be opened) stays in the store as it is.

    One process at a time indexes into a store on a local disk, if there is anything to do. Others wait, which is
    logged, and then go on from what that process has written. With `patience`, in seconds, this waits only so long,
    or as long as the store is empty, and then leaves the work to the other process. `progress` counts the images that
    have to be read.

    Raises InputError if the folder cannot be listed, StoreError if the store belongs to another folder or
    model or cannot be written.
    """
    root = Path(folder).resolve()
    store.check_model(model.name, model.fingerprint)
    store.check_root(root)
    run = _Run(root, store, model, progress)
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
    """Decides whether to go on waiting for the process that is indexing, and logs it."""

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


class _File(NamedTuple):
    path: Path
    key: str  # relative to the root, with forward slashes: the store's name for it
    state: FileState


class _Failure(NamedTuple):
    """Why a file or folder cannot be used."""

    path: Path
    reason: str
    passing: bool  # whether it says nothing about the file itself, so that the store keeps what it has


class _Prepared(NamedTuple):
    """An image ready for the model, and its row but for the vector."""

    file: _File
    digest: str
    width: int
    height: int
    pixels: Tensor  # (3, S, S)


class _Copy(NamedTuple):
    """A file whose content has a vector already."""

    file: _File
    digest: str


class _Listing(NamedTuple):
    """The image files of a folder."""

    files: list[_File]
    failures: list[_Failure]
    """What cannot be looked at."""
    unsupported: dict[str, list[Path]]
    """Images of a kind that is not read, by kind."""


class _Seen(NamedTuple):
    """A folder beside what its store holds."""

    known: dict[str, FileState]
    """The store's files."""
    changed: list[_File]
    """Files that the store lacks or has in another state, as far as they can be read."""
    kept: set[str]
    """Files that the store has as they are, or that cannot be looked at for the moment."""
    gone: set[str]
    """Files that the store has, but the folder has no more, or not as images."""
    doubled: bool
    """Whether some path is in the store twice."""
    skipped: list[tuple[Path, str]]

    @property
    def up_to_date(self) -> bool:
        return not (self.changed or self.gone or self.doubled)


class _Run:
    """One bringing up to date of a store: look, then update and look again until nothing is left to do."""

    seen: _Seen

    def __init__(self, root: Path, store: Store, model: Model, progress: Progress | None) -> None:
        self._root, self._store, self._model, self._progress = root, store, model, progress
        self._listing = _list(root)
        self._failed: dict[Path, _Failure] = {}
        self._new: dict[str, str] = {}  # the digest of each file that the store did not have before
        self._updated: set[str] = set()
        self._removed: dict[str, str] = {}  # the digest of each file taken out

    def look(self, list_again: bool = False) -> None:
        """Compare the folder with what the store holds now."""
        if list_again:
            self._listing = _list(self._root)
        self.seen = _compare(self._root, self._listing, self._failed, self._store)

    def update(self) -> None:
        """Write what is new and changed, remove what is gone, and rows of paths that are there twice."""
        if self.seen.doubled:
            self._store.repair()
        digests = self._store.digests() if self.seen.known else {}
        if self.seen.changed:
            self._write(set(digests.values()))
        if not os.path.isdir(self._root):
            raise InputError(f"The folder '{self._root}' vanished while it was indexed; what was done is kept.")
        # What could not be read is known only now.
        gone = _compare(self._root, self._listing, self._failed, self._store).gone
        self._store.remove(gone)
        self._removed |= {key: digests.get(key, "") for key in gone}

    def finish(self) -> None:
        """Make the store fast again if this changed anything."""
        if self._new or self._updated or self._removed:
            self._store.optimize()

    def report(self) -> IndexReport:
        """What all this changed."""
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

    def _write(self, digests: set[str]) -> None:
        changed, done = self.seen.changed, 0
        with _Writer(self._store) as writer:
            reuse = _Reuse(self._store, writer, digests)

            def prepare(file: _File) -> _Prepared | _Copy | _Failure:
                return _prepare(file, self._model, reuse.digests)

            with closing(prefetch(prepare, changed, ahead=_AHEAD)) as prepared:
                while batch := list(islice(prepared, BATCH)):
                    rows, failures = _rows(batch, self._model, reuse)
                    self._failed |= {failure.path: failure for failure in failures}
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


def _list(root: Path) -> _Listing:
    """The folder's image files; InputError if it cannot be listed itself."""
    files: list[_File] = []
    failures: list[_Failure] = []
    unsupported: defaultdict[str, list[Path]] = defaultdict(list)

    def unlisted(error: OSError) -> None:
        if Path(error.filename) == root:
            raise InputError(f"Cannot list the folder '{root}': {error.strerror}.") from error
        reason = f"Cannot list the folder '{error.filename}': {error.strerror}."
        failures.append(_Failure(Path(error.filename), reason, passing=True))

    for path in find_images(root, unlisted, lambda path, kind: unsupported[kind].append(path)):
        key = path.relative_to(root).as_posix()
        if not is_utf8(key):
            reason = f"Cannot index '{_printable(path)}': its name is not valid UTF-8; rename it."
            failures.append(_Failure(path, reason, passing=False))
            continue
        try:
            status = path.stat()
        except OSError as error:
            failures.append(_Failure(path, f"Cannot read '{path}': {error.strerror}.", _is_passing(error)))
            continue
        files.append(_File(path, key, FileState(_in_int64(status.st_mtime_ns), status.st_size)))
    return _Listing(files, failures, dict(unsupported))


def _compare(root: Path, listing: _Listing, failed: Mapping[Path, _Failure], store: Store) -> _Seen:
    """What there is to do, given the files that could not be read so far."""
    known = store.files()
    if known and not listing.files and not listing.failures and not _lies_in(store.location, root):
        raise InputError(
            f"There are no images in '{root}', but the index '{store.location}' has {len(known)} of them; "
            "if its disk or network is not connected, connect it; if they are gone for good, delete the index."
        )
    readable = [file for file in listing.files if file.path not in failed]
    kept = {file.key for file in readable if known.get(file.key) == file.state}
    changed = [file for file in readable if file.key not in kept]
    gone = known.keys() - kept - {file.key for file in changed}
    failures = [*listing.failures, *failed.values(), *_dead_links(root, gone)]
    skipped: list[tuple[Path, str]] = []
    below = _at_or_below(gone)
    for failure in failures:
        reason = failure.reason
        if failure.passing:
            stays = gone & below.get(failure.path.relative_to(root).as_posix(), set())
            kept |= stays
            gone -= stays
            if stays:
                reason += f" What the index has of it stays there (images: {len(stays)})."
        skipped.append((failure.path, reason))
    return _Seen(known, changed, kept, gone, len(store) > len(known), skipped)


def _at_or_below(keys: Iterable[str]) -> dict[str, set[str]]:
    """For each file and each folder that has some of them below it, which."""
    places: defaultdict[str, set[str]] = defaultdict(set)
    for key in keys:
        place = key
        while place:
            places[place].add(key)
            place = place.rpartition("/")[0]
    return places


def _dead_links(root: Path, gone: Iterable[str]) -> list[_Failure]:
    """Links to folders that lead nowhere (a disk that is not connected, say) and had images below them."""
    parents = {(root / key).parent for key in gone}
    folders = {folder for parent in parents for folder in (parent, *parent.parents) if folder.is_relative_to(root)}
    return [
        _Failure(folder, f"Cannot list the folder '{folder}': it is a link that leads nowhere.", passing=True)
        for folder in sorted(folders)
        if folder.is_symlink() and not os.path.exists(folder)
    ]


def _lies_in(location: str, root: Path) -> bool:
    return not is_uri(location) and Path(location).resolve().is_relative_to(root)


def _in_int64(nanoseconds: int) -> int:
    """The time that the store can hold and that comes closest: it ends in 1677 and 2262."""
    return max(-(2**63), min(2**63 - 1, nanoseconds))


def _is_passing(error: BaseException | None) -> bool:
    """Whether a file cannot be looked at for a reason that says nothing about what it holds, or whether it is."""
    return isinstance(error, OSError) and not isinstance(error, FileNotFoundError | NotADirectoryError)


def _prepare(file: _File, model: Model, known: Collection[str]) -> _Prepared | _Copy | _Failure:
    """Read one image and, unless the digest of its file is known, decode and preprocess it.

    A failure is given back, for it stops nobody else.
    """
    try:
        data = read_file(file.path)
        digest = content_digest(data)
        if digest in known:
            return _Copy(file, digest)
        picture = decode_image(data, file.path, at_least=model.encoder.decode_at_least)
    except ImageError as error:
        return _Failure(file.path, str(error), _is_passing(error.__cause__))
    pixels = model.encoder.preprocess(picture.image)
    return _Prepared(file, digest, picture.width, picture.height, pixels)


class _Reuse:
    """Vectors that need not be computed: those of the store, and of this run, by the digest of the file."""

    def __init__(self, store: Store, writer: _Writer, digests: set[str]) -> None:
        self.digests = digests
        """Which there are, most likely."""
        self._writer = writer
        # The store as it was, for a file that takes the name of another one overwrites its row.
        self._stores = (store.snapshot(), store)

    def find(self, digests: set[str]) -> dict[str, Row]:
        """For each of these that there is, a row with its vector."""
        rows = {row.digest: row for row in self._writer.pending() if row.digest in digests}
        for store in self._stores:
            if missing := digests - rows.keys():
                rows |= store.with_digests(missing)
        return rows


def _rows(
    batch: Sequence[_Prepared | _Copy | _Failure], model: Model, reuse: _Reuse
) -> tuple[list[Row], list[_Failure]]:
    """The rows of a batch, of copies with one and the same vector; and what cannot be read."""
    found = reuse.find({one.digest for one in batch if not isinstance(one, _Failure)} & reuse.digests)
    # Where there is no lock, another writer may have removed what this one counted on.
    batch = [
        _prepare(one.file, model, ()) if isinstance(one, _Copy) and one.digest not in found else one for one in batch
    ]
    new = {one.digest: one for one in batch if isinstance(one, _Prepared) and one.digest not in found}
    if new:
        found |= {row.digest: row for row in _encode(list(new.values()), model)}
        reuse.digests |= new.keys()
    rows = [
        found[one.digest]._replace(path=one.file.key, mtime_ns=one.file.state.mtime_ns, size=one.file.state.size)
        for one in batch
        if not isinstance(one, _Failure)
    ]
    return rows, [one for one in batch if isinstance(one, _Failure)]


def _encode(pictures: Sequence[_Prepared], model: Model) -> list[Row]:
    pixels = torch.stack([one.pixels for one in pictures])  # (B, 3, S, S)
    features = model.encoder.encode_pixels(pixels).image  # (B, D)
    vectors = F.normalize(features.detach().float(), dim=-1).cpu().numpy()
    return [
        Row(one.file.key, *one.file.state, one.digest, one.width, one.height, vector)
        for one, vector in zip(pictures, vectors, strict=True)
    ]


class _Writer:
    """Collects rows and writes them every WRITE_EVERY seconds, and at the end, whatever ended it.

    It writes from a thread of its own: the model need not wait, and Ctrl-C, which interrupts the main thread,
    cannot cut a write short.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: list[Row] = []
        self._written: list[Row] = []  # or being written
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def write(self, rows: list[Row]) -> None:
        """Take rows, and write all those taken if it is time; raises what an earlier write has met."""
        self._rows += rows
        if self._under_way is not None and self._under_way.done():
            self._finish()
        if time.monotonic() - self._last >= WRITE_EVERY:
            self._flush()

    def pending(self) -> list[Row]:
        """The rows that may not be in the store yet."""
        return self._written + self._rows

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        try:
            self._flush()
        finally:
            self._thread.shutdown()
        self._finish()

    def _flush(self) -> None:
        self._finish()
        self._written, self._rows = self._rows, []
        self._under_way = self._thread.submit(self._store.upsert, self._written)
        self._last = time.monotonic()

    def _finish(self) -> None:
        if self._under_way is not None:
            self._under_way.result()


def _printable(path: Path) -> str:
    return os.fsencode(path).decode(errors="replace")
