"""Bringing a store up to date: only what changed is read, and nothing that was done is lost."""

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
from fti4cir.search.listing import _in_int64
from fti4cir.search.locations import default_location
from fti4cir.search.schema import Row
from fti4cir.search.store import Store
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
    return index_folder(folder, store_for(folder, model), model=model)


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
        index_folder(tmp_path, store, model=model, progress=interrupt)
    assert len(store) == 96
    assert threading.active_count() < 10
    again = ColourModel()
    assert counts(index_folder(tmp_path, store, model=again)) == (54, 0, 96, 0, 0, 150)
    assert again.encoder.encoded == 54


def test_rows_are_written_while_indexing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fti4cir.search.writer.WRITE_EVERY", 0.0)
    for i in range(100):
        save_colour(tmp_path / f"{i:03}.png", (i, 0, 0))
    model = ColourModel(seconds_a_batch=0.2)
    store = store_for(tmp_path, model)
    sizes: list[int] = []
    index_folder(tmp_path, store, model=model, progress=lambda done, total: sizes.append(len(store)))
    assert sizes[-1] >= 64  # a killed process would have left these


def test_a_store_that_cannot_be_written_ends_the_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Store, rows: list[Row]) -> None:
        raise StoreError("Cannot write to the index: No space left on device.")

    monkeypatch.setattr(Store, "upsert", full)
    with pytest.raises(StoreError, match="No space left"):
        index(folder)


