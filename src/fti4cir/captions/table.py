"""Images with captions, for training: a folder or a tar of images and a table of captions."""

from __future__ import annotations

import csv
import io
import json
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from ..errors import ImageError, InputError
from ..images.decode import EXTENSIONS, FileReader, find_images


class Caption(NamedTuple):
    """A caption, and its two parts where the table gives them."""

    text: str
    parts: tuple[str, str] | None = None
    """Subject and attribute."""


class TarReader:
    """Reads images inside a tar file."""

    def __init__(self, source: Path, tar: tarfile.TarFile) -> None:
        self._source, self._tar = source, tar
        self._members = {_member_name(member): member for member in tar.getmembers()}

    def read(self, name: str) -> bytes:
        """The content of a file; ImageError if it cannot be read."""
        if name not in self._members:
            raise ImageError(f"Cannot read '{name}' in {self._source}: there is no such file.")
        try:
            file = self._tar.extractfile(self._members[name])
            if file is not None:
                return file.read()
        except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
            raise ImageError(f"Cannot read '{name}' in {self._source}: {error}.") from error
        raise ImageError(f"Cannot read '{name}' in {self._source}: it is not a file.")

    def stamp(self, name: str) -> str:
        """Size, time of last change and place in the tar file; empty if it is not in it."""
        member = self._members.get(name)
        return f"{member.size} {member.mtime} {member.offset_data}" if member else ""


@dataclass(frozen=True)
class CaptionedImages:
    """N images, sorted by name, each with at least one caption."""

    source: Path
    """The folder or tar file."""
    names: tuple[str, ...]
    """Paths inside the source, with forward slashes."""
    captions: tuple[tuple[Caption, ...], ...]
    missing: tuple[str, ...]
    """Images that have captions but are not in the source."""

    def __len__(self) -> int:
        return len(self.names)

    @contextmanager
    def reader(self) -> Iterator[FileReader | TarReader]:
        """Open the source; a tar file is then opened only once."""
        if self.source.is_dir():
            yield FileReader(self.source)
            return
        with tarfile.open(self.source) as tar:
            yield TarReader(self.source, tar)


def load_captioned_images(images: str | Path, captions: str | Path) -> CaptionedImages:
    """Match captions with images.

    Captions come as a CSV with the columns `image` and `caption`, or as JSON lines with these fields, any
    number an image. JSON lines may also carry `subject` and `attribute`, the caption's two parts, which then
    stand for it. `image` is a path inside the source, or only the file's name where that is unique.

    Raises:
        InputError: if a file is missing or malformed, or nothing matches.

    """
    source, table = Path(images), Path(captions)
    available = images_of(source)
    by_short_name: dict[str, str | None] = {}
    for name in available:
        short = PurePosixPath(name).name
        by_short_name[short] = None if short in by_short_name else name
    found: dict[str, list[Caption]] = {}
    missing: dict[str, None] = {}
    for image, caption in _read_table(table):
        name = image if image in available else by_short_name.get(image, "") or ""
        if name:
            found.setdefault(name, []).append(caption)
        else:
            missing[image] = None
    if not found:
        raise InputError(f"None of the images that {table} names is in {source}.")
    names = sorted(found)
    return CaptionedImages(source, tuple(names), tuple(tuple(found[name]) for name in names), tuple(missing))


def images_of(source: Path) -> set[str]:
    """The names of the images in a folder or a tar file; InputError if it is neither."""
    if source.is_dir():
        return {path.relative_to(source).as_posix() for path in find_images(source)}
    if not source.exists():
        raise InputError(f"There is no folder or tar file {source}.")
    try:
        with tarfile.open(source) as tar:
            names = {_member_name(member) for member in tar if member.isfile()}
            return {name for name in names if PurePosixPath(name).suffix.lower() in EXTENSIONS}
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:  # the last two: a gzipped one cut short
        raise InputError(f"{source} is neither a folder nor a tar file that can be read: {error}.") from error


def _member_name(member: tarfile.TarInfo) -> str:
    return member.name.removeprefix("./")


def _read_table(table: Path) -> Iterator[tuple[str, Caption]]:
    try:
        with open(table, newline="", encoding="utf-8-sig") as file:
            yield from (_read_csv(table, file) if table.suffix.lower() == ".csv" else _read_json_lines(table, file))
    except OSError as error:
        raise InputError(f"Cannot read the captions {table}: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"The captions {table} are not UTF-8 text; save the file as UTF-8.") from error
    except csv.Error as error:
        raise InputError(f"The captions {table} are not a CSV file: {error}.") from error


def _read_csv(table: Path, file: io.TextIOBase) -> Iterator[tuple[str, Caption]]:
    reader = csv.DictReader(file, strict=True)
    if not {"image", "caption"} <= set(reader.fieldnames or ()):
        raise InputError(f"{table} needs the columns image and caption, but has {', '.join(reader.fieldnames or ())}.")
    for row in reader:
        if not row["image"] or row["caption"] is None:
            raise InputError(f"Line {reader.line_num} of {table} lacks an image or a caption.")
        if None in row:  # else a caption with a comma would lose its end unnoticed
            raise InputError(
                f"Line {reader.line_num} of {table} has more fields than the header; a caption that holds a comma "
                "must be put in quotes."
            )
        yield row["image"], Caption(row["caption"])


def _read_json_lines(table: Path, file: io.TextIOBase) -> Iterator[tuple[str, Caption]]:
    for number, line in enumerate(file, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            image, parts = record["image"], (record.get("subject"), record.get("attribute"))
            whole = all(isinstance(part, str) and part.strip() for part in parts)
            text = record.get("caption") or " ".join(parts) if whole else record["caption"]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f'Line {number} of {table} is not a JSON object with "image" and "caption": {line.strip()[:80]}'
            ) from error
        if not isinstance(image, str) or not isinstance(text, str):
            raise InputError(f"Line {number} of {table}: image and caption must be texts.")
        yield image, Caption(text, parts if whole else None)
