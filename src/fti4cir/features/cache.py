"""What a frozen encoder makes of images and sentences, computed once and read from memory-mapped files.

A cache is a folder. `image.f32` and `local.f16` hold the images' features, which grow in blocks of fixed
images; a block counts once `blocks.jsonl` has a line for it, whatever else a process that was killed left
behind. The line also notes what the block's files were: their size and time, which are compared on each use, and
a digest of their content, which decides where those differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..backbones.base import DualEncoder, VisionFeatures, image_fingerprint
from ..errors import CacheError, ImageError, ModelError, NoRoomError
from ..images.decode import FileReader, content_digest, decode_image
from ..inversion.compose import encode_sentences

Say = Callable[[str], None]

_BLOCK = 64
"""Images that pass the image tower together: the same ones with an interruption as without, for how many there
are in a batch may decide how their features are rounded."""
_TEXT_BLOCK = 256
"""Sentences that pass the text tower together, likewise."""


class Reader(Protocol):
    """An opened source of images."""

    def read(self, name: str) -> bytes:
        """The content of an image's file; ImageError if it cannot be read."""
        ...

    def stamp(self, name: str) -> str:
        """What changes with the file and can be had without reading it; empty if there is no such file."""
        ...


class Source(Protocol):
    """Named images, in a folder, a tar file or anywhere."""

    @property
    def names(self) -> Sequence[str]:
        """What the images are called, in a fixed order."""
        ...

    def reader(self) -> AbstractContextManager[Reader]:
        """Open the source."""
        ...


@dataclass(frozen=True)
class FileSource:
    """Images that are files, each named by its path."""

    names: tuple[str, ...]

    @contextlib.contextmanager
    def reader(self) -> Iterator[FileReader]:
        """Open the source."""
        yield FileReader(Path())


class Share(NamedTuple):
    """Which of several processes this is, and how all of them wait for each other."""

    rank: int = 0
    world: int = 1
    wait: Callable[[], object] = lambda: None


@dataclass(frozen=True)
class Features:
    """The frozen encoder's features of N images."""

    image: NDArray[np.float32]
    """(N, D), not normalised; zero for an image that cannot be read."""
    local: NDArray[np.float16] | None
    """(N, P, V), in half precision to halve the disk and what is read of it; None if they were not asked for."""
    unreadable: dict[int, str]
    """The reason for each row that has no features."""
    digests: Sequence[str | None] = ()
    """Of the content of each row's file (N,), equal for copies; None for a file that could not be read."""

    def take(self, rows: Sequence[int], device: torch.device) -> VisionFeatures:
        """The features of these rows, float32: image (B, D) and local (B, P, V)."""
        if self.local is None:
            raise ValueError("these features were made without the local ones")
        image, local = (torch.from_numpy(np.asarray(part[rows])).to(device) for part in (self.image, self.local))
        return VisionFeatures(image, local.float())


class StreamedFeatures:
    """Features whose local part, too large to keep, is computed from the images each time."""

    def __init__(self, features: Features, source: Source, encoder: DualEncoder) -> None:
        self.image, self.unreadable = features.image, features.unreadable
        self._source, self._encoder = source, encoder
        self._opened = contextlib.ExitStack()
        self._reader: Reader | None = None

    def take(self, rows: Sequence[int], device: torch.device) -> VisionFeatures:
        """As `Features.take`.

        Raises:
            ImageError: if an image could be read when the training began, but no longer.

        """
        if self._reader is None:
            self._reader = self._opened.enter_context(self._source.reader())
        names = [self._source.names[row] for row in rows]
        pictures = list(_prepare(names, self._reader, self._encoder))
        for picture in pictures:
            if isinstance(picture.pixels, ImageError):
                raise picture.pixels
        pixels = [picture.pixels for picture in pictures if isinstance(picture.pixels, Tensor)]
        blocks = [
            self._encoder.encode_pixels(torch.stack(pixels[start : start + _BLOCK]))
            for start in range(0, len(pixels), _BLOCK)
        ]
        image = torch.from_numpy(np.asarray(self.image[rows]))  # these and the next are what a cache would give
        local = torch.cat([block.local.half() for block in blocks]).float()
        return VisionFeatures(image.to(device), local.to(device))

    def close(self) -> None:
        """Close the source."""
        self._opened.close()


