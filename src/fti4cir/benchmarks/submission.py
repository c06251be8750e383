"""Files of predictions: what the servers of CIRR and CIRCO take, written and checked.

A file is a JSON object: for each query's id, as text, the images that it found, best first. What else a server asks
of a file, the benchmark's `Published.forms` says.

Whatever a server would refuse is refused here, before a file is written or after one is read: its answer may be hours
away, and the number of tries limited.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from ..files import replacing
from . import registry
from .base import Benchmark
from .published import Form

_SHOWN = 5  # queries that an error names


@dataclass(frozen=True)
class Predictions:
    """A file of predictions that keeps the server's rules."""

    benchmark: Benchmark
    """What it answers, with a protocol that names the file."""
    form: Form
    ranking: NDArray[np.int64]
    """(Q, `form.count`) positions in the benchmark's gallery, best first."""
    gallery_size: int
    """How many images the gallery has."""


def require_server(benchmark: str, option: str) -> tuple[Form, ...]:
    """The forms of a benchmark by its name; InputError that names the option if no server takes any."""
    known = registry.benchmarks()
    if benchmark in known and known[benchmark].forms:
        return known[benchmark].forms
    served = [name for name, one in known.items() if one.forms]
    raise InputError(f"No server takes predictions for {benchmark}; {option} is for {' and '.join(served)}.")


def plan(benchmark: Benchmark, path: str | os.PathLike[str], lost: Collection[int] = ()) -> tuple[Path, ...]:
    """The files that `write` would write, if it can: to be called before hours of work, not after.

    The first is `path`; where the server takes a second one, its name is the same with `_subset` before the extension.

    Args:
        benchmark: all queries of a split.
        path: the file.
        lost: the positions of images of the gallery that turned out to be unreadable.

    Raises:
        InputError: if no server takes submissions to this benchmark, images without which a query has too few
            predictions are missing, or the folder is none.
    """
    path = Path(path)
    forms = require_server(benchmark.name, "--submission")
    if path.is_dir():
        raise InputError(f"The submission {path} cannot be written, for it is a folder; give the name of a file.")
    if not path.parent.is_dir():
        raise InputError(
            f"The submission {path} cannot be written, for there is no folder {path.parent}; make it first."
        )
    count = len(benchmark.gallery)

    def here(position: int) -> bool:
        return position < count and position not in lost

    for query_id, query in zip(benchmark.query_ids, benchmark.queries, strict=True):
        left = {
            False: count - len(lost) - sum(map(here, query.exclude)),
            True: sum(map(here, query.within or ())),
        }
        if not here(query.reference) or any(left[form.within] < form.count for form in forms):
            raise InputError(
                f"No submission to {benchmark.name} {benchmark.split} can be made: too many images are missing or "
                f"unreadable for query {query_id}; fti4cir verify {benchmark.name} says which."
            )
    return tuple(path if number == 0 else path.with_stem(f"{path.stem}_subset") for number in range(len(forms)))


def write(
    benchmark: Benchmark,
    ranking: NDArray[np.int64],
    subset_ranking: NDArray[np.int64] | None,
    path: str | os.PathLike[str],
    lost: Collection[int] = (),
) -> tuple[Path, ...]:
    """Write a submission; all of its files or none, and each at one go.

    Args:
        benchmark: all queries of a split.
        ranking: (Q, depth) positions in the gallery, best first, as in `evaluation.evaluate.Evaluation`.
        subset_ranking: (Q, depth) the same within each query's group, where the benchmark has such.
        path: the file; see `plan` for the name of a second one.
        lost: as in `plan`.

    Returns:
        The files.

    Raises:
        InputError: if the server would refuse a file, or one cannot be written.
    """
    paths = plan(benchmark, path, lost)
    names = (*benchmark.gallery.ids, *benchmark.gallery.missing)
    texts = []
    for form, file in zip(require_server(benchmark.name, "--submission"), paths, strict=True):
        source = subset_ranking if form.within else ranking
        assert source is not None  # benchmarks that have a form for groups have groups
        content: dict[str, Any] = dict(form.metadata)
        for query_id, row in zip(benchmark.query_ids, source[:, : form.count].tolist(), strict=True):
            content[str(query_id)] = [form.of(names[position]) for position in row if position >= 0]
        text = json.dumps(content)
        _check_size(len(text.encode()), form, file)
        _positions(content, form, benchmark, _places(benchmark, form), file)
        texts.append(text)
    _replace_all(paths, texts)
    return paths


def read(benchmark: Benchmark, path: str | os.PathLike[str]) -> Predictions:
    """Read a file of predictions, which need not have been made here, and check it. No images are needed.

    Without the list of a gallery, as of CIRCO's without COCO's, nobody can say which predictions are in it: any number
    then passes for an image of it, and the protocol says so.

    Args:
        benchmark: all queries of a split; all images of its gallery may be missing.
        path: the file.

    Raises:
        InputError: if the file cannot be read or breaks a rule of the server: a query is missing or unknown, or has not
            the right number of predictions, or one that is no image of the gallery, stands twice, is the reference
            where that is left out, or is not in the group.
    """
    path = Path(path)
    forms = require_server(benchmark.name, "--predictions")
    content = _content(path, max((form.limit for form in forms if form.limit is not None), default=None))
    form = _form(content, forms, benchmark, path)
    places = _places(benchmark, form)
    protocol, size = f"the predictions in {path.name}", len(places)
    whole = registry.get(benchmark.name).gallery_size
    if whole is not None and size < whole:
        size = whole
        protocol += "; that they are in the gallery is not checked, because the whole list of it is not there"
        unlisted = [image for image in _numbers(content) if image not in places]
        missing = (*benchmark.gallery.missing, *map(str, unlisted))
        benchmark = replace(benchmark, gallery=replace(benchmark.gallery, missing=missing))
        places = _places(benchmark, form)
    ranking = _positions(content, form, benchmark, places, path)
    return Predictions(replace(benchmark, protocol=protocol), form, ranking, size)


