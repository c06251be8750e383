"""Captioned images from folders, tar files and tables of captions."""

import gzip
import io
import json
import os
import tarfile
from pathlib import Path

import pytest

from fti4cir.captions.table import Caption, load_captioned_images
from fti4cir.errors import ImageError, InputError
from standin import save_colour

NAMES = ("a.png", "b.png", "sub folder/c.png", "sub folder/ü 犬.png", "one/same.png", "two/same.png")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(NAMES):
        save_colour(tmp_path / "pictures" / name, (number, 0, 0))
    return tmp_path / "pictures"


def pack(folder: Path, target: Path, prefix: str = "") -> Path:
    with tarfile.open(target, "w") as tar:
        for name in NAMES:
            tar.add(folder / name, prefix + name)
    return target


def write(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


def test_csv(folder: Path, tmp_path: Path) -> None:
    table = write(
        tmp_path,
        "captions.csv",
        '\ufeffcaption,image,more\nA dog,b.png,x\n"A cat, asleep",a.png,x\nAnother,b.png,\nLost,gone.png,\n',
    )
    data = load_captioned_images(folder, table)
    assert data.names == ("a.png", "b.png")
    assert data.captions == ((Caption("A cat, asleep"),), (Caption("A dog"), Caption("Another")))
    assert data.missing == ("gone.png",)
    assert len(data) == 2


def test_json_lines(folder: Path, tmp_path: Path) -> None:
    lines = [
        {"image": "a.png", "caption": "a dog"},
        {"image": "a.png", "subject": "a cat", "attribute": "asleep"},
        {"image": "b.png", "caption": "told so", "subject": "a cat", "attribute": "asleep"},
        {"image": "b.png", "caption": "no attribute", "subject": "a cat", "attribute": " "},
    ]
    table = write(tmp_path, "captions.jsonl", "\n\n".join(map(json.dumps, lines)))
    assert load_captioned_images(folder, table).captions == (
        (Caption("a dog"), Caption("a cat asleep", ("a cat", "asleep"))),
        (Caption("told so", ("a cat", "asleep")), Caption("no attribute")),
    )


@pytest.mark.parametrize("packed", [False, True])
def test_folders_and_short_names(folder: Path, tmp_path: Path, packed: bool) -> None:
    table = write(
        tmp_path,
        "captions.csv",
        "image,caption\nc.png,short\nsub folder/ü 犬.png,long\nsame.png,of two\none/same.png,of one\n",
    )
    source = pack(folder, tmp_path / "images.tar", "./") if packed else folder
    data = load_captioned_images(source, table)
    assert data.names == ("one/same.png", "sub folder/c.png", "sub folder/ü 犬.png")
    assert data.missing == ("same.png",)  # which of the two?
    with data.reader() as reader:
        for name in reversed(data.names):
            assert reader.read(name) == (folder / name).read_bytes()


def test_an_image_that_is_gone_by_the_time_it_is_read(folder: Path, tmp_path: Path) -> None:
    data = load_captioned_images(folder, write(tmp_path, "c.csv", "image,caption\na.png,x\n"))
    (folder / "a.png").unlink()
    with data.reader() as reader:
        assert reader.stamp("a.png") == ""
        with pytest.raises(ImageError, match=r"a\.png"):
            reader.read("a.png")


def test_a_tar_that_another_one_has_replaced(folder: Path, tmp_path: Path) -> None:
    data = load_captioned_images(pack(folder, tmp_path / "x.tar"), write(tmp_path, "c.csv", "image,caption\na.png,x\n"))
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(folder / "b.png", "b.png")
    with data.reader() as reader:
        assert reader.stamp("a.png") == ""
        with pytest.raises(ImageError, match=r"'a\.png' in .*x\.tar: there is no such file"):
            reader.read("a.png")


@pytest.mark.parametrize("packed", [False, True])
def test_a_stamp_changes_with_the_image_alone(folder: Path, tmp_path: Path, packed: bool) -> None:
    table = write(tmp_path, "c.csv", "image,caption\na.png,x\nb.png,y\n")

    def stamps() -> list[str]:
        data = load_captioned_images(pack(folder, tmp_path / "x.tar") if packed else folder, table)
        with data.reader() as reader:
            return [reader.stamp(name) for name in data.names]

    before = stamps()
    assert stamps() == before
    os.utime(folder / "b.png", (1, 1))
    after = stamps()
    assert (after[0], after[1] != before[1]) == (before[0], True)


def test_what_is_no_file_in_a_tar(folder: Path, tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        tar.add(folder / "a.png", "a.png")
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("notes.txt"), io.BytesIO())
    table = write(tmp_path, "c.csv", "image,caption\na.png,x\nb.png,y\nnotes.txt,z\n")
    assert load_captioned_images(tmp_path / "x.tar", table).missing == ("b.png", "notes.txt")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("c.csv", "", "needs the columns image and caption"),
        ("c.csv", "file,caption\na.png,x\n", "needs the columns image and caption, but has file, caption"),
        ("c.csv", "image,caption\na.png\n", r"Line 2 .* lacks"),
        ("c.csv", "image,caption\n,x\n", r"Line 2 .* lacks"),
        ("c.csv", "image,caption\na.png,a cat, asleep\n", r"Line 2 .* in quotes"),
        ("c.csv", 'image,caption\na.png,"never closed\n', "not a CSV file"),
        ("c.csv", f"image,caption\na.png,{'x' * 200_000}\n", "not a CSV file"),
        ("c.jsonl", '{"image": "a.png", "caption": "x"}\n{"image": \n', r"Line 2 .* is not a JSON object"),
        ("c.jsonl", '["a.png", "x"]\n', "Line 1"),
        ("c.jsonl", '{"image": "a.png"}\n', "Line 1"),
        ("c.jsonl", '{"image": 3, "caption": "x"}\n', "must be texts"),
        ("c.jsonl", '{"image": "a.png", "caption": ["x"]}\n', "must be texts"),
        ("c.jsonl", "\n", "None of the images"),
        ("c.csv", "image,caption\nz.png,x\n", "None of the images"),
    ],
)
def test_malformed_tables(folder: Path, tmp_path: Path, name: str, text: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        load_captioned_images(folder, write(tmp_path, name, text))


def test_a_table_that_is_not_text(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not UTF-8"):
        load_captioned_images(folder, folder / "a.png")
    with pytest.raises(InputError, match="Cannot read the captions"):
        load_captioned_images(folder, tmp_path / "gone.csv")


def test_sources_that_are_none(folder: Path, tmp_path: Path) -> None:
    table = write(tmp_path, "c.csv", "image,caption\na.png,x\n")
    with pytest.raises(InputError, match="no folder or tar file"):
        load_captioned_images(tmp_path / "gone", table)
    with pytest.raises(InputError, match="neither a folder nor a tar file"):
        load_captioned_images(table, table)
    whole = gzip.compress(pack(folder, tmp_path / "x.tar").read_bytes())
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match="neither a folder nor a tar file"):
        load_captioned_images(tmp_path / "cut.tar.gz", table)