def compute(
    folder: Path, encoder: DualEncoder, source: Source, say: Say, local: bool = True, share: Share | None = None
) -> Features:
    """Compute the features of all images, as far as `folder` does not hold them yet.

    An image whose file has changed since is computed anew, together with its block.

    Args:
        folder: the cache; made if missing.
        encoder: the frozen dual encoder.
        source: the images.
        say: gets a line of progress now and then.
        local: whether the local features are kept, too; they are by far the larger part.
        share: of several processes that call this together, each computes its share of the blocks.

    Raises:
        NoRoomError: if the disk has too little room for them; nothing was written.
        CacheError: if the folder holds the features of other images or of another encoder, or cannot be
            written to.
        ModelError: if a feature is not a finite number.

    """
    share = share or Share()
    cache = _Cache(folder, encoder, source, local)
    if share.rank == 0:
        cache.open()
    share.wait()
    with source.reader() as reader:
        todo = cache.outdated(reader, write=share.rank == 0)
        share.wait()  # until all have looked, before the first writes
        _compute_blocks(cache, todo[share.rank :: share.world], reader, say)
    share.wait()
    return cache.features()


def _compute_blocks(cache: _Cache, todo: Sequence[int], reader: Reader, say: Say) -> None:
    started = told = time.monotonic()
    done = 0
    for number, block in enumerate(todo):
        done += cache.compute_block(block, reader)
        if time.monotonic() - told > 10 or number == len(todo) - 1:
            told = time.monotonic()
            left = (told - started) / (number + 1) * (len(todo) - number - 1)
            say(
                f"image features: block {number + 1} of {len(todo)}, {done / (told - started):.0f} images a second; "
                f"about {left / 60:.0f} min left"
            )


def require_room(folder: Path, encoder: DualEncoder, count: int, local: bool = True) -> None:
    """Refuse to lay out the features of `count` images where the disk has too little room; NoRoomError says so."""
    if (folder / "key").exists():
        return
    layout = _layout(encoder, count).items()
    needed = sum(
        math.prod(shape) * np.dtype(kind).itemsize for name, (kind, shape) in layout if local or name == "image"
    )
    with _writing(folder):
        existing = next(parent for parent in (folder, *folder.resolve().parents) if parent.exists())
        free = shutil.disk_usage(existing).free
    if needed > free:
        raise NoRoomError(
            f"The features take {needed / 1e9:.1f} GB, but {folder} has only {free / 1e9:.1f} GB left; choose a folder "
            "on a larger disk."
        )


def _layout(encoder: DualEncoder, count: int) -> dict[str, tuple[type[np.floating[Any]], tuple[int, ...]]]:
    """The type and the shape of each kind of features, of `count` images."""
    probe = encoder.encode_pixels(torch.zeros(1, 3, encoder.input_size, encoder.input_size))
    return {
        "image": (np.float32, (count, *probe.image.shape[1:])),
        "local": (np.float16, (count, *probe.local.shape[1:])),
    }


