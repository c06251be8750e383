"""A folder of images, or an index, ready for search: one call opens it, loads its model and brings it up to date.

import fti4cir
photos = fti4cir.open("photos")
photos.search("shirt.jpg", text="in red")
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast, overload

from ..errors import FtiError, InputError
from ..escaping import escape
from ..files import require_folder
from ..html import data_uri, render
from ..images.decode import ImageSource, open_image
from ..progress import Progress
from . import indexing
from .choice import model_of_folder, model_of_store
from .index_report import IndexReport
from .searcher import Result, Searcher
from .store import Store

if TYPE_CHECKING:
    from pandas import DataFrame

    from ..models.model import Model

_THUMBNAIL = 160
"""The longest side of an image that a notebook shows, in pixels."""


class Results(Sequence[Result]):
    """What a search found, best first. A notebook shows it as images with their scores."""

    def __init__(self, results: Sequence[Result]) -> None:
        self._results = tuple(results)

    @overload
    def __getitem__(self, place: int) -> Result: ...
    @overload
    def __getitem__(self, place: slice) -> Results: ...
    def __getitem__(self, place: int | slice) -> Result | Results:
        return Results(self._results[place]) if isinstance(place, slice) else self._results[place]

    def __len__(self) -> int:
        return len(self._results)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Results) and self._results == other._results

    def __hash__(self) -> int:
        return hash(self._results)

    def __repr__(self) -> str:
        return "\n".join(f"{result.score:.3f}  {result.path}" for result in self) or "no results"

    def _repr_html_(self) -> str:
        """Small images in rows, each with its rank, score and name. An image that is gone is shown by its name."""
        return render("results.html.j2", side=_THUMBNAIL, cells=[_cell(result) for result in self])

    def to_pandas(self) -> DataFrame:
        """A table with the columns `rank` (from 1), `path` (text) and `score`; InputError where pandas is missing."""
        try:
            import pandas
        except ImportError as error:
            raise InputError("A table needs pandas; install it with `pip install pandas`.") from error
        rows = [(rank, str(result.path), result.score) for rank, result in enumerate(self, start=1)]
        return pandas.DataFrame(rows, columns=["rank", "path", "score"])


class Collection:
    """Images that can be searched. Get one with `fti4cir.open`."""

    def __init__(self, model: Model, store: Store) -> None:
        """StoreError if another model made the index."""
        self._searcher = Searcher(model, store)

    @property
    def model(self) -> Model:
        """The model that encodes the images and the queries."""
        return self._searcher.model

    @property
    def store(self) -> Store:
        """The index, with the images' vectors."""
        return self._searcher.store

    @property
    def folder(self) -> Path:
        """The folder that was indexed, absolute."""
        return self.store.info.root

    def __len__(self) -> int:
        """The number of images that can be found."""
        return len(self.store)

    def __repr__(self) -> str:
        return f"<Collection of {len(self)} images in '{self.folder}', model {self.model.name}>"

    def __iter__(self) -> Iterator[Path]:
        """The images' paths, absolute, in the order of their names."""
        return iter([self.folder / name for name in sorted(self.store.files())])

    def update(self, *, progress: Progress | None = None, patience: float | None = None) -> IndexReport:
        """Bring the index up to date with the folder; arguments and errors as in `indexing.index_folder`."""
        return indexing.index_folder(self.folder, self.store, model=self.model, progress=progress, patience=patience)

    def search(
        self,
        images: ImageSource | Sequence[ImageSource] = (),
        text: str | None = None,
        *,
        without: str | None = None,
        k: int = 10,
        where: str | None = None,
        include_reference: bool = False,
        strength: float = 1.0,
        balance: float = 0.0,
    ) -> Results:
        """The k best images, best first.

        Args:
            images: one or several: paths, PIL images or arrays. Without a text, find images like them; with one, "these
                images, but {text}".
            text: what should be different; without images, what to find.
            without: what should not be seen.
            k: how many results, at least 1.
            where: an SQL condition over the index's columns, such as `width >= 1000`.
            include_reference: allow the images given as files among the results.
            strength: how far the text moves the query from the images, at least 0; 1: as trained.
            balance: how much the images' own features count, from 0 to 1; 0: as trained.

        Raises:
            InputError: for a query that says nothing, ImageError for an image that cannot be read.
            StoreError: for a condition that cannot be understood.
            ModelError: for an image with a text, where the model has no inversion weights.

        """
        several = cast(Sequence[ImageSource], images if isinstance(images, list | tuple) else [images])
        return Results(
            self._searcher.search(
                several,
                text,
                without=without,
                k=k,
                where=where,
                include_reference=include_reference,
                strength=strength,
                balance=balance,
            )
        )


def open(source: str | Path, model: str | Path | None = None, *, update: bool = True) -> Collection:
    """Open a folder of images, or an index that `fti4cir index --store` made.

    Args:
        source: the folder, whose index is made or brought up to date first; or the folder or URI of an index, which
            is searched as it is.
        model: the model's name or folder, as `fti4cir.load` takes it; None: the model of the newest
            index, or `mini` if there is none. A folder keeps one index for each model.
        update: False leaves the folder's index as it is.

    Raises:
        InputError: if there is no such folder.
        StoreError: if an index cannot be opened, or another model made it.
        ModelError: if the model cannot be loaded.

    """
    from ..models.loading import load

    asked = None if model is None else str(model)
    if Store.exists(source):
        store = Store.open(source)
        return Collection(load(model_of_store(store, asked)), store)
    folder = Path(source)
    require_folder(folder)
    loaded = load(model_of_folder(folder, asked))
    collection = Collection(loaded, indexing.store_for(folder, loaded))
    if update:
        collection.update()
    return collection


class _Cell(NamedTuple):
    """A result as a notebook shows it."""

    score: float
    name: str
    image: str | None
    """A `data:` address; None for an image that cannot be read."""


def _cell(result: Result) -> _Cell:
    name = escape(result.path.name)
    try:
        image = open_image(result.path, at_least=_THUMBNAIL)
    except FtiError:  # the image was deleted after it was indexed, for example; its name still says which it was
        return _Cell(result.score, name, None)
    image.thumbnail((_THUMBNAIL, _THUMBNAIL))
    return _Cell(result.score, name, data_uri(image, quality=85))
