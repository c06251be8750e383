"""Bring a store up to date with a folder of pictures."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from .errors import PictureError, StoreError
from .pictures import content_digest, decode_picture, find_pictures, read_file
from .store import FileState, Row, Store, StoreInfo, location_for

if TYPE_CHECKING:
    from .model import Model

BATCH = 32
"""Pictures that the model encodes at once."""

WRITE_EVERY = 5.0
"""Seconds between writes to the store: the most work that a killed process loses."""

# Pictures decoded ahead of the model: enough that it never waits, few enough to fit any memory.
_AHEAD = 2 * BATCH

Progress = Callable[[int, int], object]
"""Is told how many pictures are done, of how many that have to be read."""


@dataclass(frozen=True)
class IndexReport:
    """What bringing a store up to date has changed."""

    added: int
    updated: int
    """Files that had changed."""
    unchanged: int
    removed: int
    """Pictures taken out of the store, because their files are gone or can no longer be read."""
    skipped: list[tuple[Path, str]]
    """Files and folders that cannot be read, absolute, each with the reason in a sentence."""
    total: int
    """Pictures that the store now holds."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`; the names are part of the command line's promise."""
        return {
            "added": self.added,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "skipped": [{"path": _printable(path), "reason": reason} for path, reason in self.skipped],
            "total": self.total,
        }


def store_for(folder: str | Path, model: Model, location: str | Path | None = None) -> Store:
    """Open the store of a folder for a model, or make it, at `location` or else in the folder's `.fti4cir`.

    Raises StoreError if it can be neither opened nor made, or the one at `location` belongs to another model.
    """
    location = location or location_for(folder, model.name, model.fingerprint)
    if Store.exists(location):
        store = Store.open(location)
        store.check_model(model.name, model.fingerprint)
        return store
    info = StoreInfo(Path(folder).resolve(), model.name, model.fingerprint, model.encoder.joint_width)
    return Store.create(location, info)


def index_folder(folder: str | Path, store: Store, model: Model, progress: Progress | None = None) -> IndexReport:
    """Bring a store up to date with a folder and those below it.

    Files whose size and time of change are as they were are not read again. New and changed ones are encoded
    and written every few seconds, also when this is interrupted (KeyboardInterrupt, or any error): the next
    run goes on from there. Files that cannot be read are skipped and listed.

    Raises InputError if the folder cannot be listed, StoreError if the store belongs to another folder or
    model or cannot be written.
    """
    root = Path(folder).resolve()
    store.check_model(model.name, model.fingerprint)
    if store.info.root != root:
        raise StoreError(
            f"The store '{store.location}' holds pictures of '{store.info.root}', not of '{root}'; "
            "name another place with --store."
        )
    skipped: list[tuple[Path, str]] = []
    files = list(_files(root, skipped))
    known = store.files()
    changed = [file for file in files if known.get(file.key) != file.state]
    kept = {file.key for file in files if known.get(file.key) == file.state}
    added = updated = done = 0

    def prepare(file: _File) -> _Prepared | PictureError:
        return _prepare(file, model)

    with _Writer(store) as writer, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            prepared = _in_order(pool, prepare, changed)
            while batch := list(islice(prepared, BATCH)):
                good = [one for one in batch if isinstance(one, _Prepared)]
                if good:
                    writer.write(_encode(good, model))
                for file, one in zip(changed[done:], batch, strict=False):
                    if isinstance(one, PictureError):
                        skipped.append((file.path, str(one)))
                    else:
                        kept.add(file.key)
                        added += file.key not in known
                        updated += file.key in known
                done += len(batch)
                if progress is not None:
                    progress(done, len(changed))
        finally:
            # After Ctrl-C nobody waits for pictures that are not going to be encoded.
            pool.shutdown(cancel_futures=True)

    gone = known.keys() - kept
    store.remove(gone)
    if added or updated or gone:
        store.optimize()
    return IndexReport(added, updated, len(kept) - added - updated, len(gone), sorted(skipped), len(store))


_Outcome = TypeVar("_Outcome")


class _File(NamedTuple):
    path: Path
    key: str  # relative to the root, with forward slashes: the store's name for it
    state: FileState


class _Prepared(NamedTuple):
    """A picture ready for the model, and its row but for the vector."""

    file: _File
    digest: str
    width: int
    height: int
    pixels: Tensor  # (3, S, S)


def _files(root: Path, skipped: list[tuple[Path, str]]) -> Iterator[_File]:
    """The folder's pictures; what cannot be looked at goes to `skipped`."""

    def unlisted(error: OSError) -> None:
        skipped.append((Path(error.filename), f"Cannot list the folder '{error.filename}': {error.strerror}."))

    for path in find_pictures(root, on_error=unlisted):
        key = path.relative_to(root).as_posix()
        if not _is_utf8(key):
            skipped.append((path, f"Cannot index '{_printable(path)}': its name is not valid UTF-8; rename it."))
            continue
        try:
            status = path.stat()
        except OSError as error:
            skipped.append((path, f"Cannot read '{path}': {error.strerror}."))
            continue
        yield _File(path, key, FileState(status.st_mtime_ns, status.st_size))


def _prepare(file: _File, model: Model) -> _Prepared | PictureError:
    """Read, decode and preprocess one picture; the error is given back, for it stops nobody else."""
    try:
        data = read_file(file.path)
        picture = decode_picture(data, file.path, at_least=model.encoder.input_size)
    except PictureError as error:
        return error
    pixels = model.encoder.preprocess(picture.image)
    return _Prepared(file, content_digest(data), picture.width, picture.height, pixels)


def _encode(pictures: Sequence[_Prepared], model: Model) -> list[Row]:
    pixels = torch.stack([one.pixels for one in pictures])  # (B, 3, S, S)
    features = model.encoder.encode_pixels(pixels).image  # (B, D)
    vectors = F.normalize(features.detach().float(), dim=-1).cpu().numpy()
    return [
        Row(one.file.key, *one.file.state, one.digest, one.width, one.height, vector)
        for one, vector in zip(pictures, vectors, strict=True)
    ]


def _in_order(
    pool: ThreadPoolExecutor, function: Callable[[_File], _Outcome], items: Iterable[_File]
) -> Iterator[_Outcome]:
    """Like `pool.map`, which would hold every picture of the folder in memory; this holds a few."""
    waiting: deque[Future[_Outcome]] = deque()
    for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > _AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _Writer:
    """Collects rows and writes them every WRITE_EVERY seconds, and at the end, whatever ended it.

    It writes from a thread of its own: the model need not wait, and Ctrl-C, which interrupts the main thread,
    cannot cut a write short.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._rows: list[Row] = []
        self._thread = ThreadPoolExecutor(1)
        self._under_way: Future[None] | None = None
        self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def write(self, rows: list[Row]) -> None:
        """Take rows, and write all those taken if it is time; raises what an earlier write has met."""
        self._rows += rows
        if time.monotonic() - self._last >= WRITE_EVERY:
            self._flush()

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
        rows, self._rows = self._rows, []
        self._under_way = self._thread.submit(self._store.upsert, rows)
        self._last = time.monotonic()

    def _finish(self) -> None:
        if self._under_way is not None:
            self._under_way.result()


def _is_utf8(text: str) -> bool:
    """Whether a name can be stored: Linux allows any bytes, which Python keeps as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _printable(path: Path) -> str:
    return os.fsencode(path).decode(errors="replace")
