"""Searching by images, words and both, with colours for meanings."""

from __future__ import annotations

import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torch import Tensor

from fti4cir.errors import ImageError, InputError, StoreError
from fti4cir.search.indexing import index_folder, store_for
from fti4cir.search.searcher import Searcher
from standin import ColourEncoder, ColourModel, save_colour

pytestmark = pytest.mark.numeric


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "photos"
    for name, colour in {
        "red": (230, 20, 20),
        "green": (20, 230, 20),
        "blue": (20, 20, 230),
        "yellow": (230, 230, 20),
        "magenta": (230, 20, 230),
        "orange": (230, 120, 20),
    }.items():
        save_colour(top / f"{name}.png", colour)
    return top


@pytest.fixture
def searcher(folder: Path) -> Searcher:
    model = ColourModel()
    store = store_for(folder, model)
    index_folder(folder, store, model=model)
    return Searcher(model, store)


def names(results: list) -> list[str]:
    return [result.path.stem for result in results]


def test_words_alone(searcher: Searcher) -> None:
    assert names(searcher.search(text="green", k=1)) == ["green"]


def test_an_image_alone_leaves_itself_out(searcher: Searcher, folder: Path) -> None:
    results = searcher.search([folder / "red.png"])
    assert names(results)[0] == "orange"
    assert len(results) == 5
    assert results[0].path == folder / "orange.png"
    assert all(a.score >= b.score for a, b in pairwise(results))
    assert names(searcher.search([folder / "red.png"], k=5)) == names(results)


def test_an_image_changed_by_words(searcher: Searcher, folder: Path) -> None:
    assert names(searcher.search([folder / "red.png"], "blue", k=1)) == ["magenta"]
    assert names(searcher.search([folder / "red.png"], "green", k=1)) == ["yellow"]


def test_strength_and_balance(searcher: Searcher, folder: Path) -> None:
    def scores(**steering: float) -> dict[str, float]:
        found = searcher.search([folder / "red.png"], "blue", include_reference=True, **steering)
        return {result.path.stem: result.score for result in found}

    assert scores(strength=1.0, balance=0.0) == scores()
    assert scores(strength=2.0)["blue"] > scores()["blue"] > scores(strength=0.5)["blue"]
    assert next(iter(scores(strength=0.0))) == next(iter(scores(strength=0.0, balance=1.0))) == "red"


def test_several_images_are_averaged(searcher: Searcher, folder: Path) -> None:
    assert names(searcher.search([folder / "red.png", folder / "yellow.png"], k=1)) == ["orange"]
    pictures = [folder / "red.png", folder / "green.png"]
    query = searcher._query([Image.open(path) for path in pictures], "blue", None)
    mean = searcher.model.compose(pictures, ["blue", "blue"]).numpy().mean(axis=0)
    assert query == pytest.approx(mean / np.linalg.norm(mean), abs=1e-6)


def test_without(searcher: Searcher, folder: Path) -> None:
    less_red = names(searcher.search([folder / "magenta.png"], without="red"))
    assert less_red.index("blue") < less_red.index("red")
    less_blue = names(searcher.search([folder / "magenta.png"], without="blue"))
    assert less_blue.index("red") < less_blue.index("blue")
    assert names(searcher.search(text="red blue", without="blue", k=1)) == ["red"]
    assert np.linalg.norm(searcher._query([], "red", "blue")) == pytest.approx(1.0)


def test_the_reference_can_be_asked_for(searcher: Searcher, folder: Path) -> None:
    results = searcher.search([folder / "red.png"], include_reference=True)
    assert names(results)[0] == "red"
    assert results[0].score == pytest.approx(1.0, abs=1e-5)
    assert len(results) == 6


def test_copies_links_and_relative_paths_of_the_reference(
    searcher: Searcher, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copy(folder / "red.png", tmp_path / "query.png"))
    assert "red" not in names(searcher.search([copy]))
    (tmp_path / "link.png").symlink_to(folder / "red.png")
    assert "red" not in names(searcher.search([tmp_path / "link.png"]))
    monkeypatch.chdir(folder)
    assert "red" not in names(searcher.search(["../photos/red.png"]))
    # Another image under the old name: the index is behind, but it is still the reference.
    save_colour(folder / "red.png", (200, 0, 0))
    assert "red" not in names(searcher.search(["red.png"]))


def test_an_open_image_is_no_file_to_leave_out(searcher: Searcher, folder: Path) -> None:
    assert names(searcher.search([Image.open(folder / "red.png")], k=1)) == ["red"]


