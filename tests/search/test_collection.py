"""A folder or a store, opened by one call, with colours for meanings."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

import fti4cir
from fti4cir.errors import InputError, StoreError
from fti4cir.models import loading
from fti4cir.search.collection import Collection, Results
from fti4cir.search.searcher import Result
from fti4cir.search.store import Store
from htmlpage import Page
from standin import ColourModel, save_colour


@pytest.fixture(autouse=True)
def models(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the models that were loaded, each the stand-in."""
    loaded: list[str] = []

    def load(name: str) -> ColourModel:
        loaded.append(name)
        return ColourModel(name, fingerprint="colours-1" if name == "mini" else f"colours of {name}")

    monkeypatch.setattr(loading, "load", load)
    return loaded


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for colour in ("red", "orange", "blue"):
        save_colour(tmp_path / "photos" / f"{colour}.png", colour)
    return tmp_path / "photos"


def names(results: Results) -> list[str]:
    return [result.path.stem for result in results]


def test_a_folder_is_indexed_and_searched(folder: Path) -> None:
    photos = fti4cir.open(folder)
    assert isinstance(photos, Collection)
    assert (len(photos), photos.folder) == (3, folder.resolve())
    assert [path.name for path in photos] == ["blue.png", "orange.png", "red.png"]
    assert names(photos.search(text="blue", k=1)) == ["blue"]
    for image in (folder / "red.png", str(folder / "red.png"), [folder / "red.png"]):
        assert names(photos.search(image, k=1)) == ["orange"]
    assert names(photos.search(np.full((9, 9, 3), (250, 0, 0), np.uint8), k=1)) == ["red"]
    assert names(photos.search(folder / "red.png", include_reference=True))[0] == "red"
    assert names(photos.search(text="red", where="path like 'o%'")) == ["orange"]
    assert repr(photos) == f"<Collection of 3 images in '{folder.resolve()}', model mini>"


def test_it_is_brought_up_to_date_when_it_is_opened_and_when_asked(folder: Path) -> None:
    photos = fti4cir.open(folder)
    save_colour(folder / "green.png", "green")
    assert len(photos) == 3
    assert photos.update().added == 1
    assert len(photos) == 4
    (folder / "green.png").unlink()
    assert len(fti4cir.open(folder, update=False)) == 4
    assert len(fti4cir.open(folder)) == 3


def test_a_store_is_searched_as_it_is(folder: Path, models: list[str]) -> None:
    store = fti4cir.open(folder).store
    save_colour(folder / "green.png", "green")
    assert len(fti4cir.open(store.location)) == 3
    with pytest.raises(StoreError, match="was made with the model 'mini', not 'vit-l-14'"):
        fti4cir.open(store.location, model="vit-l-14")
    assert models == ["mini", "mini"]  # the one that is refused was not loaded


def test_one_index_a_model(folder: Path, models: list[str]) -> None:
    fti4cir.open(folder)
    other = fti4cir.open(folder, model="vit-l-14")
    assert other.store.location != fti4cir.open(folder, model="mini").store.location
    assert fti4cir.open(folder).model.name == "vit-l-14"  # made last
    assert models == ["mini", "vit-l-14", "mini", "vit-l-14"]


def test_no_such_folder(tmp_path: Path, models: list[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="There is no folder"):
        fti4cir.open(tmp_path / "gone")
    with pytest.raises(InputError, match="is not a folder"):
        fti4cir.open(tmp_path / "file")
    assert models == []


def test_an_empty_folder(tmp_path: Path) -> None:
    photos = fti4cir.open(tmp_path)
    assert len(photos) == 0
    assert names(photos.search(text="red")) == []
    assert not Store.exists(tmp_path / ".fti4cir")


def test_results_are_a_sequence(folder: Path) -> None:
    results = fti4cir.open(folder).search(text="red")
    assert len(results) == 3
    assert results[0].path.name == "red.png"
    assert names(results[1:]) == ["orange", "blue"]
    assert isinstance(results[:2], Results)
    assert results[:2] == Results(list(results)[:2])
    assert repr(results[:1]) == f"{results[0].score:.3f}  {folder.resolve() / 'red.png'}"
    assert repr(Results([])) == "no results"


def test_a_notebook_shows_images(folder: Path) -> None:
    save_colour(folder / "<b>&.png", "red")
    results = fti4cir.open(folder).search(text="red", k=2)
    shown = results._repr_html_()
    assert shown.count("data:image/jpeg;base64,") == 2
    assert f"1. {results[0].score:.3f}" in shown
    assert "&lt;b&gt;&amp;.png" in shown
    assert "<b>" not in shown
    Page(shown)
    gone = Results([Result(folder / "gone.png", 0.5)])._repr_html_()
    assert "1. 0.500<br>gone.png" in gone
    assert "<img" not in gone
    assert "no results" in Results([])._repr_html_()


def test_a_table(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    results = fti4cir.open(folder).search(text="red")
    table = results.to_pandas()
    assert isinstance(table, pandas.DataFrame)
    assert list(table.columns) == ["rank", "path", "score"]
    assert list(table["rank"]) == [1, 2, 3]
    assert list(table["path"]) == [str(result.path) for result in results]


def test_a_table_without_pandas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(InputError, match="pip install pandas"):
        Results([]).to_pandas()
