"""HTML, made from the templates in `templates/`, and images inside it. Imports nothing of the package."""

from __future__ import annotations

import base64
import io
from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image


def render(template: str, **values: object) -> str:
    """Fill in a template, such as `explanation.html.j2`.

    All text among the values is escaped, except where it is `markupsafe.Markup`. A value that the template names and
    that is missing raises `jinja2.UndefinedError`.
    """
    return _environment().get_template(template).render(values)


def data_uri(image: Image.Image, kind: str = "JPEG", *, quality: int) -> str:
    """An image file as a `data:` address: the page that shows it needs no other file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def stylesheet() -> str:
    """The stylesheet that all pages share."""
    return render("style.css")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("fti4cir.html"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["interval"] = _interval
    environment.filters["signed"] = _signed
    environment.filters["percent"] = _percent
    return environment


def _interval(ends: tuple[float, float], signed: bool = False) -> str:
    """Two ends with a space that does not break before the second, such as `0.100 to 0.200`."""
    low, high = (_signed(end) if signed else f"{end:.3f}" for end in ends)
    return f"{low} to\N{NO-BREAK SPACE}{high}"


def _signed(value: float) -> str:
    """Three decimals with a sign; the minus is the typographic one."""
    return f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _percent(share: float) -> str:
    """A share as a percentage of two digits, such as `7.5%`."""
    return f"{100 * share:.2g}%"
