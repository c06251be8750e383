"""Search an index with images, a text, or images changed by a text."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import InputError
from ..escaping import is_utf8
from ..images.decode import ImageSource, check_images, content_digest, decode_image, open_image, read_file
from ..inversion.steering import check_steering
from .unwanted import SHARE, Unwanted, unit

if TYPE_CHECKING:
    from torch import Tensor

    from ..models.model import Model
    from .store import Store


class Result(NamedTuple):
    """One found image."""

    path: Path
    """Absolute: the indexed folder's path joined with the image's path in it."""
    score: float
    """Cosine of the query's feature with the image's, -1 to 1."""


def check_query(
    images: Sequence[ImageSource],
    text: str | None,
    *,
    without: str | None = None,
    k: int = 1,
    strength: float = 1.0,
    balance: float = 0.0,
) -> None:
    """Refuse a query that makes no sense with an InputError, as `Searcher.search` does, before a model is loaded."""
    check_images(images)
    for name, words in (("text", text), ("text of what to leave out", without)):
        if words is not None and not isinstance(words, str):
            raise InputError(f"The {name} is a string, not {type(words).__name__}.")
        if words is not None and not words.strip():
            raise InputError(f"The {name} is empty.")
        if words is not None and not is_utf8(words):
            raise InputError(f"The {name} is not valid UTF-8: '{words}'.")
    if not images and text is None:
        raise InputError("There is nothing to search for; give an image, a text, or both.")
    check_steering(strength, balance=balance)
    if (strength, balance) != (1.0, 0.0) and not (images and text is not None):
        raise InputError("Strength and balance steer an image with a text; give both, or leave them out.")
    if k < 1:
        raise InputError(f"The number of results must be at least 1, not {k}.")


class Searcher:
    """Searches one index with the model that made it."""

    def __init__(self, model: Model, store: Store) -> None:
        """StoreError if another model made the index."""
        store.check_model(model.name, model.fingerprint)
        self.model = model
        self.store = store
        self._unwanted = Unwanted(model)

    def search(
        self,
        images: Sequence[ImageSource] = (),
        text: str | None = None,
        *,
        without: str | None = None,
        k: int = 10,
        where: str | None = None,
        include_reference: bool = False,
        strength: float = 1.0,
        balance: float = 0.0,
    ) -> list[Result]:
        """The k best images of the index, best first.

        `images` alone finds similar images, `text` alone finds images that match it, and both together mean "these
        images, but ...". Several images are averaged. `without` says what should not be seen. `where` is an SQL
        condition over the index's columns (see `fti4cir.search.schema`), for example `width >= 1000`. `strength` and
        `balance` steer an image with a text, as in `Model.compose`.

        Unless `include_reference` is true, images given as files are not among the results, and neither are
        copies of them.

        Raises:
            InputError: for an empty query, ImageError for an image that cannot be read.
            StoreError: for a condition that cannot be understood.
            ModelError: for an image with a text, if the model has no inversion weights.
        """
        check_query(images, text, without=without, k=k, strength=strength, balance=balance)
        decoded: list[Image.Image] = []
        paths: list[str] = []
        digests: list[str] = []
        # Decoded at the same size as for the index, so that the same file has the same feature.
        size = self.model.encoder.decode_at_least
        for image in images:
            if not isinstance(image, str | Path):
                decoded.append(open_image(image))
                continue
            data = read_file(image)
            decoded.append(decode_image(data, image, at_least=size).image)
            if not include_reference:
                digests.append(content_digest(data))
                # Also by its path, because the file may have changed since it was indexed.
                paths += self._stored_paths(Path(image))
        query = self._query(decoded, text, without, strength=strength, balance=balance)
        hits = self.store.search(query, k, where=where, without_paths=paths, without_digests=digests)
        return [Result(self.store.info.root / hit.path, hit.score) for hit in hits]

    def _query(
        self,
        images: list[Image.Image],
        text: str | None,
        without: str | None,
        *,
        strength: float = 1.0,
        balance: float = 0.0,
    ) -> NDArray[np.float32]:
        """The query's feature, (D,), unit length."""
        if not images:
            assert text is not None  # `check_query` has refused a query without both
            features = self.model.encode_texts([text])  # (1, D)
        elif text is None:
            features = self.model.encode_images(images)  # (N, D)
        else:
            texts = [text] * len(images)
            features = self.model.compose(images, texts, strength=strength, balance=balance)  # (N, D)
        query = unit(unit(_rows(features)).mean(axis=0))  # (D,)
        if without is not None:
            query = unit(query - SHARE * self._unwanted.direction(without))
        return query

    def _stored_paths(self, path: Path) -> list[str]:
        """The paths under which the index may have a file: as it is named, and with links resolved."""
        root = self.store.info.root
        names = {path.absolute(), path.resolve()}
        return [name.relative_to(root).as_posix() for name in names if name.is_relative_to(root)]


def _rows(features: Tensor) -> NDArray[np.float32]:
    rows: NDArray[np.float32] = features.detach().float().cpu().numpy()
    return rows
