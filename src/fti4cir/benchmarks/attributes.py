"""A benchmark from any table of images and their attributes, without an annotator.

One column changes, others are kept. For each image and each other value of the changed column that occurs
among the images which agree with it in the kept columns, there is one query: that image, "in {value}".
Its targets are all of those images; the reference itself is left out of the ranking.

Such figures tell methods apart on a user's own images; they are not scores of a published benchmark.
"""

from __future__ import annotations

import csv
import os
import posixpath
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import InputError
from .annotations import listing, some
from .base import Benchmark, Gallery, Query

_PLACE = "{value}"
_CUTS = (1, 5, 10, 50)
_PRECISION_CUTS = (5, 10, 25, 50)


def load(
    root: str | os.PathLike[str],
    table: str | os.PathLike[str],
    id_column: str,
    change: str,
    keep: Sequence[str],
    template: str,
    *,
    limit: int | None = None,
    seed: int = 0,
    allow_missing: bool = False,
) -> Benchmark:
    """Build the benchmark from a CSV table.

    The gallery is the table's images, in the table's order; files that the table does not name are left alone.
    Values are compared, and put into the template, as they stand in the table. An image whose value is empty in
    the changed column or in a kept one stays in the gallery, but is neither reference nor target: nobody can say
    what it is. Queries come in the gallery's order, those of one image in the order of their values.

    Args:
        root: the folder that ids are relative to.
        table: a CSV file in UTF-8 whose first line names the columns.
        id_column: the column with an image's path relative to the root, parts divided by `/`, with or without
            its extension.
        change: the column whose value the text asks to change.
        keep: the columns in which a target must agree with the reference; none means that any image will do.
        template: the modification, with `{value}` where the wanted value goes.
        limit: at most so many queries, drawn evenly from all; a smaller limit draws a part of a larger one's.
        seed: of that draw.
        allow_missing: go on with the images that are there; `Gallery.missing` then names the others.

    Raises:
        InputError: if the table or the root cannot be read, a column, the template or the limit makes no sense, an
            id is given twice, is ambiguous or leaves the root, images are missing, or no query comes about.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> rows = ["id,kind,colour", "1,shirt,Red", "2,shirt,Blue", "3,shirt,Blue", "4,shoe,Green"]
    >>> _ = (folder / "table.csv").write_text("\\n".join(rows))
    >>> for name in "1234":
    ...     (folder / f"{name}.jpg").touch()
    >>> benchmark = load(folder, folder / "table.csv", "id", "colour", ["kind"], "in {value}")
    >>> for query in benchmark.queries:
    ...     print(query.reference, query.texts, query.targets)
    0 ('in Blue',) (1, 2)
    1 ('in Red',) (0,)
    2 ('in Red',) (0,)
    """
    root, table = Path(root), Path(table)
    if not root.is_dir():
        raise InputError(f"The root {root} is not a folder.")
    if _PLACE not in template:
        raise InputError(f"The template {template!r} needs {_PLACE} where the wanted value goes.")
    if change in keep:
        raise InputError(f"The column {change!r} cannot both change and be kept.")
    if limit is not None and limit < 1:
        raise InputError(f"The limit must be at least 1, not {limit}.")

    rows = _read(table, [id_column, change, *keep])
    paths = _locate(root, [row[0] for row in rows])
    missing = tuple(row[0] for row, path in zip(rows, paths, strict=True) if path is None)
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing)} of the {len(rows)} images in {table} are not under {root}: {some(missing)}; "
            "scores without them are not comparable with others; to go on without them, give --allow-missing."
        )
    present = [(row, path) for row, path in zip(rows, paths, strict=True) if path is not None]
    gallery = Gallery(tuple(row[0] for row, _ in present), tuple(path for _, path in present), missing)

    queries, values = _queries([row[1:] for row, _ in present], template, limit, seed)
    if not queries:
        raise InputError(
            f"{table} gives no query: no two of its {len(gallery)} images here differ in {change!r} "
            f"and agree in {', '.join(map(repr, keep)) or 'nothing'}."
        )
    drawn = "" if limit is None else f", at most {limit} queries drawn with seed {seed}"
    return Benchmark(
        name="attributes",
        split="all",
        protocol=f"{table.name}: {change} changes, kept {', '.join(keep) or 'nothing'}, {template!r}{drawn}",
        gallery=gallery,
        queries=queries,
        values=values,
        precision_cuts=_PRECISION_CUTS,
        recall_cuts=_CUTS,
    )


