"""Write captions for images that nobody has described.

    generate.caption_images("photos/", "captions.jsonl")

The captions are JSON lines, which `trainer.train` takes as they are. A run that was interrupted goes on with the same
batches, and on one machine the file ends up byte for byte the same; see `captions.output`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..backbones.pretrained import quiet_transformers
from ..errors import ImageError, InputError
from ..images.decode import decode_image
from ..images.prefetch import prefetch
from ..progress import ProgressLog
from ..wording import counted
from . import blip
from .blip import BlipCaptioner, Preprocessing
from .output import CaptionFile
from .table import CaptionedImages, images_of

_logger = logging.getLogger(__name__)

BATCH = 16
"""Images that are captioned at once."""


class CaptionReport(NamedTuple):
    """What a file of captions holds at the end of a run."""

    captioned: int
    """Images with a caption, those of earlier runs included."""
    unreadable: dict[str, str]
    """The reason for each image that has none."""


def caption_images(
    images: str | Path,
    output: str | Path,
    *,
    model: str | Path = blip.BASE,
    batch_size: int = BATCH,
    preprocessing: Preprocessing = "target-pad",
) -> CaptionReport:
    """Caption all images of a folder or tar whose captions `output` does not hold yet; logs progress.

    An image that cannot be read is left out, with a warning in the log. Each run tries it again.

    Args:
        images: a folder, those below it included, or a tar file.
        output: the file; a line is `{"image": path inside the folder or tar, "caption": text}`, sorted by path.
        model: a BLIP captioner's hub name or folder.
        batch_size: images that are captioned at once.
        preprocessing: how the captioner is shown an image; see `captions.blip.Preprocessing`.

    Raises:
        InputError: if there are no images, none can be read, or the output cannot be written to or was made of
            something else; what was saved before is kept.
        ModelError: if the captioner cannot be loaded.

    """
    source, file = Path(images), CaptionFile(Path(output))
    # All images, not those that remain: the size of a batch may decide what its captions are.
    names = tuple(sorted(images_of(source)))
    if not names:
        raise InputError(f"There are no images in {source}.")
    if file.path.suffix.lower() == ".csv":
        raise InputError(f"The captions are JSON lines, but {output} is named like a CSV; end its name in .jsonl.")
    made_of = {
        "source": str(source.resolve()),
        "pictures": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        "batch_size": batch_size,
        "preprocess": preprocessing,
    }
    # Before the captioner, which may take minutes to download.
    begun = file.is_begun()
    if begun:
        file.require_origin(made_of)
    with quiet_transformers():
        captioner = blip.load_captioner(model, preprocessing=preprocessing)
    made_of |= {"model": captioner.name, "fingerprint": captioner.fingerprint}
    if begun:
        file.require_origin(made_of)
    else:
        file.write_origin(made_of)
    done = file.captioned(source) if begun else set()
    if done:
        _logger.info(f"going on: {len(done)} of {counted(len(names), 'image')} captioned already")
    unreadable = _caption(CaptionedImages(source, names, ((),) * len(names), ()), file, done, batch_size, captioner)
    if not done:
        raise InputError(f"None of the images in {source} can be read ({len(names)}).")
    file.sort()
    return CaptionReport(len(done), unreadable)


def _caption(
    data: CaptionedImages, file: CaptionFile, done: set[str], batch_size: int, captioner: BlipCaptioner
) -> dict[str, str]:
    """Caption the images that are not in `done` and add them to it; the reason for each that cannot be read."""
    unreadable: dict[str, str] = {}
    progress = ProgressLog(_logger, "captions", total=len(data), already=len(done), unit="images")
    for batch in _batches(data, done, batch_size, captioner):
        for name, reason in batch.unreadable.items():
            unreadable[name] = reason
            _logger.warning(f"left out: {reason}")
        new = [name for name in batch.pixels if name not in done]
        if new:
            captions = dict(zip(batch.pixels, captioner.caption(torch.stack(list(batch.pixels.values()))), strict=True))
            file.append({"image": name, "caption": captions[name]} for name in new)
            done.update(new)
        progress.update(len(done) + len(unreadable))
    return unreadable


class _Batch(NamedTuple):
    pixels: dict[str, Tensor]  # (3, S, S) each
    unreadable: dict[str, str]


def _batches(data: CaptionedImages, done: set[str], size: int, captioner: BlipCaptioner) -> Iterator[_Batch]:
    """The batches in which an image is not done, whole; the next one is decoded while the captioner works on one."""
    batches = [data.names[start : start + size] for start in range(0, len(data), size)]
    todo = [names for names in batches if not done.issuperset(names)]

    def prepare(content: tuple[str, bytes | ImageError]) -> Tensor | ImageError:
        name, data = content
        if isinstance(data, ImageError):
            return data
        try:
            return captioner.preprocess(decode_image(data, name).image)
        except ImageError as error:
            return error

    with data.reader() as reader:
        # Read in this thread, because a tar file has one position; threads decode.
        contents = ((name, _content(name, reader.read)) for names in todo for name in names)
        with closing(prefetch(prepare, contents, ahead=size)) as prepared:
            for names in todo:
                results = dict(zip(names, islice(prepared, len(names)), strict=True))
                yield _Batch(
                    {name: result for name, result in results.items() if not isinstance(result, ImageError)},
                    {name: str(result) for name, result in results.items() if isinstance(result, ImageError)},
                )


def _content(name: str, read: Callable[[str], bytes]) -> bytes | ImageError:
    try:
        name.encode()
        return read(name)
    except UnicodeEncodeError:  # Linux allows any bytes, which Python keeps as lone surrogates
        shown = os.fsencode(name).decode(errors="replace")
        return ImageError(f"Cannot caption '{shown}': its name is not valid UTF-8; rename it.")
    except ImageError as error:
        return error
