"""What a benchmark's images lack, and what that means."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

import tinybench
from fti4cir.benchmarks import registry as published
from fti4cir.benchmarks.verify import Verification, verify
from tinyclip import picture


def look(name: str, root: Path, split: str = "val") -> Verification:
    return verify(name, published.load(name, root, split, allow_missing=True))


def spoil(root: Path) -> None:
    """Of CIRR's images: one gone, one empty, one a web page, one cut off, one a placeholder."""
    folder = root / "dev"
    (folder / "dev-0-0-img0.png").unlink()
    (folder / "dev-0-2-img0.png").write_bytes(b"")
    (folder / "dev-0-5-img0.png").write_text("<!DOCTYPE html><html>404</html>")
    picture(size=(200, 150)).save(folder / "cut.png")
    whole = (folder / "cut.png").read_bytes()
    (folder / "dev-1-5-img0.png").write_bytes(whole[: len(whole) * 9 // 10])
    Image.new("RGB", (1, 1)).save(folder / "dev-1-0-img0.png")


def test_a_whole_benchmark(tmp_path: Path) -> None:
    found = look("cirr", tinybench.cirr(tmp_path))
    assert found.complete
    assert (found.needed, found.absent, found.unreadable, found.suspicious) == (12, 0, (), ())
    assert found.parts[0].meaning == "All 12 images are there and can be read."
    assert set(found.parts[0].ceilings().values()) == {1.0}


def test_a_spoilt_benchmark(tmp_path: Path) -> None:
    spoil(tinybench.cirr(tmp_path))
    found = look("cirr", tmp_path)
    assert not found.complete
    assert found.missing == ("dev-0-0-img0",)
    reasons = {fault.id: fault.reason for fault in found.unreadable}
    assert list(reasons) == ["dev-0-2-img0", "dev-0-5-img0"]
    for reason, says in zip(reasons.values(), ("the file is empty", "a web page"), strict=True):
        assert says in reason
    tiny, cut = found.suspicious
    assert (tiny.id, cut.id) == ("dev-1-0-img0", "dev-1-5-img0")
    assert "1 by 1 pixels" in tiny.reason
    assert "10 % of the image is missing" in cut.reason
    # Queries go 0 to 1, 1 to 2, 2 to 3, 3 to 4 in each group; in the first one, 0 and 2 are lost.
    (part,) = found.parts
    assert (part.without_reference, part.without_target, part.unanswerable) == (2, 1, 3)
    assert part.ceilings() == dict.fromkeys(("R@1", "R@5", "R@10", "R@50", "Rs@1", "Rs@2", "Rs@3"), 5 / 8)
    assert "3 of 12 gallery images are missing or unreadable" in part.meaning
    assert "3 could never be answered, which bounds R@5 by 0.625" in part.meaning


def test_json(tmp_path: Path) -> None:
    spoil(tinybench.cirr(tmp_path))
    told = look("cirr", tmp_path).to_json()
    assert told["counts"] == {"missing": 1, "unreadable": 2, "suspicious": 2}
    assert (told["benchmark"], told["split"], told["complete"], told["needed"]) == ("cirr", "val", False, 12)
    assert told["missing"] == ["dev-0-0-img0"]
    assert [fault["id"] for fault in told["suspicious"]] == ["dev-1-0-img0", "dev-1-5-img0"]
    assert told["unreadable"][0]["path"] == str(tmp_path / "dev" / "dev-0-2-img0.png")
    assert told["parts"][0]["unanswerable"] == 3


def test_a_jpeg_that_is_cut_off_near_its_end(tmp_path: Path) -> None:
    tinybench.circo(tmp_path)
    path = tmp_path / "COCO2017_unlabeled" / "unlabeled2017" / "000000000017.jpg"
    picture(size=(640, 480)).save(path)
    path.write_bytes(path.read_bytes()[:-600])
    assert [fault.id for fault in look("circo", tmp_path).suspicious] == ["17"]


def test_several_targets(tmp_path: Path) -> None:
    """The first query loses one of its three targets, the one that its text was written for."""
    tinybench.circo(tmp_path)
    (tmp_path / "COCO2017_unlabeled" / "unlabeled2017" / "000000000017.jpg").unlink()
    (part,) = look("circo", tmp_path).parts
    assert (part.without_reference, part.without_target, part.unanswerable) == (0, 1, 0)
    ceilings = part.ceilings()
    assert ceilings["mAP@10"] == pytest.approx((2 / 3 + 1) / 2)
    assert ceilings["R@10"] == 0.5


def test_hidden_targets(tmp_path: Path) -> None:
    tinybench.cirr(tmp_path, split="test1")
    for number in (0, 4):
        (tmp_path / "test1" / f"test1-0-{number}-img0.png").unlink()
    (part,) = look("cirr", tmp_path, "test1").parts
    assert (part.without_reference, part.without_target, part.unanswerable) == (1, None, 1)
    assert part.ceilings()["R@1"] == 7 / 8
    assert "unknown lack targets" in part.meaning


def test_parts(tmp_path: Path) -> None:
    tinybench.fashioniq(tmp_path)
    (tmp_path / "images" / "SHIRT1.png").unlink()
    found = look("fashioniq", tmp_path)
    assert [part.complete for part in found.parts] == [True, False, True]
    assert (found.needed, found.missing) == (15, ("SHIRT1",))
    # An image that is in two galleries is counted once.
    split = tmp_path / "image_splits" / "split.dress.val.json"
    tinybench.write_json(split, [*(f"DRESS{number}" for number in range(5)), "SHIRT1", "SHIRT2"])
    found = look("fashioniq", tmp_path)
    assert (found.needed, found.absent) == (15, 1)
    assert [part.needed for part in found.parts] == [7, 5, 5]


def test_images_that_nobody_can_name(tmp_path: Path) -> None:
    found = look("circo", tinybench.circo(tmp_path, info=""))
    assert not found.complete
    assert (found.needed, found.absent, found.missing) == (123_403, 123_395, ())
    assert found.to_json()["counts"]["missing"] == 123_395


def test_progress_and_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fti4cir.benchmarks.verify._CHUNK", 5)
    spoil(tinybench.cirr(tmp_path))
    told: list[tuple[int, int]] = []
    found = verify("cirr", published.load("cirr", tmp_path, allow_missing=True), lambda *done: told.append(done))
    assert told == [(5, 11), (10, 11), (11, 11)]
    assert len(found.unreadable) == len(found.suspicious) == 2
