"""Folders and annotation files of published benchmarks: what their loaders share.

The images of these benchmarks come from many hands, so their files are looked for by name in several places and
with any extension. What is not found stays in the benchmark as missing, and no query is dropped for it.
"""

from __future__ import annotations

import json
import os
import posixpath
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import InputError
from ..images.decode import EXTENSIONS
from .base import Gallery, Query

_EXAMPLES = 5
_KINDS = {str: "text", int: "a whole number", list: "a list", dict: "an object"}


class Entry(NamedTuple):
    """One annotation: its fields, and where they stand."""

    fields: Mapping[str, Any]
    place: str
    """The file and the entry's number, as an error names them."""


class Places:
    """The positions of a gallery, by the benchmark's names: first the images that are here, then the missing ones.

    Args:
        names: what the benchmark calls each image of the gallery, each once.
        paths: the image file of each, or None.
        unnamed: as in `Gallery`.
    """

    def __init__(self, names: Sequence[str], paths: Sequence[Path | None], unnamed: int = 0) -> None:
        here = [(name, path) for name, path in zip(names, paths, strict=True) if path is not None]
        missing = tuple(name for name, path in zip(names, paths, strict=True) if path is None)
        self.gallery = Gallery(tuple(name for name, _ in here), tuple(path for _, path in here), missing, unnamed)
        self._positions = {name: position for position, name in enumerate((*self.gallery.ids, *missing))}

    def __call__(self, name: str, entry: Entry) -> int:
        """The position of an image that an annotation names; InputError if it does not belong to the gallery."""
        try:
            return self._positions[name]
        except KeyError:
            raise InputError(
                f"{entry.place}: the image {name!r} is not in the gallery; this file and the list of the gallery's "
                "images are not of one version of the benchmark, so fetch both again."
            ) from None


def require_root(root: Path) -> None:
    """InputError unless the benchmark's folder is one."""
    if not root.is_dir():
        raise InputError(f"The root {root} is not a folder.")


def require_images(gallery: Gallery, name: str, root: Path) -> None:
    """InputError if images of the gallery are missing."""
    if gallery.missing:
        raise InputError(
            f"{len(gallery.missing)} of the {gallery.places} images of {name} are not under {root}: "
            f"{some(gallery.missing)}; scores without them are not comparable with others; fti4cir verify says which "
            "are missing, and --allow-missing goes on without them."
        )


def coverage(gallery: Gallery, queries: Sequence[Query]) -> str:
    """What missing images mean for the figures, to follow a protocol; nothing if none are missing."""
    if not gallery.absent:
        return ""
    here = len(gallery)
    lost = sum(query.reference >= here for query in queries)
    unreachable = sum(any(target >= here for target in query.targets) for query in queries)
    return (
        f"; incomplete: {gallery.absent} of {len(gallery) + gallery.absent} images are missing, among them the "
        f"reference of {lost} and known targets of {unreachable} of {len(queries)} queries, which count as not found"
    )


def first_file(places: Sequence[Path]) -> Path:
    """The first of the places that is a file; if none is, the first, for an error to name."""
    return next((place for place in places if place.is_file()), places[0])


