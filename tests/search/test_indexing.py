"""Bringing an index up to date: only what changed is read, and nothing that was done is lost."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fti4cir.errors import InputError, StoreError
from fti4cir.search import indexing
from fti4cir.search.index_report import IndexReport
from fti4cir.search.indexing import index_folder, store_for
from fti4cir.search.locations import default_location
from fti4cir.search.schema import Row
from fti4cir.search.store import Store
from standin import ColourModel, save_colour
from tinyindex import counts, index


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
    assert counts(report) == (0, 1, 0, 1, 0, 2)
    assert report.moved == 1
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


def test_an_image_that_breaks_leaves_the_store(folder: Path) -> None:
    index(folder)
    (folder / "red.jpg").write_bytes(b"")
    assert counts(index(folder)) == (0, 0, 2, 1, 1, 2)
    save_colour(folder / "red.jpg", "red")
    assert counts(index(folder)) == (1, 0, 2, 0, 0, 3)


def test_an_empty_folder_and_none(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert counts(index(tmp_path / "empty")) == (0, 0, 0, 0, 0, 0)
    store = store_for(tmp_path / "empty", ColourModel())
    with pytest.raises(StoreError, match="holds images of"):
        index_folder(tmp_path, store, model=ColourModel())
    shutil.rmtree(tmp_path / "empty")
    with pytest.raises(InputError, match="There is no folder"):
        index_folder(tmp_path / "empty", store, model=ColourModel())


def test_another_model_is_refused(folder: Path) -> None:
    index(folder)
    with pytest.raises(StoreError, match="made with the model 'mini', not 'vit-l-14'"):
        store_for(folder, ColourModel(name="vit-l-14", fingerprint="other"), location=default_location(folder))


def test_a_place_that_cannot_be_written_to(folder: Path) -> None:
    (folder / ".fti4cir").touch()
    model = ColourModel()
    with pytest.raises(StoreError, match=r"index --store` names another place"):
        index(folder, model)
    assert model.encoder.encoded == 0
    assert len(store_for(folder, ColourModel(), location=folder.parent / "elsewhere")) == 0


def test_many_images_in_order_with_progress(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fti4cir.search.writer.WRITE_EVERY", 0.0)
    rng = np.random.default_rng(0)
    for i in range(150):
        save_colour(tmp_path / f"{i:03}.png", tuple(int(value) for value in rng.integers(0, 256, 3)))
    seen: list[tuple[int, int]] = []
    model = ColourModel()
    store = store_for(tmp_path, model)
    index_folder(tmp_path, store, model=model, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(32, 150), (64, 150), (96, 150), (128, 150), (150, 150)]
    for row in store._table.to_arrow().to_pylist():  # each image has its own vector, not its neighbour's
        assert np.allclose(row["vector"], model.encode_images([tmp_path / row["path"]])[0], atol=1e-5)


def test_a_store_in_memory(folder: Path) -> None:
    model = ColourModel()
    store = store_for(folder, model, location="memory://x")
    assert counts(index_folder(folder, store, model=model)) == (3, 0, 0, 0, 0, 3)
    (folder / "red.jpg").rename(folder / "rouge.jpg")
    report = index_folder(folder, store, model=model)
    assert (report.moved, report.unchanged, report.total, model.encoder.encoded) == (1, 2, 3, 3)


class TestNoStoreWithoutNeed:
    def test_no_images(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        assert counts(index(tmp_path)) == (0, 0, 0, 0, 0, 0)
        assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]

    def test_no_image_that_can_be_read(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").touch()
        assert counts(index(tmp_path)) == (0, 0, 0, 0, 1, 0)
        assert [path.name for path in tmp_path.iterdir()] == ["x.jpg"]

    def test_another_model(self, folder: Path) -> None:
        store_for(folder, ColourModel(name="vit-l-14", fingerprint="other"))
        assert counts(index(folder)) == (3, 0, 0, 0, 0, 3)

    def test_a_store_that_cannot_be_written(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(location: object) -> None:
            # As far as LanceDB comes on a full disk.
            (Path(str(location)) / "pictures.lance" / "_versions").mkdir(parents=True)
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("fti4cir.search.store.connect", full)
        with pytest.raises(StoreError, match=r"Cannot make an index .*No space left on device"):
            index(folder)
        assert not default_location(folder).exists()


@pytest.fixture
def shared_folder() -> Iterator[Path]:
    """A folder with images that every user can reach."""
    with tempfile.TemporaryDirectory() as name:
        save_colour(Path(name) / "red.png", "red")
        save_colour(Path(name) / "sub" / "blue.png", "blue")
        Path(name).chmod(0o755)
        yield Path(name)


@contextmanager
def read_only(top: Path) -> Iterator[None]:
    """Be a user who may not write to the folder."""
    is_root = os.geteuid() == 0
    folders = [top, *(path for path in top.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)
        for folder in folders:
            folder.chmod(0o755)


class TestReadOnlyFolder:
    def test_a_store_cannot_be_made(self, shared_folder: Path) -> None:
        model = ColourModel()
        says = r"Cannot make an index .*`fti4cir index --store` names another place.*: Permission denied"
        with read_only(shared_folder), pytest.raises(StoreError, match=says):
            index(shared_folder, model)
        assert model.encoder.encoded == 0

    def test_an_index_that_is_up_to_date_can_be_used(self, shared_folder: Path) -> None:
        (shared_folder / "broken.jpg").touch()  # it is tried again each time
        index(shared_folder)
        with read_only(shared_folder):
            assert counts(index(shared_folder)) == (0, 0, 2, 0, 1, 2)

    def test_an_index_that_is_behind_stays_as_it_is(self, shared_folder: Path) -> None:
        index(shared_folder)
        save_colour(shared_folder / "new.png", "white")
        with read_only(shared_folder), pytest.raises(StoreError, match=r"Cannot write .*: .*Permission denied"):
            index(shared_folder)
        assert len(Store.open(default_location(shared_folder))) == 2


def test_doubles_of_earlier_versions_are_repaired(folder: Path) -> None:
    index(folder)
    store = Store.open(default_location(folder))
    store._table.add(store._table.to_arrow().slice(0, 2))
    assert len(store) == 5
    model = ColourModel()
    assert counts(index(folder, model)) == (0, 0, 3, 0, 0, 3)
    assert model.encoder.encoded == 0
    assert len(store.search(ColourModel().encode_texts(["red"])[0].numpy(), 10)) == 3


class TestAnotherProcess:
    """What happens while another process is indexing: here, while this one holds the lock."""

    @pytest.fixture
    def logged(self, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
        caplog.set_level("INFO", logger="fti4cir")
        return caplog

    def test_it_waits_and_sees_what_the_other_wrote(self, folder: Path, logged: pytest.LogCaptureFixture) -> None:
        first, second = ColourModel(), ColourModel()
        reports: list[IndexReport] = []

        def run() -> None:
            reports.append(index_folder(folder, store_for(folder, second), model=second))

        other = threading.Thread(target=run)
        store = store_for(folder, first)

        def start_and_wait_until_it_waits(done: int, total: int) -> None:
            other.start()
            while not logged.messages:
                time.sleep(0.01)

        index_folder(folder, store, model=first, progress=start_and_wait_until_it_waits)
        other.join()
        assert logged.messages == [f"Another process is indexing into '{store.location}'; waiting for it."]
        assert counts(reports[0]) == (0, 0, 3, 0, 0, 3)
        assert second.encoder.encoded == 0

    def test_files_that_came_while_it_waited(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        store = store_for(folder, ColourModel())
        holder = store.only_writer(lambda: True)
        holder.__enter__()

        def release(line: str) -> None:
            save_colour(folder / "new.png", "white")
            holder.__exit__(None, None, None)

        model = ColourModel()
        monkeypatch.setattr(indexing._logger, "info", release)
        report = index_folder(folder, store_for(folder, model), model=model)
        assert counts(report) == (4, 0, 0, 0, 0, 4)

    def test_patience_ends_once_there_is_something_to_search(
        self, folder: Path, logged: pytest.LogCaptureFixture
    ) -> None:
        index(folder)
        save_colour(folder / "new.png", "white")
        model = ColourModel()
        with Store.open(default_location(folder)).only_writer(lambda: True):
            store = store_for(folder, model)
            report = index_folder(folder, store, model=model, patience=0.0)
        assert counts(report) == (0, 0, 3, 0, 0, 3)
        assert model.encoder.encoded == 0
        assert logged.messages[1] == "It is still indexing; going on with the 3 images that it has written so far."

    def test_patience_lasts_while_there_is_nothing(self, folder: Path) -> None:
        holder = store_for(folder, ColourModel()).only_writer(lambda: True)
        holder.__enter__()
        done = threading.Event()
        reports: list[IndexReport] = []

        def run() -> None:
            model = ColourModel()
            reports.append(index_folder(folder, store_for(folder, model), model=model, patience=0.0))
            done.set()

        other = threading.Thread(target=run)
        other.start()
        assert not done.wait(1.5)
        holder.__exit__(None, None, None)
        other.join()
        assert counts(reports[0]) == (3, 0, 0, 0, 0, 3)

    def test_an_index_that_is_up_to_date_needs_no_lock(self, folder: Path) -> None:
        index(folder)
        with Store.open(default_location(folder)).only_writer(lambda: True):
            assert counts(index(folder)) == (0, 0, 3, 0, 0, 3)

    def test_rows_that_another_writer_undid_are_written_again(self, folder: Path) -> None:
        # As when two processes make the table in an object store, and the later one replaces the other's.
        model = ColourModel()
        store = store_for(folder, model)
        undone: list[int] = []
        write = store.upsert

        def undo(rows: list[Row]) -> None:
            write(rows)
            if not undone:
                undone.append(len(rows))
                store._table.delete("true")

        store.upsert = undo  # type: ignore[method-assign]
        assert counts(index_folder(folder, store, model=model)) == (3, 0, 0, 0, 0, 3)
        assert undone == [3]
