"""Content that is known already is not encoded again."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from fti4cir.search.index_report import IndexReport
from fti4cir.search.locations import default_location
from fti4cir.search.store import Store
from standin import ColourModel, save_colour
from tinyindex import counts, index


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