def test_a_condition(searcher: Searcher) -> None:
    assert names(searcher.search(text="green", where="path LIKE 'b%'")) == ["blue"]
    assert searcher.search(text="green", where="width > 1000") == []
    with pytest.raises(StoreError, match="condition 'colour = 1'"):
        searcher.search(text="green", where="colour = 1")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "nothing to search for"),
        ({"without": "red"}, "nothing to search for"),
        ({"text": ""}, "The text is empty"),
        ({"text": " \n"}, "The text is empty"),
        ({"text": "red", "without": " "}, "text of what to leave out is empty"),
        ({"text": "red", "k": 0}, "at least 1"),
        ({"images": "red.png"}, "must be a list"),
        ({"text": 5}, "The text is a string, not int"),
        ({"text": "red", "strength": 2.0}, "steer an image with a text; give both"),
        ({"images": ["red.png"], "balance": 0.5}, "steer an image with a text; give both"),
        ({"images": ["red.png"], "text": "blue", "strength": -1.0}, "at least 0"),
        ({"images": ["red.png"], "text": "blue", "balance": 1.5}, "from 0"),
    ],
)
def test_queries_that_say_nothing(searcher: Searcher, query: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        searcher.search(**query)


def test_an_image_that_cannot_be_read(searcher: Searcher, folder: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        searcher.search([folder / "gone.jpg"], "red")


def test_another_model_is_refused(searcher: Searcher) -> None:
    with pytest.raises(StoreError, match="another version of the model 'mini'"):
        Searcher(ColourModel(fingerprint="colours-2"), searcher.store)


def test_index_and_search_decode_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To what the encoder says, whatever that is: the same file has the same feature."""
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    (tmp_path / "photos").mkdir()
    Image.fromarray(noise).save(tmp_path / "photos" / "x.jpg")
    sizes: list[tuple[int, int]] = []

    class Watched(ColourEncoder):
        def preprocess(self, image: Image.Image) -> Tensor:
            sizes.append(image.size)
            return super().preprocess(image)

    for at_least, size in ((None, (400, 300)), (64, (100, 75))):
        model = ColourModel()
        model.encoder = Watched()
        monkeypatch.setattr(Watched, "decode_at_least", at_least)
        store = store_for(tmp_path / "photos", model, location=tmp_path / f"store {at_least}")
        index_folder(tmp_path / "photos", store, model=model)
        [result] = Searcher(model, store).search([tmp_path / "photos" / "x.jpg"], include_reference=True)
        assert result.score == pytest.approx(1, abs=1e-6)
        assert sizes == [size, size]
        sizes.clear()


def test_arrays(searcher: Searcher) -> None:
    red = np.zeros((40, 48, 3), dtype=np.uint8)
    red[:, :, 0] = 230
    assert names(searcher.search([red], k=1)) == ["red"]


@pytest.mark.parametrize(
    "condition",
    [
        "1=1) or (1=1",
        "1=1 --",
        "1=1 /*",
        "1=1 /* ( */) or (1=1",
        "path = 'red.png') or (path = 'red.png'",
        "1=1 or path = ')' or (1=1",
        "1=1; select 1",
        "1=1 order by path",
        "1=1 limit 1",
        "1=1 union select 1",
        "true) union select 1 from t where (true",
        "",
        " ",
        "path",
        "$$ ) or ( $$ = path",
    ],
)
def test_a_condition_does_not_leave_its_brackets(searcher: Searcher, folder: Path, condition: str) -> None:
    with pytest.raises(StoreError, match="Cannot use the condition") as caught:
        searcher.search([folder / "red.png"], where=condition)
    assert "SELECT" not in str(caught.value)


@pytest.mark.parametrize("condition", ["1=1", "true or path = 'red.png'", "path like '%;%' or path not like '%--%'"])
def test_no_condition_brings_the_reference_back(searcher: Searcher, folder: Path, condition: str) -> None:
    for number in range(9):  # more copies than are asked for
        shutil.copy(folder / "red.png", folder / f"copy{number}.png")
    index_folder(folder, searcher.store, model=searcher.model)
    assert names(searcher.search([folder / "red.png"], k=1, where=condition)) == ["orange"]
    assert len(searcher.search([folder / "red.png"], where=condition)) == 5


def test_more_results_than_any_store_has(searcher: Searcher) -> None:
    for k in (5_000_000_000, 10**30):
        assert len(searcher.search(text="red", k=k)) == 6


def test_a_text_that_is_none(searcher: Searcher) -> None:
    with pytest.raises(InputError, match="not valid UTF-8"):
        searcher.search(text="\udcff red")
