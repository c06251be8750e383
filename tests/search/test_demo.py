"""The demo's images and queries."""

from __future__ import annotations

from pathlib import Path

import pytest

import fti4cir
from fti4cir.search import demo
from fti4cir.search.indexing import index_folder, store_for
from fti4cir.search.searcher import Searcher

EXPECTED = {
    "skimage": {"astronaut.png": "camera.png", "moon.png": "hubble_deep_field.jpg"},
    "stamps": {
        "food/fruit/orange.png": "food/fruit/apple_green.png",
        "clothes/hats/tophat.png": "clothes/hats/blue_fedora.png",
    },
}


def shown_in_readme() -> list[tuple[str, float]]:
    """The first result of each example, name and score, as the README shows it."""
    block = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8").partition("The demo prints")[2]
    lines = [line.split() for line in block.partition("Now your own")[0].splitlines()]
    return [(line[2], float(line[1])) for line in lines if line[:1] == ["1"]]


@pytest.mark.slow
@pytest.mark.parametrize("kind", EXPECTED)
def test_each_example_needs_its_image_and_its_text(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if kind == "skimage":
        pytest.importorskip("skimage")
        monkeypatch.setattr(demo, "STAMPS", Path("/nowhere"))
    elif not demo.STAMPS.is_dir():
        pytest.skip("Debian's package tuxpaint-stamps-default is not installed")
    chosen = demo.choose_images()
    folder = chosen.folder.resolve()
    model = fti4cir.load("mini")
    store = store_for(folder, model, location=tmp_path / "store")
    index_folder(folder, store, model=model)
    searcher = Searcher(model, store)

    def first(image: str | None, text: str | None) -> str:
        # The image itself is not a result of the text alone either.
        results = searcher.search([folder / image] if image else [], text, k=2)
        names = [result.path.relative_to(folder).as_posix() for result in results]
        return next(name for name in names if name != asking)

    if kind == "skimage":
        for example, (name, score) in zip(chosen.examples, shown_in_readme(), strict=True):
            images = [folder / example.image] if example.image else []
            (best,) = searcher.search(images, example.text, k=1)
            assert best.path.name == name
            assert best.score == pytest.approx(score, abs=0.02)  # processors differ in the last digits

    composed = [example for example in chosen.examples if example.image is not None]
    assert {example.image for example in composed} == set(EXPECTED[kind])
    for asking, text in composed:
        assert asking is not None
        found = first(asking, text)
        assert found == EXPECTED[kind][asking]
        assert found != first(None, text)
        assert found != first(asking, None)
