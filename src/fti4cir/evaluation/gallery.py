"""Encoding a benchmark's gallery: each image is read and encoded once, and the queries are composed on the way.

Local features are by far the largest thing here (hundreds of times the global one), and so they never outlive their
batch. What stays is one global feature an image and one composed feature a query.

Copies of a file tie exactly, and then the first of them in the gallery ranks first (`metrics.rank`). How a feature is
rounded depends on the batch that its image was in and on the processor, so copies share the feature of the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Hashable, Sequence
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder, image_fingerprint
from ..benchmarks.base import Benchmark
from ..errors import ImageError
from ..features.cache import FileSource, compute
from ..images.decode import content_digest, decode_image, read_file
from ..images.prefetch import prefetch
from ..progress import Progress
from .queries import QueryComposer
from .ranking import blocks

_BATCH = 32  # images through the image tower at a time
_NORMALISED = 2**13  # cached features normalised at a time

Lose = Callable[[int, str], None]
"""Called with the position of an image that cannot be read, and the reason."""


@torch.inference_mode()
def encode(
    benchmark: Benchmark, encoder: DualEncoder, *, queries: QueryComposer, progress: Progress, lose: Lose
) -> NDArray[np.float32]:
    """Unit-length features of the gallery (N, D), zero for an image that is lost; queries are composed on the way."""
    paths = benchmark.gallery.paths
    gallery = np.zeros((len(paths), encoder.joint_width), dtype=np.float32)
    digests: list[str | None] = [None] * len(paths)
    with closing(_batches(paths, range(len(paths)), encoder, progress, lose)) as batches:
        for batch in batches:
            features = encoder.encode_pixels(batch.pixels)
            gallery[batch.positions] = F.normalize(features.image, dim=-1).cpu().numpy()
            for position, digest in zip(batch.positions, batch.digests, strict=True):
                digests[position] = digest
            queries.compose(batch.positions, features)
    share_first(gallery, digests)
    return gallery


@torch.inference_mode()
def encode_cached(
    benchmark: Benchmark, encoder: DualEncoder, *, cache: Path, queries: QueryComposer, progress: Progress, lose: Lose
) -> NDArray[np.float32]:
    """As `encode`, with the gallery's features kept on disk: only what is not there is encoded, and the references."""
    paths = benchmark.gallery.paths
    source = FileSource(tuple(str(path.absolute()) for path in paths))
    # A folder for each gallery and encoder, so that one DIR serves all benchmarks and models.
    key = hashlib.sha256("\0".join([image_fingerprint(encoder), *source.names]).encode()).hexdigest()[:16]
    kept = compute(cache / key, encoder, source, local=False)
    for position, reason in kept.unreadable.items():
        lose(position, reason)
    gallery = np.empty((len(paths), encoder.joint_width), dtype=np.float32)
    for block in blocks(range(len(paths)), _NORMALISED):
        gallery[block] = F.normalize(torch.from_numpy(np.array(kept.image[block])), dim=-1).numpy()
    share_first(gallery, kept.digests)
    # Composing takes local features, which are too large to be kept for a gallery.
    references = [position for position in queries.references if position not in kept.unreadable]
    with closing(_batches(paths, references, encoder, progress, lose)) as batches:
        for batch in batches:
            queries.compose(batch.positions, encoder.encode_pixels(batch.pixels))
    return gallery


def share_first(features: NDArray[np.float32], contents: Sequence[Hashable | None]) -> None:
    """Give what has the same content the same feature, that of the first, in place.

    Args:
        features: (N, D).
        contents: what stands for each row's content (N,), the digest of a file, say; None for nothing known.
    """
    seen: dict[Hashable, int] = {}
    for position, content in enumerate(contents):
        if content is not None and (first := seen.setdefault(content, position)) != position:
            features[position] = features[first]


class _Read(NamedTuple):
    """An image that was read."""

    position: int
    pixels: Tensor
    """(3, S, S)"""
    digest: str
    """Of its file's content."""


class _Batch(NamedTuple):
    """B images that were read."""

    positions: list[int]
    pixels: Tensor
    """(B, 3, S, S)"""
    digests: list[str]


def _batches(
    paths: Sequence[Path], positions: Sequence[int], encoder: DualEncoder, progress: Progress, lose: Lose
) -> Generator[_Batch, None, None]:
    """The images at these positions, in order, read by threads at most one batch ahead of the encoder."""

    def read(position: int) -> _Read | tuple[int, ImageError]:
        try:
            content = read_file(paths[position])
            image = decode_image(content, paths[position]).image
        except ImageError as error:
            return position, error
        return _Read(position, encoder.preprocess(image), content_digest(content))

    done = 0
    with closing(prefetch(read, positions, ahead=_BATCH)) as found:
        while batch := list(islice(found, _BATCH)):
            readable = []
            for one in batch:
                if isinstance(one, _Read):
                    readable.append(one)
                else:
                    lose(one[0], str(one[1]))
            if readable:
                numbers, pixels, digests = zip(*readable, strict=True)
                yield _Batch(list(numbers), torch.stack(pixels), list(digests))
            done += len(batch)
            progress(done, len(positions))
