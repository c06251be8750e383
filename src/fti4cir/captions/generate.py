"""Write captions for images that nobody has described.

    generate.caption_images("photos/", "captions.jsonl")

The captions are JSON lines, which `trainer.train` takes as they are. They are written batch by batch, and a run that
was killed, at whatever moment, goes on after the last whole line: on one machine the file ends up byte for byte the
same. FILE.meta.json says what the captions were made of, so that no file mixes two captioners or two sets of images.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..backbones.pretrained import quiet_transformers
from ..errors import ImageError, InputError
from ..images.decode import decode_image
from . import blip
from . import table as captioned
from .blip import BlipCaptioner, Preprocessing
from .table import CaptionedImages

BATCH = 16
"""Images that are captioned at once."""

_TELL_EVERY = 10.0
"""Seconds between lines of progress."""

Say = Callable[[str], None]


class CaptionReport(NamedTuple):
    """What a file of captions holds at the end of a run."""

    captioned: int
    """Images with a caption, those of earlier runs included."""
    unreadable: dict[str, str]
    """The reason for each image that has none."""


def caption_images(
    images: str | Path,
    output: str | Path,
    model: str | Path = blip.BASE,
    *,
    batch_size: int = BATCH,
    preprocessing: Preprocessing = "target-pad",
    say: Say = print,
) -> CaptionReport:
    """Caption all images of a folder or tar, as far as `output` does not hold their captions yet.

    An image that cannot be read is told and left out; each run tries it anew.

    Args:
        images: a folder, those below it included, or a tar file.
        output: the file; a line is `{"image": path inside the folder or tar, "caption": text}`, sorted by path.
        model: a BLIP captioner's hub name or folder.
        batch_size: images that are captioned at once.
        preprocessing: how the captioner is shown an image; see `captions.blip.Preprocessing`.
        say: gets a line of progress now and then, and one for each unreadable image.

    Raises:
        InputError: if there are no images, none can be read, or the output cannot be written to or was made of
            something else; what was saved before is kept.
        ModelError: if the captioner cannot be loaded.

    """
    source, output = Path(images), Path(output)
    # All images, not those that remain: how many there are in a batch may decide how its captions turn out.
    names = tuple(sorted(captioned.images_of(source)))
    if not names:
        raise InputError(f"There are no images in {source}.")
    if output.suffix.lower() == ".csv":
        raise InputError(f"The captions are JSON lines, but {output} is named like a CSV; end its name in .jsonl.")
    made_of = {
        "source": str(source.resolve()),
        "pictures": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
        "batch_size": batch_size,
        "preprocess": preprocessing,
    }
    # Before the captioner, which may take minutes to download.
    with _writing(output):
        if output.exists():
            with open(output, "ab") as file:
                begun = file.tell() > 0
        else:
            tempfile.TemporaryFile(dir=output.parent).close()
            begun = False
    if begun:
        _require_same(output, made_of)
    with quiet_transformers():
        captioner = blip.load(model, preprocessing=preprocessing)
    made_of |= {"model": captioner.name, "fingerprint": captioner.fingerprint}
    if begun:
        _require_same(output, made_of)
    else:
        _note(output, made_of)
    done = _done(source, output) if begun else set()
    if done:
        say(f"going on: {len(done)} of {len(names)} images have their captions")
    unreadable: dict[str, str] = {}
    progress = _Progress(len(names), say)
    for batch in _batches(CaptionedImages(source, names, ((),) * len(names), ()), done, batch_size, captioner):
        for name, reason in batch.unreadable.items():
            unreadable[name] = reason
            say(f"left out: {reason}")
        new = [name for name in batch.pixels if name not in done]
        if new:
            captions = dict(zip(batch.pixels, captioner.caption(torch.stack(list(batch.pixels.values()))), strict=True))
            _append(output, [{"image": name, "caption": captions[name]} for name in new])
            done.update(new)
        progress.tell(len(new), len(done) + len(unreadable))
    if not done:
        raise InputError(f"None of the {len(names)} images in {source} can be read.")
    _sort(output)
    return CaptionReport(len(done), unreadable)


# -- images, ahead of the captioner -------------------------------------------------------------------------
class _Batch(NamedTuple):
    pixels: dict[str, Tensor]  # (3, S, S) each
    unreadable: dict[str, str]


def _batches(data: CaptionedImages, done: set[str], size: int, captioner: BlipCaptioner) -> Iterator[_Batch]:
    """The batches in which an image is not done, whole; the next one is decoded while one is at work."""

    def prepare(name: str, content: bytes | ImageError) -> Tensor | ImageError:
        if isinstance(content, ImageError):
            return content
        try:
            return captioner.preprocess(decode_image(content, name).image)
        except ImageError as error:
            return error

    def collect(batch: dict[str, Future[Tensor | ImageError]]) -> _Batch:
        results = {name: future.result() for name, future in batch.items()}
        return _Batch(
            {name: result for name, result in results.items() if not isinstance(result, ImageError)},
            {name: str(result) for name, result in results.items() if isinstance(result, ImageError)},
        )

    batches = [data.names[start : start + size] for start in range(0, len(data), size)]
    waiting: deque[dict[str, Future[Tensor | ImageError]]] = deque()
    with data.reader() as reader, ThreadPoolExecutor(os.cpu_count()) as pool:
        try:
            for names in batches:
                if done.issuperset(names):
                    continue
                # Read in this thread, for a tar file has one position; decoding is shared.
                waiting.append({name: pool.submit(prepare, name, _content(name, reader.read)) for name in names})
                if len(waiting) > 1:
                    yield collect(waiting.popleft())
            while waiting:
                yield collect(waiting.popleft())
        finally:
            # After Ctrl-C nobody waits for images that are not going to be captioned.
            pool.shutdown(cancel_futures=True)


def _content(name: str, read: Callable[[str], bytes]) -> bytes | ImageError:
    try:
        name.encode()
        return read(name)
    except UnicodeEncodeError:  # Linux allows any bytes, which Python keeps as lone surrogates
        shown = os.fsencode(name).decode(errors="replace")
        return ImageError(f"Cannot caption '{shown}': its name is not valid UTF-8; rename it.")
    except ImageError as error:
        return error


class _Progress:
    """Tells now and then how far it is, how fast, and how long it will take."""

    def __init__(self, total: int, say: Say) -> None:
        self._total, self._say = total, say
        self._started = self._told = time.monotonic()
        self._captioned = 0

    def tell(self, captioned: int, done: int) -> None:
        """Take the images that were captioned since the last call, and how many are done of all."""
        self._captioned += captioned
        now = time.monotonic()
        if now - self._told > _TELL_EVERY or done == self._total:
            self._told = now
            rate = self._captioned / max(now - self._started, 1e-6)
            left = f"; about {(self._total - done) / rate / 60:.0f} min left" if rate else ""
            self._say(f"captions: {done} of {self._total} images, {rate:.1f} a second{left}")


# -- the file -------------------------------------------------------------------------------------------------
def _done(source: Path, output: Path) -> set[str]:
    """The images whose captions the file holds, after what a killed process left of one more line is cut off."""
    with _writing(output), open(output, "rb+") as file:
        whole = file.truncate(file.read().rfind(b"\n") + 1)
    return set(captioned.load(source, output).names) if whole else set()


def _append(output: Path, records: Iterable[dict[str, str]]) -> None:
    """Write lines through to the disk."""
    with _writing(output), open(output, "ab") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records).encode())
        file.flush()
        os.fsync(file.fileno())


def _sort(output: Path) -> None:
    """Put the lines in order, which they are not if an image of an earlier run could be read only now."""
    with _writing(output):
        lines = output.read_bytes().splitlines(keepends=True)
        in_order = sorted(filter(bytes.strip, lines), key=lambda line: json.loads(line)["image"])
        if in_order != lines:
            _replace(output, b"".join(in_order))


def _beside(output: Path) -> Path:
    return output.with_name(f"{output.name}.meta.json")


def _note(output: Path, made_of: dict[str, Any]) -> None:
    """Write down what the captions are made of, before the first of them."""
    with _writing(output):
        _replace(_beside(output), (json.dumps(made_of, indent=2) + "\n").encode())


def _require_same(output: Path, made_of: dict[str, Any]) -> None:
    """Refuse captions that are made of something else; `made_of` may be a part of what was written down."""
    file = _beside(output)
    try:
        theirs = json.loads(file.read_text(encoding="utf-8"))
        differing = [name for name, value in made_of.items() if theirs[name] != value and name != "model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{output} holds something already, and {file.name} does not say which captions; choose another output."
        ) from error
    if not differing:
        return
    if differing[0] == "batch_size":
        raise InputError(
            f"The captions in {output} were begun with --batch-size {theirs['batch_size']}, not "
            f"{made_of['batch_size']}; go on with the same or choose another output."
        )
    if differing[0] == "preprocess":
        raise InputError(
            f"The captions in {output} were begun with --preprocess {theirs['preprocess']}, not "
            f"{made_of['preprocess']}; go on with the same or choose another output."
        )
    if differing[0] == "fingerprint":
        raise InputError(
            f"The captions in {output} were begun with another captioner or precision (--model {theirs.get('model')}); "
            "go on with the same or choose another output."
        )
    raise InputError(
        f"The captions in {output} are of other images than are now in {made_of['source']}; choose another output."
    )


def _replace(file: Path, content: bytes) -> None:
    """Write a file beside its name, then move it there: at any moment there is a whole one."""
    partial = file.with_name(f"{file.name}.tmp")
    with open(partial, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    partial.replace(file)


@contextlib.contextmanager
def _writing(output: Path) -> Iterator[None]:
    """InputError for what goes wrong while the captions are written."""
    try:
        yield
    except OSError as error:
        raise InputError(
            f"The captions {output} cannot be written: {error.strerror or error}; what was saved before is kept."
        ) from error
