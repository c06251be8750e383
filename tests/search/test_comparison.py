"""What cannot be read at the moment stays in the index."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from fti4cir.errors import InputError, StoreError
from fti4cir.search.indexing import index_folder, store_for
from fti4cir.search.locations import default_location
from fti4cir.search.store import Store
from standin import ColourModel, save_colour
from tinyindex import counts, index


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
