"""From image files to rows of the index: read, decode, encode, and reuse the vectors of copies."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from ..errors import ImageError
from ..images.decode import content_digest, decode_image, read_file
from .listing import Failure, ImageFile, is_temporary
from .schema import Row
from .store import Store
from .writer import RowWriter

if TYPE_CHECKING:
    from ..models.model import Model


class PreparedImage(NamedTuple):
    """An image ready for the model, with everything that its row holds except the vector."""

    file: ImageFile
    digest: str
    width: int
    height: int
    pixels: Tensor  # (3, S, S)


class Copy(NamedTuple):
    """A file whose content already has a vector."""

    file: ImageFile
    digest: str


Prepared = PreparedImage | Copy | Failure
"""What reading a file gives."""


def prepare(file: ImageFile, model: Model, *, known: Collection[str]) -> Prepared:
    """Read one image; decode and preprocess it unless the digest of its file is `known`.

    A failure is returned, not raised, because other images are not affected.
    """
    try:
        data = read_file(file.path)
        digest = content_digest(data)
        if digest in known:
            return Copy(file, digest)
        decoded = decode_image(data, file.path, at_least=model.encoder.decode_at_least)
    except ImageError as error:
        return Failure(file.path, str(error), is_temporary(error.__cause__))
    return PreparedImage(file, digest, decoded.width, decoded.height, model.encoder.preprocess(decoded.image))


class KnownVectors:
    """Vectors that need not be computed, by the digest of the file: those in the index and those of this run."""

    def __init__(self, store: Store, writer: RowWriter, *, digests: set[str]) -> None:
        self.digests = digests
        """The digests that most likely have a vector."""
        self._writer = writer
        # Also the index as it was, because a file that takes the name of another one overwrites its row.
        self._stores = (store.snapshot(), store)

    def find(self, digests: set[str]) -> dict[str, Row]:
        """For each of these digests that has a vector, a row with it."""
        rows = {row.digest: row for row in self._writer.pending() if row.digest in digests}
        for store in self._stores:
            if missing := digests - rows.keys():
                rows |= store.with_digests(missing)
        return rows


def embed(batch: Sequence[Prepared], model: Model, *, known: KnownVectors) -> tuple[list[Row], list[Failure]]:
    """The rows of a batch, where copies share one vector, and the files that cannot be read."""
    found = known.find({one.digest for one in batch if not isinstance(one, Failure)} & known.digests)
    # Where no lock is possible, another writer may have removed a row that this run counted on.
    batch = [
        prepare(one.file, model, known=()) if isinstance(one, Copy) and one.digest not in found else one
        for one in batch
    ]
    new = {one.digest: one for one in batch if isinstance(one, PreparedImage) and one.digest not in found}
    if new:
        found |= {row.digest: row for row in _encode(list(new.values()), model)}
        known.digests |= new.keys()
    rows = [
        found[one.digest]._replace(path=one.file.key, mtime_ns=one.file.state.mtime_ns, size=one.file.state.size)
        for one in batch
        if not isinstance(one, Failure)
    ]
    return rows, [one for one in batch if isinstance(one, Failure)]


def _encode(images: Sequence[PreparedImage], model: Model) -> list[Row]:
    pixels = torch.stack([one.pixels for one in images])  # (B, 3, S, S)
    features = model.encoder.encode_pixels(pixels).image  # (B, D)
    vectors = F.normalize(features.detach().float(), dim=-1).cpu().numpy()
    return [
        Row(one.file.key, *one.file.state, one.digest, one.width, one.height, vector)
        for one, vector in zip(images, vectors, strict=True)
    ]