def _places(benchmark: Benchmark, form: Form) -> dict[str | int, int]:
    """The position of each image of the gallery, by what a file calls it."""
    names = (*benchmark.gallery.ids, *benchmark.gallery.missing)
    return {form.of(name): position for position, name in enumerate(names)}


def _numbers(content: Mapping[str, Any]) -> list[int]:
    """All that may be the number of an image, each once."""
    lists = [found for found in content.values() if isinstance(found, list)]
    return list(dict.fromkeys(image for found in lists for image in found if type(image) is int and image > 0))


def _content(path: Path, limit: int | None) -> dict[str, Any]:
    """The JSON object in a file of at most so many bytes."""

    def once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
        """Of two entries with one name, JSON readers silently keep the second."""
        entries = dict(pairs)
        if len(entries) < len(pairs):
            names = [name for name, _ in pairs]
            raise InputError(f"{path} has more than one entry {max(names, key=names.count)!r}; leave one of them.")
        return entries

    try:
        if limit is not None and path.stat().st_size > limit:
            raise _too_large(path, path.stat().st_size, limit)
        content = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=once)
    except OSError as error:
        raise InputError(f"The predictions {path} cannot be read: {error.strerror}.") from error
    # RecursionError: brackets nested thousands deep, in a file that is damaged or not meant well.
    except (ValueError, RecursionError) as error:
        raise InputError(f"The predictions {path} are not JSON in UTF-8: {error}.") from error
    if not isinstance(content, dict):
        raise InputError(f"The predictions {path} must be an object with a list for each query; this file is none.")
    return content


def _form(content: Mapping[str, Any], forms: Sequence[Form], benchmark: Benchmark, path: Path) -> Form:
    """Which of the server's forms a file has, by its metadata."""
    for form in forms:
        if all(content.get(name) == value for name, value in form.metadata.items()):
            return form
    for name in forms[0].metadata:
        allowed = list(dict.fromkeys(form.metadata[name] for form in forms))
        if content.get(name) not in allowed:
            entries = " or ".join(f'"{name}": "{value}"' for value in allowed)
            raise InputError(f"{path} must say {entries}, or the server of {benchmark.name} does not take it.")
    raise AssertionError("a form differs from the others in one entry only")


def _check_size(size: int, form: Form, path: Path) -> None:
    if form.limit is not None and size > form.limit:
        raise _too_large(path, size, form.limit)


def _too_large(path: Path, size: int, limit: int) -> InputError:
    return InputError(
        f"{path} has {size / 1e6:.1f} MB, but the server takes {limit / 1e6:.0f} MB; give each query no more "
        "predictions than are scored, and names without an extension."
    )


def _positions(
    content: Mapping[str, Any], form: Form, benchmark: Benchmark, places: Mapping[str | int, int], path: Path
) -> NDArray[np.int64]:
    """Check what a file says of each query, and give it as positions (Q, `form.count`)."""
    expected = {str(query_id): query for query_id, query in zip(benchmark.query_ids, benchmark.queries, strict=True)}
    source = f"{benchmark.name} {benchmark.split}"
    if unknown := [name for name in content if name not in form.metadata and name not in expected]:
        raise InputError(
            f"{path} has {len(unknown)} entries that are no queries of {source}: {_some(unknown)}; take them out, or "
            "give the split that the file is of."
        )
    if absent := [name for name in expected if name not in content]:
        raise InputError(
            f"{path} lacks {len(absent)} of the {len(expected)} queries of {source}: {_some(absent)}; the server takes "
            "predictions for all of them only."
        )
    ranking = np.empty((len(expected), form.count), dtype=np.int64)
    for number, (name, query) in enumerate(expected.items()):
        where = f"{path}, query {name}"
        found = content[name]
        if not isinstance(found, list) or len(found) != form.count:
            has = f"{len(found)} predictions" if isinstance(found, list) else "no list"
            raise InputError(f"{where}: there must be a list of {form.count} predictions, and there is {has}.")
        kind: type = int if form.numbers else str
        for image in found:
            # Before anything is looked up by it: a list cannot be, and `true` would pass for 1.
            if type(image) is not kind or image not in places:
                raise InputError(f"{where}: {json.dumps(image):.60} is no image of the gallery; {_called(form)}.")
        positions = [places[image] for image in found]
        if len(set(positions)) < len(positions):
            raise InputError(f"{where}: {max(found, key=found.count)} stands more than once; predict each image once.")
        for image, position in zip(found, positions, strict=True):
            if position in query.exclude:
                raise InputError(f"{where}: {image} is the reference, which is no answer; leave it out of the ranking.")
            if form.within and query.within is not None and position not in query.within:
                raise InputError(
                    f"{where}: {image} is not in the query's group; rank only the other members of its 'img_set'."
                )
        ranking[number] = positions
    return ranking


def _called(form: Form) -> str:
    if form.numbers:
        return "an image is called by its COCO id, a whole number without quotes"
    return "an image is called by its name in the split file, without folder and extension"


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(f"{name:.40}" for name in names[:_SHOWN])
    return shown if len(names) <= _SHOWN else f"{shown}, ..."


def _replace_all(paths: Sequence[Path], texts: Sequence[str]) -> None:
    """Write all files, and only then put them where they belong."""
    try:
        with ExitStack() as stack:
            for path, text in zip(paths, texts, strict=True):
                file = stack.enter_context(replacing(path))
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())  # a full disk is found before the first file is replaced
    except OSError as error:
        raise InputError(f"The submission {paths[0]} cannot be written: {error.strerror}.") from error