def _read(table: Path, columns: Sequence[str]) -> list[tuple[str, ...]]:
    """The named columns of each row of a CSV file, in the order they are named."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            header = next(reader, [])
            if unknown := [column for column in columns if column not in header]:
                raise InputError(f"{table} has no column {unknown[0]!r}; it has: {', '.join(header) or 'none at all'}.")
            if twice := [column for column in columns if header.count(column) > 1]:
                raise InputError(f"{table} has the column {twice[0]!r} more than once.")
            places = [header.index(column) for column in columns]
            rows = []
            for fields in reader:
                if not fields:  # a blank line
                    continue
                # With a field too many or too few nobody knows which value belongs to which column.
                if len(fields) != len(header):
                    raise InputError(
                        f"{table}, line {reader.line_num}: {len(fields)} fields, but the header has {len(header)}; "
                        "a value that holds a comma must be put in quotes."
                    )
                row = tuple(fields[place] for place in places)
                if not row[0].strip():
                    raise InputError(f"{table}, line {reader.line_num}: the id in column {columns[0]!r} is empty.")
                rows.append(row)
    except OSError as error:
        raise InputError(f"The table {table} cannot be read: {error.strerror}.") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"The table {table} is not a CSV file in UTF-8: {error}.") from error
    return rows


def _locate(root: Path, ids: Sequence[str]) -> list[Path | None]:
    """The file of each id, or None. Each folder that ids name is listed once, however many they are."""
    folders: dict[str, tuple[set[str], dict[str, list[str]]]] = {}
    paths: list[Path | None] = []
    places = []  # where each id points, whether or not there is a file: what must not come twice
    for name in ids:
        inside = posixpath.normpath(name)
        if inside.startswith(("/", "../")) or inside in {".", ".."} or "\0" in inside:
            raise InputError(f"The id {name!r} is not the path of an image inside {root}.")
        parent, last = posixpath.split(inside)
        if parent not in folders:
            folders[parent] = listing(root / parent)
        files, by_stem = folders[parent]
        matches = [last] if last in files else by_stem.get(last, [])
        if len(matches) > 1:
            raise InputError(f"The id {name!r} fits more than one image under {root}: {some(matches)}.")
        place = posixpath.join(parent, matches[0]) if matches else inside
        places.append(place)
        paths.append(root / place if matches else None)
    repeated = [place for place, times in Counter(places).items() if times > 1]
    if repeated:
        raise InputError(f"Each image may have one row only, but {len(repeated)} have several: {some(repeated)}.")
    return paths


def _queries(
    rows: Sequence[tuple[str, ...]], template: str, limit: int | None, seed: int
) -> tuple[tuple[Query, ...], tuple[tuple[str], ...]]:
    """Queries and the value each asks for, from each image's (changed value, kept value, ...)."""
    known = [all(value.strip() for value in row) for row in rows]
    # kept values -> changed value -> the images that have both
    agreeing: defaultdict[tuple[str, ...], defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for position, row in enumerate(rows):
        if known[position]:
            agreeing[row[1:]][row[0]].append(position)
    # Queries that want the same value of the same images share one tuple of targets.
    answers = {
        kept: {value: tuple(members) for value, members in sorted(by_value.items())}
        for kept, by_value in agreeing.items()
    }
    pairs = [
        (position, value)
        for position, row in enumerate(rows)
        if known[position]
        for value in answers[row[1:]]
        if value != row[0]
    ]
    if limit is not None:
        drawn = np.random.default_rng(seed).permutation(len(pairs))[:limit]
        pairs = [pairs[index] for index in sorted(drawn)]
    queries = tuple(
        Query(
            texts=(template.replace(_PLACE, value),),
            reference=position,
            exclude=(position,),
            within=None,
            targets=answers[rows[position][1:]][value],
        )
        for position, value in pairs
    )
    return queries, tuple((value,) for _, value in pairs)
