"""Features of images and sentences: what is computed, what is kept, and what goes wrong."""

import os
import re
import resource
import tarfile
import threading
from collections import namedtuple
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.captions.table import CaptionedImages, load_captioned_images
from fti4cir.errors import CacheError, ImageError, ModelError, NoRoomError
from fti4cir.features import cache as features
from fti4cir.features.cache import Features, FileSource, Share, StreamedFeatures, compute
from fti4cir.features.matrix import compute_rows, compute_texts
from fti4cir.images.decode import FileReader
from fti4cir.inversion.compose import encode_sentences
from fti4cir.methods import registry
from tinydata import SMALL, SMALL_ATTRIBUTES, log_of, logged, write_data

pytestmark = [pytest.mark.numeric, pytest.mark.usefixtures("one_thread")]

CPU = torch.device("cpu")
PER_BLOCK = 8


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_BLOCK", PER_BLOCK)


@pytest.fixture
def own(tmp_path: Path) -> SimpleNamespace:
    """Images that a test may change: 41 of them, the last one broken."""
    return write_data(tmp_path / "own")


@pytest.fixture
def encoded(encoder: ClipEncoder, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images passed the encoder each time; without the one of zeros that shows the features' shape."""
    counts: list[int] = []
    real = encoder.encode_pixels

    def encode(pixels: torch.Tensor) -> object:
        if pixels.any():
            counts.append(len(pixels))
        return real(pixels)

    monkeypatch.setattr(encoder, "encode_pixels", encode, raising=False)
    return counts


def opened(data: SimpleNamespace) -> CaptionedImages:
    return load_captioned_images(data.pictures, data.captions)


def repaint(path: Path) -> None:
    Image.new("RGB", (40, 36), (123, 45, 67)).save(path)


def assert_equal(one: Features, other: Features) -> None:
    assert one.local is not None
    assert other.local is not None
    np.testing.assert_array_equal(one.image, other.image)
    np.testing.assert_array_equal(one.local, other.local)
    assert one.unreadable == other.unreadable


def test_features_are_the_encoders(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    found = compute(tmp_path / "f", encoder, opened(data))
    names = opened(data).names
    assert list(found.unreadable) == [names.index("broken.png")]
    rows = [names.index("07.png"), names.index("03.png")]
    pictures = [encoder.preprocess(Image.open(data.pictures / names[row])) for row in rows]
    expected = encoder.encode_pixels(torch.stack(pictures))
    image, local = found.take(rows, CPU)
    torch.testing.assert_close(image, expected.image, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(local, expected.local, rtol=2e-3, atol=2e-3)


def test_without_local_features(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    found = compute(tmp_path / "f", encoder, opened(data), local=False)
    assert found.local is None
    np.testing.assert_array_equal(found.image, compute(tmp_path / "g", encoder, opened(data)).image)
    assert not (tmp_path / "f" / "local.f16").exists()
    with pytest.raises(ValueError, match="without the local ones"):
        found.take([0], CPU)


# -- what is computed anew ------------------------------------------------------------------------------------
def test_nothing_is_computed_twice(
    own: SimpleNamespace,
    encoder: ClipEncoder,
    encoded: list[int],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", logger="fti4cir")
    compute(tmp_path / "f", encoder, opened(own))
    assert encoded == [8, 8, 8, 8, 8]  # the broken image is the 41st
    assert re.fullmatch(r"image features: 41 of 41 images, [\d.]+ a second; about 0 min left", caplog.messages[-1])
    caplog.clear()
    compute(tmp_path / "f", encoder, opened(own))
    assert len(encoded) == 5
    assert caplog.messages == []


def test_a_changed_image_is_computed_anew_with_its_block(
    own: SimpleNamespace, encoder: ClipEncoder, encoded: list[int], tmp_path: Path
) -> None:
    before = np.array(compute(tmp_path / "f", encoder, opened(own)).image)
    repaint(own.pictures / "10.png")
    encoded.clear()
    changed = compute(tmp_path / "f", encoder, opened(own))
    assert encoded == [8]
    assert set(np.flatnonzero((changed.image != before).any(axis=1))) == {10}
    assert_equal(changed, compute(tmp_path / "g", encoder, opened(own)))
    encoded.clear()
    compute(tmp_path / "f", encoder, opened(own))
    assert encoded == []


def test_a_touched_image_is_not_computed_anew(
    own: SimpleNamespace, encoder: ClipEncoder, encoded: list[int], tmp_path: Path
) -> None:
    compute(tmp_path / "f", encoder, opened(own))
    encoded.clear()
    os.utime(own.pictures / "10.png", (1, 1))
    compute(tmp_path / "f", encoder, opened(own))
    assert encoded == []


def test_a_change_that_size_and_time_do_not_show_is_the_users_own(
    own: SimpleNamespace, encoder: ClipEncoder, encoded: list[int], tmp_path: Path
) -> None:
    """What saves reading every image in every run: only where these differ is the content looked at."""
    picture = own.pictures / "10.png"
    compute(tmp_path / "f", encoder, opened(own))
    before, size = picture.stat(), len(picture.read_bytes())
    picture.write_bytes(b"x" * size)
    encoded.clear()
    os.utime(picture, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert 10 not in compute(tmp_path / "f", encoder, opened(own)).unreadable
    os.utime(picture, (1, 1))
    assert 10 in compute(tmp_path / "f", encoder, opened(own)).unreadable


def test_a_mended_image_gets_features(
    own: SimpleNamespace, encoder: ClipEncoder, encoded: list[int], tmp_path: Path
) -> None:
    first = compute(tmp_path / "f", encoder, opened(own))
    assert list(first.unreadable) == [40]
    assert not first.image[40].any()
    repaint(own.pictures / "broken.png")
    encoded.clear()
    mended = compute(tmp_path / "f", encoder, opened(own))
    assert mended.unreadable == {}
    assert mended.image[40].any()
    assert encoded == [1]  # alone in its block


def test_an_image_that_is_gone_or_back_again(
    own: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = opened(own)
    first = compute(tmp_path / "f", encoder, source)
    unmended = dict(first.unreadable)
    (own.pictures / "10.png").rename(tmp_path / "10.png")
    gone = compute(tmp_path / "f", encoder, source)
    assert "No such file" in gone.unreadable[10]
    assert not gone.image[10].any()
    (tmp_path / "10.png").rename(own.pictures / "10.png")
    again = compute(tmp_path / "f", encoder, source)
    assert again.unreadable == unmended
    np.testing.assert_array_equal(again.image, compute(tmp_path / "g", encoder, source).image)


def test_an_image_that_may_be_read_again(
    own: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Permissions change neither the size nor the time of a file."""
    real = FileReader.read

    def refuse(reader: FileReader, name: str) -> bytes:
        if name == "10.png":
            raise ImageError("Cannot read '10.png': Permission denied.")
        return real(reader, name)

    with monkeypatch.context() as refused:
        refused.setattr(FileReader, "read", refuse)
        assert 10 in compute(tmp_path / "f", encoder, opened(own)).unreadable
    assert 10 not in compute(tmp_path / "f", encoder, opened(own)).unreadable


def test_a_moved_folder_keeps_its_features(
    own: SimpleNamespace, encoder: ClipEncoder, encoded: list[int], tmp_path: Path
) -> None:
    compute(tmp_path / "f", encoder, opened(own))
    encoded.clear()
    moved = SimpleNamespace(pictures=own.pictures.rename(tmp_path / "moved"), captions=own.captions)
    compute(tmp_path / "f", encoder, opened(moved))
    assert encoded == []


def test_a_tar_file(own: SimpleNamespace, encoder: ClipEncoder, encoded: list[int], tmp_path: Path) -> None:
    def pack() -> None:
        with tarfile.open(tmp_path / "p.tar", "w") as tar:
            for path in sorted(own.pictures.iterdir()):
                tar.add(path, path.name)

    pack()
    packed = SimpleNamespace(pictures=tmp_path / "p.tar", captions=own.captions)
    from_tar = compute(tmp_path / "f", encoder, opened(packed))
    from_folder = compute(tmp_path / "g", encoder, opened(own))
    np.testing.assert_array_equal(from_tar.image, from_folder.image)
    repaint(own.pictures / "10.png")
    pack()
    encoded.clear()
    changed = compute(tmp_path / "f", encoder, opened(packed))
    assert encoded == [8]
    assert (changed.image[10] != from_folder.image[10]).any()


def test_files_anywhere(own: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    source = FileSource((str(own.pictures / "03.png"), str(own.pictures / "07.png")))
    found = compute(tmp_path / "f", encoder, source)
    whole = compute(tmp_path / "g", encoder, opened(own))
    np.testing.assert_allclose(found.image, whole.image[[3, 7]], rtol=1e-4, atol=1e-4)


# -- several processes ----------------------------------------------------------------------------------------
def test_two_shares_make_what_one_process_makes(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    whole = compute(tmp_path / "whole", encoder, opened(data))
    barrier = threading.Barrier(2, timeout=30)

    def part(rank: int) -> Features:
        return compute(tmp_path / "parts", encoder, opened(data), share=Share(rank, 2, barrier.wait))

    with ThreadPoolExecutor(2) as pool:
        parts, _ = pool.map(part, range(2))
    assert_equal(parts, whole)
    for name in ("image.f32", "local.f16"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, other = ((tmp_path / name / "blocks.jsonl").read_text().splitlines() for name in ("parts", "whole"))
    assert sorted(one) == sorted(other)


# -- what goes wrong ------------------------------------------------------------------------------------------
def test_features_of_others_are_kept(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "f"
    compute(folder, encoder, opened(data))
    before = (folder / "image.f32").read_bytes()
    monkeypatch.setattr(encoder, "fingerprint", "another")
    with pytest.raises(CacheError, match="of other images or of another encoder; delete it"):
        compute(folder, encoder, opened(data))
    assert (folder / "image.f32").read_bytes() == before


def test_a_folder_with_other_things_keeps_them(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_text("dear")
    compute(tmp_path, encoder, opened(data))
    assert (tmp_path / "photo.jpg").read_text() == "dear"


def test_damaged_features(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    compute(tmp_path / "f", encoder, opened(data))
    os.truncate(tmp_path / "f" / "local.f16", 1000)
    with pytest.raises(CacheError, match=r"damaged: local\.f16"):
        compute(tmp_path / "f", encoder, opened(data))


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room for ten thousand bytes: for the image features of the images, but not for the local ones."""
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(features.shutil, "disk_usage", lambda folder: usage(10_000))


@pytest.mark.usefixtures("full_disk")
def test_too_little_room(data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "f"
    with pytest.raises(NoRoomError, match=r"take 0\.0 GB, but .*f has only 0\.0 GB left; choose a folder"):
        compute(folder, encoder, opened(data))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NoRoomError, match=r"take 25\.9 GB"):
        features.require_room(folder, encoder, count=15_000_000)
    compute(folder, encoder, opened(data), local=False)


def test_a_cache_that_has_its_room_needs_no_more(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    compute(tmp_path / "f", encoder, opened(data))
    request.getfixturevalue("full_disk")
    compute(tmp_path / "f", encoder, opened(data))


def test_a_disk_that_fills_up_while_features_are_computed(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path
) -> None:
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, limit[1]))
        with pytest.raises(CacheError, match="cannot be written to"):
            compute(tmp_path / "f", encoder, opened(data))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert 0 < (tmp_path / "f" / "blocks.jsonl").read_text().count('"digests"') < 6
    interrupted = compute(tmp_path / "f", encoder, opened(data))
    assert_equal(interrupted, compute(tmp_path / "g", encoder, opened(data)))


def test_features_that_are_no_numbers(
    data: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = encoder.encode_pixels
    monkeypatch.setattr(
        encoder, "encode_pixels", lambda pixels: real(pixels)._replace(local=real(pixels).local + 1e6), raising=False
    )
    with pytest.raises(ModelError, match="half precision cannot hold"):
        compute(tmp_path / "f", encoder, opened(data))


# -- features that are not kept -------------------------------------------------------------------------------
@pytest.fixture
def streamed(own: SimpleNamespace, encoder: ClipEncoder, tmp_path: Path) -> Iterator[StreamedFeatures]:
    source = opened(own)
    result = StreamedFeatures(compute(tmp_path / "global", encoder, source, local=False), source, encoder)
    yield result
    result.close()


def test_streamed_features_are_the_kept_ones(
    own: SimpleNamespace, encoder: ClipEncoder, streamed: StreamedFeatures, tmp_path: Path
) -> None:
    kept = compute(tmp_path / "f", encoder, opened(own))
    assert streamed.unreadable == kept.unreadable
    block = list(range(8, 16))  # what was a block in the cache, too
    torch.testing.assert_close(streamed.take(block, CPU), kept.take(block, CPU), rtol=0, atol=0)
    mixed = [33, 2, 2, *range(20, 39), 7]  # more than a block, and in no order
    image, local = streamed.take(mixed, CPU)
    torch.testing.assert_close(image, kept.take(mixed, CPU).image, rtol=0, atol=0)
    torch.testing.assert_close(local, kept.take(mixed, CPU).local, rtol=2e-3, atol=2e-3)


def test_a_streamed_image_that_is_gone(own: SimpleNamespace, streamed: StreamedFeatures) -> None:
    streamed.take([10], CPU)
    (own.pictures / "10.png").unlink()
    with pytest.raises(ImageError, match=r"10\.png"):
        streamed.take([9, 10], CPU)


def test_training_with_too_little_room_computes_the_local_features_in_every_step(
    data: SimpleNamespace, clip_folder: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    config = registry.preset("composed", **{**SMALL, **SMALL_ATTRIBUTES, "epochs": 1})

    def train(name: str) -> Path:
        return registry.train(config, data.pictures, data.captions, clip_folder, tmp_path / name)

    kept = train("kept")
    request.getfixturevalue("full_disk")
    with logged() as lines:
        streaming = train("streaming")
    [reason] = [line for line in lines if "GB" in line]
    assert "--features" in reason
    assert "slower" in reason
    assert sorted(path.name for path in (streaming / "features" / "global").iterdir()) == [
        "blocks.jsonl",
        "image.f32",
        "key",
    ]
    losses = [[float(row["total"]) for row in log_of(output)] for output in (kept, streaming)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    one, other = (load_file(output / "model.safetensors") for output in (kept, streaming))
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=0, atol=5e-3)


# -- sentences, and any other rows ----------------------------------------------------------------------------
def test_features_of_texts(encoder: ClipEncoder, tmp_path: Path) -> None:
    texts = ["a dog", "a black cat in the snow", "grass"]
    found = compute_texts(tmp_path, encoder, texts)
    expected = encode_sentences(encoder, [(text,) for text in texts])
    torch.testing.assert_close(torch.from_numpy(np.array(found)), expected, rtol=1e-5, atol=1e-5)
    compute_texts(tmp_path, encoder, texts[:2])
    assert len(list(tmp_path.iterdir())) == 2  # a file for each list of texts


def rows_of(made: list[tuple[int, int]]) -> Callable[[int, int], torch.Tensor]:
    """What makes rows that hold their own number, and notes which."""

    def make(start: int, stop: int) -> torch.Tensor:
        made.append((start, stop))
        return torch.arange(start, stop)[:, None].expand(-1, 3)

    return make


def things(folder: Path, made: list[tuple[int, int]]) -> NDArray[np.float32]:
    return compute_rows(folder, "things", made_of=["key"], shape=(10, 3), block=4, make=rows_of(made))


def test_rows_are_made_once(tmp_path: Path) -> None:
    made: list[tuple[int, int]] = []
    for _ in range(2):
        rows = things(tmp_path, made)
        assert rows.tolist() == [[number] * 3 for number in range(10)]
    assert made == [(0, 4), (4, 8), (8, 10)]


@pytest.mark.parametrize("kept", [0, 50, 48, 60, 96, 119, 120])  # of 120 bytes, in blocks of 48
def test_rows_go_on_after_an_interruption(kept: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    things(whole, [])
    [file] = whole.iterdir()
    (tmp_path / "cut").mkdir()
    part = tmp_path / "cut" / file.with_suffix(".part").name
    part.write_bytes(file.read_bytes()[:kept])
    made: list[tuple[int, int]] = []
    things(part.parent, made)
    assert made == [(0, 4), (4, 8), (8, 10)][kept // 48 :]
    assert [path.name for path in part.parent.iterdir()] == [file.name]
    assert (part.parent / file.name).read_bytes() == file.read_bytes()


def test_damaged_rows(tmp_path: Path) -> None:
    things(tmp_path, [])
    [file] = tmp_path.iterdir()
    os.truncate(file, 100)
    with pytest.raises(CacheError, match=f"The things in .*{file.name} are damaged; delete the file"):
        things(tmp_path, [])


def test_rows_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(CacheError, match="cannot be written to"):
        things(tmp_path / "file", [])
