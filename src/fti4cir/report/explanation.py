"""An explanation as an HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from PIL import Image

from ..errors import InputError
from ..escaping import escape
from ..files import replacing
from ..html import data_uri, render
from ..models.explain import Attribute, Explanation
from .heat import heat_overlay, seen_box

_IMAGE_SIZE = 640


class _Card(NamedTuple):
    """An attribute and its heat map, as a `data:` address."""

    attribute: Attribute
    overlay: str


def write_html(explanation: Explanation, path: str | Path) -> None:
    """Write an explanation as one HTML file that needs no other file, no network and no JavaScript.

    An existing file is replaced as a whole.

    Raises:
        InputError: if the file cannot be written.

    """
    page = explanation_page(explanation)
    try:
        with replacing(path) as file:
            file.write(page.encode())
    except OSError as error:
        raise InputError(f"The page {path} cannot be written: {error.strerror or error}.") from error


def explanation_page(explanation: Explanation) -> str:
    """The page: the sentence that the model reads, where each attribute looked, and how relevant each one is."""
    photo = explanation.image.copy()
    photo.thumbnail((_IMAGE_SIZE, _IMAGE_SIZE), Image.Resampling.LANCZOS)
    title = f"What {explanation.model} sees" + (f" in {escape(explanation.source)}" if explanation.source else "")
    return render(
        "explanation.html.j2",
        title=title,
        explanation=explanation,
        photo=data_uri(photo, quality=85),
        width=photo.width,
        height=photo.height,
        cards=[
            _Card(attribute, data_uri(heat_overlay(attribute.heat, explanation.image), "WEBP", quality=80))
            for attribute in explanation.attributes
        ],
        cropped=_is_cropped(explanation.image),
        kept={attribute.latent for attribute in explanation.attributes},
        highest=max(explanation.relevance, default=1.0),
    )


def _is_cropped(image: Image.Image) -> bool:
    """Whether the model did not see all of an image; less than half a pixel does not count."""
    left, top, right, bottom = seen_box(image)
    return left > 0.5 or top > 0.5 or right < image.width - 0.5 or bottom < image.height - 0.5