class _Cache:
    """The files of a cache of images' features."""

    def __init__(self, folder: Path, encoder: DualEncoder, source: Source, local: bool) -> None:
        self.folder, self.encoder, self.names = folder, encoder, source.names
        paths = {"image": folder / "image.f32", **({"local": folder / "local.f16"} if local else {})}
        layout = _layout(encoder, len(self.names))
        self.files = {name: (path, *layout[name]) for name, path in paths.items()}
        self.journal = folder / "blocks.jsonl"
        made_of = [image_fingerprint(encoder), list(self.names), sorted(self.files)]
        self.key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()

    def open(self) -> None:
        """Lay the files out if there are none; cut off what a killed process left of a line."""
        key = self.folder / "key"
        if not key.exists():
            require_room(self.folder, self.encoder, len(self.names), "local" in self.files)
            self._lay_out(key)
        if key.read_text() != self.key:
            raise CacheError(
                f"{self.folder} holds the features of other images or of another encoder; delete it or choose "
                "another folder."
            )
        with _writing(self.folder):
            written = self.journal.read_bytes()
            os.truncate(self.journal, written.rfind(b"\n") + 1)

    def _lay_out(self, key: Path) -> None:
        with _writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (*(path for path, _, _ in self.files.values()), self.journal):
                path.write_bytes(b"")
            # Last and at one go: where there is a key, the files are there too.
            (self.folder / "key.tmp").write_text(self.key)
            (self.folder / "key.tmp").replace(key)

    def entries(self) -> dict[int, dict[str, Any]]:
        """The journal's last line of each block, unless that takes the block back."""
        lines = map(json.loads, self.journal.read_text(encoding="utf-8").splitlines())
        last = {line["block"]: line for line in lines}
        return {block: line for block, line in last.items() if "digests" in line}

    def outdated(self, reader: Reader, write: bool) -> list[int]:
        """The blocks that have to be computed: those without a line, and those of which an image has changed.

        Files that were only touched or copied are read once: with `write`, the journal notes their new stamps.
        """
        entries = self.entries()
        todo, touched = [], []
        for block in range(math.ceil(len(self.names) / _BLOCK)):
            entry = entries.get(block)
            if entry is None:
                todo.append(block)
                continue
            names = self._names_of(block)
            stamps = [reader.stamp(name) for name in names]
            if any(
                # An image that could not be read may be again, with the same stamp: permissions do not change it.
                (digest is None or stamp != noted) and _digest(name, reader) != digest
                for name, stamp, noted, digest in zip(names, stamps, entry["stamps"], entry["digests"], strict=True)
            ):
                todo.append(block)
            elif stamps != entry["stamps"]:
                touched.append({**entry, "stamps": stamps})
        if write:
            for entry in touched:
                self._note(entry)
        return todo

    def compute_block(self, block: int, reader: Reader) -> int:
        """Compute and write a block; gives its number of images."""
        names = self._names_of(block)
        start, count = block * _BLOCK, len(names)
        stamps = [reader.stamp(name) for name in names]  # before the contents, which may change in between
        pictures = list(_prepare(names, reader, self.encoder))
        rows = {name: np.zeros((count, *shape[1:]), kind) for name, (_, kind, shape) in self.files.items()}
        readable = [place for place, picture in enumerate(pictures) if isinstance(picture.pixels, Tensor)]
        if readable:
            pixels = [picture.pixels for picture in pictures if isinstance(picture.pixels, Tensor)]
            features = self.encoder.encode_pixels(torch.stack(pixels))
            with np.errstate(over="ignore"):  # told of below
                for name, values in rows.items():
                    values[readable] = getattr(features, name).cpu().numpy()
        if not all(np.isfinite(values).all() for values in rows.values()):
            raise ModelError(
                f"{self.encoder.name} gives features that half precision cannot hold, for one of the {count} images "
                f"from {names[0]} on."
            )
        entry = {
            "block": block,
            "stamps": stamps,
            "digests": [picture.digest for picture in pictures],
            "unreadable": {
                start + place: str(picture.pixels)
                for place, picture in enumerate(pictures)
                if isinstance(picture.pixels, ImageError)
            },
        }
        self._note({"block": block})  # takes back what an earlier line said, before its rows are overwritten
        with _writing(self.folder):
            for name, (path, _, _) in self.files.items():
                _write_rows(path, start, rows[name])
        self._note(entry)
        return count

    def _note(self, entry: Mapping[str, Any]) -> None:
        with _writing(self.folder), open(self.journal, "a", encoding="utf-8") as lines:
            lines.write(json.dumps(entry) + "\n")

    def features(self) -> Features:
        """The whole cache, mapped into memory."""
        mapped: dict[str, NDArray[Any]] = {}
        for name, (path, kind, shape) in self.files.items():
            size = math.prod(shape) * np.dtype(kind).itemsize
            if not path.exists() or path.stat().st_size != size:
                raise CacheError(
                    f"The features in {self.folder} are damaged: {path.name} has not its size; delete {self.folder}."
                )
            mapped[name] = np.memmap(path, kind, "r", shape=shape)
        entries = [entry for _, entry in sorted(self.entries().items())]
        unreadable = {int(row): reason for entry in entries for row, reason in entry["unreadable"].items()}
        digests = [digest for entry in entries for digest in entry["digests"]]
        return Features(mapped["image"], mapped.get("local"), unreadable, digests)

    def _names_of(self, block: int) -> Sequence[str]:
        return self.names[block * _BLOCK : (block + 1) * _BLOCK]


