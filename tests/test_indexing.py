"""Bringing a store up to date: only what changed is read, and nothing that was done is lost."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fti4cir import indexing
from fti4cir.errors import InputError, StoreError
from fti4cir.indexing import IndexReport, index_folder, store_for
from fti4cir.store import Row, Store, default_location
from standin import ColourModel, save_colour


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    top = tmp_path / "photos"
    save_colour(top / "red.jpg", "red")
    save_colour(top / "sub folder" / "grün blå.png", "green")
    save_colour(top / "日本" / "青.webp", "blue")
    return top


def index(folder: Path, model: ColourModel | None = None) -> IndexReport:
    model = model or ColourModel()
    return index_folder(folder, store_for(folder, model), model)


def counts(report: IndexReport) -> tuple[int, int, int, int, int, int]:
    return (report.added, report.updated, report.unchanged, report.removed, len(report.skipped), report.total)


def test_first_run_then_nothing_is_read_again(folder: Path) -> None:
    assert counts(index(folder)) == (3, 0, 0, 0, 0, 3)
    model = ColourModel()
    assert counts(index(folder, model)) == (0, 0, 3, 0, 0, 3)
    assert model.encoder.encoded == 0
    assert sorted(Store.open(default_location(folder)).files()) == [
        "red.jpg",
        "sub folder/grün blå.png",
        "日本/青.webp",
    ]


def test_what_a_row_holds(folder: Path) -> None:
    Image.new("RGB", (600, 400), "red").save(folder / "red.jpg")
    index(folder)
    table = Store.open(default_location(folder))._table.to_arrow()
    row = next(row for row in table.to_pylist() if row["path"] == "red.jpg")
    assert (row["width"], row["height"]) == (600, 400)
    assert row["size"] == (folder / "red.jpg").stat().st_size
    expected = ColourModel().encode_images([folder / "red.jpg"])[0].numpy()
    assert np.allclose(row["vector"], expected, atol=1e-5)


def test_changed_moved_and_removed(folder: Path) -> None:
    index(folder)
    save_colour(folder / "red.jpg", "white", size=(50, 50))
    shutil.move(folder / "日本" / "青.webp", folder / "blue.webp")
    (folder / "sub folder" / "grün blå.png").unlink()
    report = index(folder)
    assert counts(report) == (1, 1, 0, 2, 0, 2)
    store = Store.open(default_location(folder))
    white = ColourModel().encode_texts(["white"])[0].numpy()
    assert store.search(white, 1)[0] == ("red.jpg", pytest.approx(1.0, abs=1e-3))


def test_same_size_other_time_is_a_change(folder: Path) -> None:
    index(folder)
    os.utime(folder / "red.jpg", ns=(1, 1))
    assert counts(index(folder)) == (0, 1, 2, 0, 0, 3)


def test_broken_files_are_skipped_with_the_reason(folder: Path) -> None:
    (folder / "empty.jpg").touch()
    (folder / "page.jpg").write_text("<html></html>")
    whole = (folder / "red.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "gone.png").symlink_to("nowhere")
    os.mkfifo(folder / "pipe.png")
    report = index(folder)
    assert counts(report) == (3, 0, 0, 0, 5, 3)
    reasons = {path.name: reason for path, reason in report.skipped}
    assert list(reasons) == ["cut.jpg", "empty.jpg", "gone.png", "page.jpg", "pipe.png"]
    assert "empty" in reasons["empty.jpg"]
    assert "web page" in reasons["page.jpg"]
    assert "No such file" in reasons["gone.png"]
    assert "truncated" in reasons["cut.jpg"].lower()
    assert "not a file" in reasons["pipe.png"]


def test_a_picture_that_breaks_leaves_the_store(folder: Path) -> None:
    index(folder)
    (folder / "red.jpg").write_bytes(b"")
    assert counts(index(folder)) == (0, 0, 2, 1, 1, 2)
    save_colour(folder / "red.jpg", "red")
    assert counts(index(folder)) == (1, 0, 2, 0, 0, 3)


def test_a_name_that_is_not_utf8(folder: Path) -> None:
    shutil.copy(folder / "red.jpg", os.fsencode(folder) + b"/caf\xe9.jpg")
    report = index(folder)
    assert counts(report) == (3, 0, 0, 0, 1, 3)
    assert "rename" in report.skipped[0][1]
    assert report.to_json()["skipped"][0]["path"].endswith("caf�.jpg")
    str(report.to_json()).encode()


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert counts(index(tmp_path / "empty")) == (0, 0, 0, 0, 0, 0)
    store = store_for(tmp_path / "empty", ColourModel())
    with pytest.raises(StoreError, match="holds pictures of"):
        index_folder(tmp_path, store, ColourModel())
    shutil.rmtree(tmp_path / "empty")
    with pytest.raises(InputError, match="There is no folder"):
        index_folder(tmp_path / "empty", store, ColourModel())


def test_another_model_is_refused(folder: Path) -> None:
    index(folder)
    with pytest.raises(StoreError, match="made with the model 'mini', not 'vit-l-14'"):
        store_for(folder, ColourModel(name="vit-l-14", fingerprint="other"), default_location(folder))


def test_a_place_that_cannot_be_written_to(folder: Path) -> None:
    (folder / ".fti4cir").touch()
    with pytest.raises(StoreError, match=r"--store names another place"):
        store_for(folder, ColourModel())
    assert len(store_for(folder, ColourModel(), folder.parent / "elsewhere")) == 0


def test_many_pictures_in_order_with_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "WRITE_EVERY", 0.0)
    rng = np.random.default_rng(0)
    for i in range(150):
        save_colour(tmp_path / f"{i:03}.png", tuple(int(value) for value in rng.integers(0, 256, 3)))
    seen: list[tuple[int, int]] = []
    model = ColourModel()
    store = store_for(tmp_path, model)
    index_folder(tmp_path, store, model, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(32, 150), (64, 150), (96, 150), (128, 150), (150, 150)]
    for row in store._table.to_arrow().to_pylist():  # each picture has its own vector, not its neighbour's
        assert np.allclose(row["vector"], model.encode_images([tmp_path / row["path"]])[0], atol=1e-5)


class _Stop(BaseException):
    """Like KeyboardInterrupt, but pytest goes on."""


def test_an_interrupted_run_keeps_what_it_encoded(tmp_path: Path) -> None:
    for i in range(150):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))

    def interrupt(done: int, total: int) -> None:
        if done == 96:
            raise _Stop

    model = ColourModel()
    store = store_for(tmp_path, model)
    with pytest.raises(_Stop):
        index_folder(tmp_path, store, model, progress=interrupt)
    assert len(store) == 96
    assert threading.active_count() < 10
    again = ColourModel()
    assert counts(index_folder(tmp_path, store, again)) == (54, 0, 96, 0, 0, 150)
    assert again.encoder.encoded == 54


def test_rows_are_written_while_indexing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indexing, "WRITE_EVERY", 0.0)
    for i in range(100):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))
    model = ColourModel(seconds_a_batch=0.2)
    store = store_for(tmp_path, model)
    sizes: list[int] = []
    index_folder(tmp_path, store, model, progress=lambda done, total: sizes.append(len(store)))
    assert sizes[-1] >= 64  # a killed process would have left these


def test_a_store_that_cannot_be_written_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Store, rows: list[Row]) -> None:
        raise StoreError("Cannot write to the store: No space left on device.")

    monkeypatch.setattr(Store, "upsert", full)
    with pytest.raises(StoreError, match="No space left"):
        index(folder)