class TestKnownContent:
    """A file whose content has a vector already is not encoded."""

    def report(self, folder: Path) -> tuple[IndexReport, int]:
        model = ColourModel()
        report = index(folder, model)
        store = Store.open(default_location(folder))
        for row in store._table.to_arrow().to_pylist():  # each file has its own vector, whoever had it before
            expected = model.encode_images([folder / row["path"]])[0].numpy()
            model.encoder.encoded -= 1
            assert np.allclose(row["vector"], expected, atol=1e-5)
            status = (folder / row["path"]).stat()
            assert (row["mtime_ns"], row["size"]) == (status.st_mtime_ns, status.st_size)
        return report, model.encoder.encoded

    def test_a_touched_file(self, folder: Path) -> None:
        index(folder)
        os.utime(folder / "red.jpg", ns=(1, 1))
        report, encoded = self.report(folder)
        assert counts(report) == (0, 1, 2, 0, 0, 3)
        assert encoded == 0

    def test_moved_and_renamed(self, folder: Path) -> None:
        index(folder)
        (folder / "red.jpg").rename(folder / "rouge.jpg")
        shutil.move(folder / "日本", folder / "Japan")
        report, encoded = self.report(folder)
        assert counts(report) == (0, 0, 1, 0, 0, 3)
        assert report.moved == 2
        assert encoded == 0
        assert report.to_json() == {
            "added": 0,
            "updated": 0,
            "unchanged": 1,
            "removed": 0,
            "moved": 2,
            "skipped": [],
            "total": 3,
        }

    def test_copied(self, folder: Path) -> None:
        index(folder)
        for name in ("a.jpg", "b.jpg"):
            shutil.copy(folder / "red.jpg", folder / name)
        report, encoded = self.report(folder)
        assert counts(report) == (2, 0, 3, 0, 0, 5)
        assert (report.moved, encoded) == (0, 0)

    def test_two_copies_become_three_elsewhere(self, folder: Path) -> None:
        shutil.copy(folder / "red.jpg", folder / "red 2.jpg")
        index(folder)
        for name in ("a.jpg", "b.jpg", "c.jpg"):
            shutil.copy(folder / "red.jpg", folder / name)
        for name in ("red.jpg", "red 2.jpg"):
            (folder / name).unlink()
        report, encoded = self.report(folder)
        assert (report.added, report.moved, report.removed, report.total, encoded) == (1, 2, 0, 5, 0)

    def test_names_exchanged(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        # Rows are overwritten in one write after the other; the content of later files must not get lost.
        monkeypatch.setattr("fti4cir.search.writer.WRITE_EVERY", 0.0)
        for i in range(100):
            save_colour(tmp_path / f"{i:03}.png", (i, 0, 200 - i), size=(48, 40 + i))
        index(tmp_path)
        for i in range(100):
            (tmp_path / f"{i:03}.png").rename(tmp_path / f"{(i + 41) % 100:03}.next")
        for path in tmp_path.glob("*.next"):
            path.rename(path.with_suffix(".png"))
        report, encoded = self.report(tmp_path)
        assert counts(report) == (0, 100, 0, 0, 0, 100)
        assert encoded == 0

    @pytest.mark.parametrize("write_every", [0.0, 5.0])
    def test_copies_in_one_run(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write_every: float) -> None:
        monkeypatch.setattr("fti4cir.search.writer.WRITE_EVERY", write_every)
        first = save_colour(tmp_path / "a.png", "red")
        for i in range(150):
            shutil.copy(first, tmp_path / f"{i:03}.png")
        report, encoded = self.report(tmp_path)
        assert counts(report) == (151, 0, 0, 0, 0, 151)
        assert encoded == 1
        vectors = {tuple(row["vector"]) for row in Store.open(default_location(tmp_path))._table.to_arrow().to_pylist()}
        assert len(vectors) == 1  # so that they tie exactly

    def test_copies_of_what_cannot_be_read(self, folder: Path) -> None:
        for name in ("x.jpg", "y.jpg"):
            (folder / name).write_text("<html></html>")
        report = index(folder)
        assert [path.name for path, _ in report.skipped] == ["x.jpg", "y.jpg"]
        assert "y.jpg" in report.skipped[1][1]

    def test_content_that_another_writer_removed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index(folder)
        (folder / "red.jpg").rename(folder / "rouge.jpg")
        monkeypatch.setattr(Store, "with_digests", lambda self, digests: {})
        report, encoded = self.report(folder)
        assert (report.moved, report.total, encoded) == (1, 3, 1)


class TestNothingIsLost:
    """What cannot be looked at for a moment stays in the index."""

    def refuse(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        """From now on, that folder cannot be listed."""
        listed = os.scandir

        def scandir(path: Path) -> object:
            if Path(path) == folder:
                raise PermissionError(13, "Permission denied", str(path))
            return listed(path)

        monkeypatch.setattr("fti4cir.images.decode.os.scandir", scandir)

    def test_a_folder_that_cannot_be_listed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        save_colour(folder / "日本" / "deeper" / "x.png", "white")
        save_colour(folder / "日本 2" / "y.png", "white", size=(9, 9))
        index(folder)
        (folder / "red.jpg").unlink()
        shutil.rmtree(folder / "日本 2")  # its name begins like the other's
        with monkeypatch.context() as patch:
            self.refuse(patch, folder / "日本")
            report = index(folder)
            assert counts(report) == (0, 0, 3, 2, 1, 3)
            assert report.skipped[0][1] == (
                f"Cannot list the folder '{folder / '日本'}': Permission denied. "
                "What the index has of it stays there (images: 2)."
            )
            assert counts(index(folder)) == (0, 0, 3, 0, 1, 3)
        model = ColourModel()
        assert counts(index(folder, model)) == (0, 0, 3, 0, 0, 3)
        assert model.encoder.encoded == 0

    def test_the_whole_folder_cannot_be_listed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index(folder)
        self.refuse(monkeypatch, folder)
        with pytest.raises(InputError, match=r"Cannot list the folder '.*photos': Permission denied"):
            index(folder)
        assert len(Store.open(default_location(folder))) == 3

    def test_a_link_to_a_folder_that_is_not_connected(self, folder: Path, tmp_path: Path) -> None:
        save_colour(tmp_path / "disk" / "sub" / "x.png", "white")
        (folder / "link").symlink_to(tmp_path / "disk")
        index(folder)
        (tmp_path / "disk").rename(tmp_path / "taken away")
        report = index(folder)
        assert counts(report) == (0, 0, 4, 0, 1, 4)
        assert "link that leads nowhere" in report.skipped[0][1]
        (folder / "link").unlink()
        assert counts(index(folder)) == (0, 0, 3, 1, 0, 3)

    def test_a_file_that_cannot_be_opened(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        index(folder)
        os.utime(folder / "red.jpg", ns=(1, 1))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "read_bytes", lambda self: (_ for _ in ()).throw(OSError(5, "Input/output error")))
            report = index(folder)
        assert counts(report) == (0, 0, 3, 0, 1, 3)
        assert "Input/output error. What the index has of it stays there" in report.skipped[0][1]
        assert counts(index(folder)) == (0, 1, 2, 0, 0, 3)

    def test_the_store_lies_elsewhere_and_the_disk_is_not_connected(self, folder: Path, tmp_path: Path) -> None:
        model = ColourModel()
        place = tmp_path / "elsewhere"
        index_folder(folder, store_for(folder, model, location=place), model=model)
        shutil.rmtree(folder)
        folder.mkdir()  # where the disk was mounted
        with pytest.raises(InputError, match=r"no images in .* has 3 of them; if its disk or network"):
            index_folder(folder, store_for(folder, model, location=place), model=model)
        assert len(Store.open(place)) == 3

    def test_the_last_image_is_deleted(self, folder: Path) -> None:
        index(folder)
        for path in folder.iterdir():
            if path.name != ".fti4cir":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        assert counts(index(folder)) == (0, 0, 0, 3, 0, 0)

    def test_the_folder_vanishes_meanwhile(self, folder: Path, tmp_path: Path) -> None:
        model = ColourModel()
        store = store_for(folder, model, location=tmp_path / "elsewhere")
        index_folder(folder, store, model=model)
        save_colour(folder / "new.png", "white")
        with pytest.raises(InputError, match="vanished while it was indexed; what was done is kept"):
            index_folder(folder, store, model=model, progress=lambda done, total: shutil.rmtree(folder))
        assert sorted(store.files()) == ["new.png", "red.jpg", "sub folder/grün blå.png", "日本/青.webp"]

    @pytest.mark.parametrize("times", [0, 1])
    def test_the_folder_vanishes_with_its_store(self, folder: Path, times: int) -> None:
        model = ColourModel()
        for _ in range(times):
            index(folder, model)
        store = store_for(folder, model)
        save_colour(folder / "new.png", "white")
        with pytest.raises(StoreError, match=r"Cannot (make an|write to the|read the) index"):
            index_folder(folder, store, model=model, progress=lambda done, total: shutil.rmtree(folder))
        assert not folder.exists()


@pytest.mark.parametrize("year", [1601, 2400])
def test_a_date_that_the_store_cannot_hold(folder: Path, year: int) -> None:
    seconds = (year - 1970) * 31_556_952
    try:
        os.utime(folder / "red.jpg", (seconds, seconds))
    except OSError:
        pytest.skip("this file system keeps no such date")
    if (folder / "red.jpg").stat().st_mtime != seconds:
        pytest.skip("this file system keeps no such date")
    assert counts(index(folder)) == (3, 0, 0, 0, 0, 3)
    assert counts(index(folder)) == (0, 0, 3, 0, 0, 3)
    os.utime(folder / "red.jpg", ns=(1, 1))
    assert counts(index(folder)) == (0, 1, 2, 0, 0, 3)


def test_dates_beyond_the_range_come_closest() -> None:
    assert [_in_int64(ns) for ns in (-(2**70), -5, 2**63 - 1, 2**63)] == [-(2**63), -5, 2**63 - 1, 2**63 - 1]


@pytest.mark.parametrize("name", ["Trip: Rome", "memory:", "C:"])
def test_a_folder_that_looks_like_a_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    save_colour(tmp_path / name / "red.png", "red")
    monkeypatch.chdir(tmp_path)
    assert counts(index(Path(name))) == (1, 0, 0, 0, 0, 1)
    assert counts(index(Path(name))) == (0, 0, 1, 0, 0, 1)
    assert (tmp_path / name / ".fti4cir" / "pictures.lance").is_dir()
    assert os.listdir(tmp_path) == [name]


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
