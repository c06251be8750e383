"""Example images that are already on the machine, and example queries for them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from ..errors import InputError
from ..files import user_cache
from ..images.decode import find_images

STAMPS = Path("/usr/share/tuxpaint/stamps")
"""Where Debian's package tuxpaint-stamps-default has its images."""


class Example(NamedTuple):
    """One query: an image, relative to the folder, and what should be different; or a text alone."""

    image: str | None
    text: str

    def __str__(self) -> str:
        return f'{self.image}, but "{self.text}"' if self.image else f'"{self.text}"'


class DemoImages(NamedTuple):
    """A folder of images and queries for it."""

    folder: Path
    examples: Sequence[Example]


# Each query needs both its image and its text: neither alone gives the same first result. A test checks this.
_STAMPS_EXAMPLES = (
    Example("food/fruit/orange.png", "in green"),  # a green apple
    Example("clothes/hats/tophat.png", "in blue"),  # a blue fedora
    Example(None, "a bird"),
)
_SKIMAGE_EXAMPLES = (
    Example("astronaut.png", "in black and white"),  # a grey photograph of another person
    Example("moon.png", "with many stars"),  # the Hubble deep field
    Example(None, "a cat"),
)


def choose_images(folder: Path | None = None) -> DemoImages:
    """The given folder, or else Debian's Tux Paint stamps, or the photos within scikit-image, if installed.

    Raises:
        InputError: says what to do, if there are none.
    """
    if folder is not None:
        images = find_images(folder)
        if not images:
            raise InputError(f"There are no images in '{folder}'.")
        image = images[0].relative_to(folder).as_posix()
        return DemoImages(folder, (Example(image, "in red"), Example(image, "at night"), Example(None, "a person")))
    if STAMPS.is_dir():
        return DemoImages(STAMPS, _STAMPS_EXAMPLES)
    skimage = find_spec("skimage")
    if skimage is not None and skimage.origin is not None:
        return DemoImages(Path(skimage.origin).parent / "data", _SKIMAGE_EXAMPLES)
    raise InputError(
        "There are no images for the demo on this machine; run `pip install 'fti4cir[demo]'`, "
        "or name a folder of your own with --folder."
    )


def index_location(folder: Path, fingerprint: str) -> Path:
    """Where the demo keeps a folder's index for a model: in the user's cache, because it can be deleted any time."""
    name = hashlib.blake2b(f"{folder.resolve()}\0{fingerprint}".encode(), digest_size=8).hexdigest()
    return user_cache() / "demo" / name