class _Picture(NamedTuple):
    pixels: Tensor | ImageError
    """The tower's input (3, S, S), or why there is none."""
    digest: str | None
    """Of the file's content; None if it could not be read."""


def _prepare(names: Sequence[str], reader: Reader, encoder: DualEncoder) -> Iterator[_Picture]:
    """Read and decode images, in order."""

    def contents() -> Iterator[tuple[str, bytes | ImageError]]:
        for name in names:
            try:
                yield name, reader.read(name)
            except ImageError as error:
                yield name, error

    def prepare(item: tuple[str, bytes | ImageError]) -> _Picture:
        name, content = item
        if isinstance(content, ImageError):
            return _Picture(content, None)
        try:
            pixels = encoder.preprocess(decode_image(content, name).image)
        except ImageError as error:
            return _Picture(error, content_digest(content))
        return _Picture(pixels, content_digest(content))

    # `map` reads all contents in this thread, for a tar file has one position; decoding is shared.
    with ThreadPoolExecutor(2) as pool:
        yield from pool.map(prepare, contents())


def _digest(name: str, reader: Reader) -> str | None:
    try:
        return content_digest(reader.read(name))
    except ImageError:  # told where the block is computed
        return None


def compute_texts(
    folder: Path, encoder: DualEncoder, texts: Sequence[str], say: Say, label: str = "text features"
) -> NDArray[np.float32]:
    """Compute the features of texts, as far as `folder` does not hold them yet: (N, D), not normalised.

    `label` is what they are called in the lines of progress.

    Raises:
        CacheError: if the folder cannot be written to.

    """

    def encode(start: int, stop: int) -> Tensor:
        with torch.no_grad():
            return encode_sentences(encoder, [(text,) for text in texts[start:stop]])

    made_of = [encoder.fingerprint, list(texts)]
    return compute_rows(folder, "texts", made_of, (len(texts), encoder.joint_width), _TEXT_BLOCK, encode, say, label)


def compute_rows(
    folder: Path,
    name: str,
    made_of: object,
    shape: tuple[int, int],
    block: int,
    make: Callable[[int, int], Tensor],
    say: Say,
    label: str | None = None,
) -> NDArray[np.float32]:
    """Compute a matrix by blocks of rows, as far as `folder` does not hold it yet.

    Args:
        folder: the cache; made if missing.
        name: what the rows are called in file names.
        made_of: all that decides the rows, as JSON can say it; each such matrix has a file of its own.
        shape: rows and columns.
        block: rows that are made together, the same ones with an interruption as without.
        make: gives the rows from `start` up to `stop`, float32.
        say: gets a line of progress now and then.
        label: what the rows are called in these lines, such as "features of captions"; None: `name`.

    Raises:
        CacheError: if the folder cannot be written to.

    """
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()[:16]
    path = folder / f"{name}-{key}.f32"
    if not path.exists():
        partial = path.with_suffix(".part")
        block_size = 4 * shape[1] * block
        with _writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            partial.touch()
            done = partial.stat().st_size // block_size
            started = told = time.monotonic()
            with open(partial, "r+b") as file:
                file.truncate(done * block_size)
                file.seek(0, os.SEEK_END)
                for start in range(done * block, shape[0], block):
                    stop = min(start + block, shape[0])
                    file.write(make(start, stop).float().cpu().numpy().tobytes())
                    file.flush()
                    if time.monotonic() - told > 10 or stop == shape[0]:
                        told = time.monotonic()
                        left = (told - started) / (stop - done * block) * (shape[0] - stop)
                        say(f"{label or name}: {stop} of {shape[0]}; about {left / 60:.0f} min left")
                os.fsync(file.fileno())
            partial.replace(path)
    if path.stat().st_size != 4 * math.prod(shape):
        raise CacheError(f"The {name} in {path} are damaged; delete the file.")
    rows: NDArray[np.float32] = np.memmap(path, np.float32, "r", shape=shape)
    return rows


def _write_rows(path: Path, start: int, rows: NDArray[Any]) -> None:
    """Write rows of a file of equal rows, beginning with row `start`, through to the disk."""
    with open(path, "r+b") as file:
        file.seek(start * rows[0].nbytes)
        file.write(rows.tobytes())
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """CacheError for what goes wrong while a folder is written to."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise CacheError(f"{folder} cannot be written to: {reason}; what was saved before is kept.") from error
