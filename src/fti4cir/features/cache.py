"""A frozen encoder's features of images, computed once and read from memory-mapped files.

A cache is a folder. `image.f32` and `local.f16` hold the features. They are written in blocks of fixed images. A
block counts once `blocks.jsonl` has a line for it, whatever else a killed process left behind. The line also notes
what the block's files were: their size and time, which are compared on each use, and a digest of their content, which
decides where those differ.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from ..files import append, drop_partial_line, replacing, writing
from ..images.decode import FileReader, content_digest, decode_image
from ..images.prefetch import prefetch
from ..progress import ProgressLog
from .matrix import write_rows

_logger = logging.getLogger(__name__)

_BLOCK = 64
"""Images that pass the image tower together. They are the same with an interruption as without, because the size of a
batch may decide how features are rounded."""


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
        images = list(_prepare(names, self._reader, self._encoder))
        for prepared in images:
            if isinstance(prepared.pixels, ImageError):
                raise prepared.pixels
        pixels = [image.pixels for image in images if isinstance(image.pixels, Tensor)]
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
    folder: Path, encoder: DualEncoder, source: Source, *, local: bool = True, share: Share | None = None
) -> Features:
    """Compute the features of all images that `folder` does not hold yet; logs progress.

    An image whose file has changed since is computed again, together with its block.

    Args:
        folder: the cache; made if missing.
        encoder: the frozen dual encoder.
        source: the images.
        local: whether the local features are kept, too. They are by far the larger part.
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
        _compute_blocks(cache, todo[share.rank :: share.world], reader)
    share.wait()
    return cache.features()


def _compute_blocks(cache: _Cache, todo: Sequence[int], reader: Reader) -> None:
    progress = ProgressLog(_logger, "image features", total=cache.images_in(todo), unit="images")
    done = 0
    for block in todo:
        done += cache.compute_block(block, reader)
        progress.update(done)


def require_room(folder: Path, encoder: DualEncoder, *, count: int, local: bool = True) -> None:
    """Refuse to lay out the features of `count` images where the disk has too little room; NoRoomError says so."""
    if (folder / "key").exists():
        return
    layout = _layout(encoder, count).items()
    needed = sum(
        math.prod(shape) * np.dtype(kind).itemsize for name, (kind, shape) in layout if local or name == "image"
    )
    with writing(folder, CacheError):
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
            require_room(self.folder, self.encoder, count=len(self.names), local="local" in self.files)
            self._lay_out(key)
        if key.read_text() != self.key:
            raise CacheError(
                f"{self.folder} holds the features of other images or of another encoder; delete it or choose "
                "another folder."
            )
        with writing(self.folder, CacheError):
            drop_partial_line(self.journal)

    def _lay_out(self, key: Path) -> None:
        with writing(self.folder, CacheError):
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in (*(path for path, _, _ in self.files.values()), self.journal):
                path.write_bytes(b"")
            # Last, and whole: where there is a key, the files are there too.
            with replacing(key) as file:
                file.write(self.key.encode())

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
        images = list(_prepare(names, reader, self.encoder))
        rows = {name: np.zeros((count, *shape[1:]), kind) for name, (_, kind, shape) in self.files.items()}
        readable = [place for place, image in enumerate(images) if isinstance(image.pixels, Tensor)]
        if readable:
            pixels = [image.pixels for image in images if isinstance(image.pixels, Tensor)]
            features = self.encoder.encode_pixels(torch.stack(pixels))
            with np.errstate(over="ignore"):  # the check below reports it
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
            "digests": [image.digest for image in images],
            "unreadable": {
                start + place: str(image.pixels)
                for place, image in enumerate(images)
                if isinstance(image.pixels, ImageError)
            },
        }
        self._note({"block": block})  # takes back what an earlier line said, before its rows are overwritten
        with writing(self.folder, CacheError):
            for name, (path, _, _) in self.files.items():
                write_rows(path, start, rows[name])
        self._note(entry)
        return count

    def _note(self, entry: Mapping[str, Any]) -> None:
        with writing(self.folder, CacheError):
            append(self.journal, (json.dumps(entry) + "\n").encode())

    def features(self) -> Features:
        """The whole cache, mapped into memory."""
        mapped: dict[str, NDArray[Any]] = {}
        for name, (path, kind, shape) in self.files.items():
            size = math.prod(shape) * np.dtype(kind).itemsize
            if not path.exists() or path.stat().st_size != size:
                raise CacheError(
                    f"The features in {self.folder} are damaged: {path.name} has the wrong size; delete {self.folder}."
                )
            mapped[name] = np.memmap(path, kind, "r", shape=shape)
        entries = [entry for _, entry in sorted(self.entries().items())]
        unreadable = {int(row): reason for entry in entries for row, reason in entry["unreadable"].items()}
        digests = [digest for entry in entries for digest in entry["digests"]]
        return Features(mapped["image"], mapped.get("local"), unreadable, digests)

    def images_in(self, blocks: Sequence[int]) -> int:
        """The number of images in these blocks."""
        return sum(len(self._names_of(block)) for block in blocks)

    def _names_of(self, block: int) -> Sequence[str]:
        return self.names[block * _BLOCK : (block + 1) * _BLOCK]


class _Prepared(NamedTuple):
    pixels: Tensor | ImageError
    """The tower's input (3, S, S), or why there is none."""
    digest: str | None
    """Of the file's content; None if it could not be read."""


def _prepare(names: Sequence[str], reader: Reader, encoder: DualEncoder) -> Iterator[_Prepared]:
    """Read and decode images, in order."""

    def contents() -> Iterator[tuple[str, bytes | ImageError]]:
        for name in names:
            try:
                yield name, reader.read(name)
            except ImageError as error:
                yield name, error

    def prepare(item: tuple[str, bytes | ImageError]) -> _Prepared:
        name, content = item
        if isinstance(content, ImageError):
            return _Prepared(content, None)
        try:
            pixels = encoder.preprocess(decode_image(content, name).image)
        except ImageError as error:
            return _Prepared(error, content_digest(content))
        return _Prepared(pixels, content_digest(content))

    # The contents are read in this thread, because a tar file has one position; threads decode them.
    yield from prefetch(prepare, contents())


def _digest(name: str, reader: Reader) -> str | None:
    try:
        return content_digest(reader.read(name))
    except ImageError:  # the block notes the reason when it is computed
        return None
