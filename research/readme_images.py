"""Make the images of the README: a composed search and an explanation, with the bundled model.

    python research/readme_images.py --work WORK                       # both, into docs/images
    python research/readme_images.py --work WORK --sheet sheet.png     # many searches on one sheet, to choose from

Debian's package `openclipart-png` (public domain) is what is searched. WORK keeps the
index, so that a second run takes seconds. The results are shown as they come, copies once; only the query is chosen.
"""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps

import fti4cir
from fti4cir.images.decode import open_image
from fti4cir.models.explain import Explanation
from fti4cir.report.heat import heat_overlay
from fti4cir.search.indexing import index_folder, store_for
from fti4cir.search.searcher import Result, Searcher

CLIPART = Path("/usr/share/openclipart/png")
CATEGORIES = ("animals", "buildings", "containers", "food", "plants", "transportation")
OUTPUT = Path(__file__).parents[1] / "docs" / "images"
RESULTS = 5

TILE, GAP, MARGIN = 200, 20, 24
INK, MUTED, PAPER, LINE = "#1b1f24", "#59636e", "#ffffff", "#d1d9e0"


class Query(NamedTuple):
    """This image, but ..."""

    image: str
    text: str


SHOWN = Query("transportation/old_car_lumen_design_st_r.png", "in red")
CANDIDATES = (
    SHOWN,
    Query("animals/birds/crow_01.png", "in yellow"),
    Query("animals/fish/crawfish1_ganson.png", "as a sketch"),
    Query("animals/mammals/horses/cavallo_architetto_franc_05.png", "in brown"),
    Query("transportation/bus1_jarno_vasamaa_01.png", "in black and white"),
    Query("food/fruit/apple.png", "in yellow"),
    Query("food/beverages/teacup_ganson.png", "in blue"),
    Query("food/breads_and_carbs/pancakes_ganson.png", "as a sketch"),
)
EXPLAINED = SHOWN.image


# -- searching ----------------------------------------------------------------------------------------------


def collect(clipart: Path, work: Path) -> Path:
    """A folder with links to the categories that are searched."""
    folder = work / "images"
    folder.mkdir(parents=True, exist_ok=True)
    for category in CATEGORIES:
        link = folder / category
        if not link.exists():
            link.symlink_to(clipart / category)
    return folder


def open_searcher(folder: Path) -> Searcher:
    """The folder's index, brought up to date."""
    model = fti4cir.load("mini")
    store = store_for(folder, model)
    print(index_folder(folder, store, model=model))
    return Searcher(model, store)


def first_results(searcher: Searcher, folder: Path, query: Query) -> list[Result]:
    """The best results in their order. The collection holds many images twice; of copies, the first is kept."""
    found = searcher.search([folder / query.image], query.text, k=4 * RESULTS)
    distinct = {hashlib.sha256(one.path.read_bytes()).digest(): one for one in reversed(found)}
    return sorted(distinct.values(), key=found.index)[:RESULTS]