def read_json(path: Path) -> Any:
    """The content of an annotation file; InputError if it cannot be read or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The annotation file {path} cannot be read: {error.strerror}.") from error
    # RecursionError: brackets nested thousands deep, in a file that is damaged or not meant well.
    except (ValueError, RecursionError) as error:
        raise InputError(f"The annotation file {path} is not JSON in UTF-8: {error}.") from error


def read_entries(path: Path, fields: Mapping[str, type]) -> list[Entry]:
    """An annotation file that is a list of objects, each with the given fields of the given types.

    Raises:
        InputError: if the file cannot be read, is no such list or an empty one, or an entry lacks a field.
    """
    content = read_json(path)
    if not isinstance(content, list) or not content:
        raise InputError(f"The annotation file {path} must hold a list of queries; this one does not.")
    entries = [Entry(fields, f"{path}, entry {number}") for number, fields in enumerate(content, start=1)]
    for entry in entries:
        check_fields(entry, fields)
    return entries


def check_fields(entry: Entry, fields: Mapping[str, type]) -> None:
    """InputError unless the entry is an object with the given fields of the given types."""
    if not isinstance(entry.fields, dict):
        raise InputError(f"{entry.place}: this must be an object with the fields {', '.join(fields)}.")
    for name, kind in fields.items():
        if name not in entry.fields:
            raise InputError(f"{entry.place}: the field {name!r} is missing.")
        if type(entry.fields[name]) is not kind:  # isinstance would let `true` be a number
            raise InputError(f"{entry.place}: the field {name!r} must be {_KINDS[kind]}.")


def check_list(entry: Entry, name: str, kind: type) -> list[Any]:
    """The field of that name, a list whose members are all of one type; InputError if they are not."""
    members: list[Any] = entry.fields[name]
    if any(type(member) is not kind for member in members):
        raise InputError(f"{entry.place}: each place of the list {name!r} must be {_KINDS[kind]}.")
    return members


def unique_ids(entries: Sequence[Entry], name: str) -> tuple[int, ...]:
    """The field of that name of all entries; InputError if two have the same."""
    ids: dict[int, Entry] = {}
    for entry in entries:
        if entry.fields[name] in ids:
            raise InputError(f"{entry.place}: the {name} {entry.fields[name]} stands in more than one entry.")
        ids[entry.fields[name]] = entry
    return tuple(ids)


def check_names(names: Sequence[Any], path: Path) -> list[str]:
    """The names of a gallery's images; InputError unless each is text, stands once and stays in the folder."""
    if not names:
        raise InputError(f"The annotation file {path} names no image.")
    seen = set()
    for name in names:
        if not isinstance(name, str):
            raise InputError(f"The annotation file {path} must name images by text, not by {name!r:.50}.")
        inside = posixpath.normpath(name)
        if inside.startswith(("/", "../")) or inside in {".", ".."} or "\0" in inside:
            raise InputError(f"The annotation file {path} names {name!r}, which is no image inside the root.")
        if inside in seen:
            raise InputError(f"The annotation file {path} names the image {name!r} twice.")
        seen.add(inside)
    return list(names)


def locate(candidates: Iterable[Sequence[Path]]) -> list[Path | None]:
    """For each image, the file in the first of its possible places that holds one, or None.

    A place fits with any image extension; its own is preferred, and then the first in the alphabet. Each folder is
    listed once, however many images are looked for in it.
    """
    folders: dict[Path, tuple[set[str], dict[str, list[str]]]] = {}
    found: list[Path | None] = []
    for places in candidates:
        path = None
        for place in places:
            folder = place.parent
            if folder not in folders:
                folders[folder] = listing(folder)
            files, by_stem = folders[folder]
            matches = [place.name] if place.name in files else by_stem.get(place.stem, [])
            if matches:
                path = folder / matches[0]
                break
        found.append(path)
    return found


def listing(folder: Path) -> tuple[set[str], dict[str, list[str]]]:
    """A folder's files, by name and, for images, by name without extension; of no folder, nothing."""
    files: set[str] = set()
    by_stem: defaultdict[str, list[str]] = defaultdict(list)
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if os.path.isfile(entry.path))
    except (FileNotFoundError, NotADirectoryError):
        names = []
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    for name in names:
        files.add(name)
        stem, suffix = os.path.splitext(name)
        if suffix.lower() in EXTENSIONS:
            by_stem[stem].append(name)
    return files, dict(by_stem)


def some(names: Sequence[str]) -> str:
    """The first few names, for an error message."""
    shown = ", ".join(names[:_EXAMPLES])
    return shown if len(names) <= _EXAMPLES else f"{shown}, ..."