# -- drawing ------------------------------------------------------------------------------------------------


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, so that the image is the same on every machine."""
    return ImageFont.load_default(size)


def tile(image: Image.Image, size: int = TILE) -> Image.Image:
    """The whole image, centred on a white square with a thin frame."""
    square = Image.new("RGB", (size, size), PAPER)
    small = ImageOps.contain(image, (size - 16, size - 16), Image.Resampling.LANCZOS)
    square.paste(small, ((size - small.width) // 2, (size - small.height) // 2))
    ImageDraw.Draw(square).rectangle((0, 0, size - 1, size - 1), outline=LINE)
    return square


def shown(path: Path) -> Image.Image:
    """An image as the index sees it: upright, RGB, transparency on white."""
    return open_image(path, at_least=2 * TILE)


def search_image(folder: Path, query: Query, results: Sequence[Result]) -> Image.Image:
    """The reference image, the modification text, and the results in their order with their scores."""
    arrow = 44
    width = 2 * MARGIN + TILE + arrow + len(results) * TILE + (len(results) - 1) * GAP
    height = 2 * MARGIN + 28 + TILE + 30
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    top = MARGIN + 28
    draw.text((MARGIN, MARGIN), "this image, but", fill=MUTED, font=font(16))
    sheet.paste(tile(shown(folder / query.image)), (MARGIN, top))
    draw.text((MARGIN + TILE / 2, top + TILE + 6), f"“{query.text}”", fill=INK, font=font(18), anchor="ma")
    middle, start = top + TILE // 2, MARGIN + TILE + 12
    draw.line((start, middle, start + 20, middle), fill=INK, width=3)
    draw.polygon([(start + 20, middle - 7), (start + 30, middle), (start + 20, middle + 7)], fill=INK)
    left = MARGIN + TILE + arrow
    draw.text((left, MARGIN), f"the first {len(results)} results and their scores", fill=MUTED, font=font(16))
    for number, result in enumerate(results):
        x = left + number * (TILE + GAP)
        sheet.paste(tile(shown(result.path)), (x, top))
        text = f"{number + 1}.   {result.score:.3f}"
        draw.text((x + TILE / 2, top + TILE + 6), text, fill=INK, font=font(18), anchor="ma")
    return sheet


def explanation_image(explanation: Explanation) -> Image.Image:
    """The image with its subject's words, then where each of up to six attributes looked, with its words."""
    attributes = explanation.attributes[:6]
    columns = 2 if len(attributes) <= 4 else 3
    rows = -(-len(attributes) // columns)
    text = 72
    height = 2 * MARGIN + rows * (TILE + text)
    side = rows * (TILE + text) - text
    sheet = Image.new("RGB", (2 * MARGIN + side + GAP + columns * (TILE + GAP) - GAP, height), PAPER)
    draw = ImageDraw.Draw(sheet)

    def words(x: float, y: float, title: str, nearest: Sequence[str], lines: int = 2) -> None:
        draw.text((x, y), title, fill=MUTED, font=font(14), anchor="ma")
        for line in range(lines):
            part = ", ".join(nearest[2 * line : 2 * line + 2])
            draw.text((x, y + 20 + 21 * line), part, fill=INK, font=font(16), anchor="ma")

    image = explanation.image
    sheet.paste(tile(image, side), (MARGIN, MARGIN))
    subject = [near.word for near in explanation.subject[:4]]
    words(MARGIN + side / 2, MARGIN + side + 6, "subject: nearest words", subject)
    for number, one in enumerate(attributes):
        row, column = divmod(number, columns)
        x, y = MARGIN + side + GAP + column * (TILE + GAP), MARGIN + row * (TILE + text)
        over = heat_overlay(one.heat, image, size=TILE - 16)
        under = image.resize(over.size, Image.Resampling.LANCZOS).convert("RGBA")
        heated = Image.alpha_composite(under, over).convert("RGB")
        sheet.paste(tile(heated), (x, y))
        nearest = [near.word for near in one.nearest[:4]]
        words(x + TILE / 2, y + TILE + 6, f"attribute {one.latent} (relevance {one.relevance:.2f})", nearest)
    return sheet


# -- the command --------------------------------------------------------------------------------------------


def save(image: Image.Image, path: Path) -> None:
    """As a PNG of few colours if that is small, as images of flat colours are."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.quantize(256, dither=Image.Dither.FLOYDSTEINBERG).save(path, optimize=True)
    print(f"{path} {path.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Read the command line and make the images."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="folder for the index")
    parser.add_argument("--clipart", type=Path, default=CLIPART, help="folder of openclipart's images")
    parser.add_argument("--sheet", type=Path, help="write all candidates to this file instead")
    arguments = parser.parse_args()
    folder = collect(arguments.clipart, arguments.work)
    searcher = open_searcher(folder)

    def search(query: Query) -> Image.Image:
        return search_image(folder, query, first_results(searcher, folder, query))

    if arguments.sheet:
        rows = [search(query) for query in CANDIDATES]
        sheet = Image.new("RGB", (rows[0].width, sum(row.height for row in rows)), PAPER)
        for number, row in enumerate(rows):
            sheet.paste(row, (0, number * row.height))
        sheet.save(arguments.sheet)
        return
    save(search(SHOWN), OUTPUT / "search.png")
    save(explanation_image(searcher.model.explain(folder / EXPLAINED)), OUTPUT / "explanation.png")


if __name__ == "__main__":
    main()
