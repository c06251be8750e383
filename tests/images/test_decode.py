"""Images of every kind, and files that are none."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from fti4cir.errors import ImageError, InputError
from fti4cir.images import decode as pictures
from fti4cir.images.decode import content_digest, decode_image, find_images, open_image

# Pillow warns of broken metadata, which is what some of these tests give it.
pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning:PIL"),
    pytest.mark.filterwarnings("ignore::fti4cir.images.decode.CutImageWarning"),
]

RED, BLUE = (255, 0, 0), (0, 0, 255)


def halves(left: tuple[int, int, int] = RED, right: tuple[int, int, int] = BLUE) -> Image.Image:
    """64 x 32, the left half of one colour, the right half of another."""
    image = Image.new("RGB", (64, 32), left)
    image.paste(right, (32, 0, 64, 32))
    return image


def near(pixel: object, expected: tuple[int, int, int], tolerance: int = 12) -> bool:
    return isinstance(pixel, tuple) and all(abs(a - b) <= tolerance for a, b in zip(pixel, expected, strict=True))


class TestFindImages:
    def names(self, folder: Path) -> list[str]:
        return [path.relative_to(folder).as_posix() for path in find_images(folder)]

    def test_nested_sorted_by_extension_hidden_left_out(self, tmp_path: Path) -> None:
        wanted = ["b.JPG", "a/z.png", "a/with space.webp", "日本/гора.gif", "c.jpeg", "d.bmp", "e.tif", "f.tiff"]
        for name in [*wanted, "notes.txt", ".hidden.jpg", ".dir/x.jpg", "a/.fti4cir/y.png", "jpg"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert self.names(tmp_path) == [
            path.relative_to(tmp_path).as_posix() for path in sorted(map(tmp_path.joinpath, wanted))
        ]

    def test_link_loops_end_and_find_each_image_once(self, tmp_path: Path) -> None:
        folder = tmp_path / "outer" / "folder"
        (folder / "a_real").mkdir(parents=True)
        (folder / "a_real" / "x.jpg").touch()
        (tmp_path / "outer" / "sibling.jpg").touch()
        (folder / "a_real" / "loop").symlink_to("..")
        (folder / "self").symlink_to(".")
        (folder / "parent").symlink_to("..")
        (folder / "root").symlink_to("/")
        (folder / "0_same").symlink_to("a_real")
        assert self.names(folder) == ["a_real/x.jpg"]

    def test_a_linked_folder_elsewhere_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "disk").mkdir()
        (tmp_path / "disk" / "x.jpg").touch()
        (tmp_path / "folder").mkdir()
        (tmp_path / "folder" / "more").symlink_to(tmp_path / "disk")
        (tmp_path / "disk" / "back").symlink_to(tmp_path / "folder")
        assert self.names(tmp_path / "folder") == ["more/x.jpg"]

    def test_links_to_files_even_those_that_lead_nowhere(self, tmp_path: Path) -> None:
        (tmp_path / "gone.jpg").symlink_to("nowhere")
        (tmp_path / "round.jpg").symlink_to("round.jpg")
        assert self.names(tmp_path) == ["gone.jpg", "round.jpg"]
        for path in find_images(tmp_path):
            with pytest.raises(ImageError, match=path.name):
                open_image(path)

    def test_a_folder_called_like_an_image_is_a_folder(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").mkdir()
        (tmp_path / "x.jpg" / "y.jpg").touch()
        assert self.names(tmp_path) == ["x.jpg/y.jpg"]

    def test_missing_or_no_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no folder '.*gone'"):
            find_images(tmp_path / "gone")
        (tmp_path / "file").touch()
        with pytest.raises(InputError, match="is not a folder"):
            find_images(tmp_path / "file")

    def test_what_systems_leave_behind_is_left_out(self, tmp_path: Path) -> None:
        left = ["@eaDir/x.jpg/SYNOPHOTO_THUMB_M.jpg", "#recycle/x.jpg", ".thumbnails/x.jpg", "__MACOSX/._x.jpg"]
        left += ["$RECYCLE.BIN/S-1-5-21/x.jpg", "lost+found/x.jpg", ".Trash-1000/files/x.jpg", "@Recycle/x.jpg"]
        left += ["System Volume Information/x.png", "#snapshot/x.jpg", "._x.jpg", "Thumbs.db", "desktop.ini"]
        for name in [*left, *(f"deep/{name}" for name in left), "x.jpg", "recycle/y.jpg"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        assert self.names(tmp_path) == ["recycle/y.jpg", "x.jpg"]
        assert find_images(tmp_path / "@eaDir") != []  # whoever asks for one by name wants it

    def test_every_format_that_is_read_is_found(self, tmp_path: Path) -> None:
        names = ["a.HEIC", "b.heif", "c.hif", "d.avif", "e.jp2", "f.j2k", "g.jpe", "h.mpo", "i.ppm", "j.apng", "k.dib"]
        for name in names:
            (tmp_path / name).touch()
        assert self.names(tmp_path) == names

    def test_images_of_other_kinds_are_named(self, tmp_path: Path) -> None:
        kinds = {"a.CR2": "camera RAW", "b.psd": "Photoshop", "c.svg": "SVG", "d.jxl": "JPEG XL", "e.dng": "camera RAW"}
        for name in [*kinds, "x.jpg", "notes.txt", ".hidden.psd", "@eaDir/y.psd", "film.mp4", "Thumbs.db"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        seen: dict[str, str] = {}
        found = find_images(tmp_path, on_unsupported=lambda path, kind: seen.update({path.name: kind}))
        assert [path.name for path in found] == ["x.jpg"]
        assert seen == kinds

    def test_a_folder_that_cannot_be_listed(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "shut").mkdir()
        (tmp_path / "x.jpg").touch()
        real = os.scandir

        def scandir(path: Path) -> object:
            if path.name == "shut":
                raise PermissionError(13, "Permission denied", str(path))
            return real(path)

        monkeypatch.setattr(pictures.os, "scandir", scandir)
        with pytest.raises(InputError, match=r"shut.*Permission denied"):
            find_images(tmp_path)
        errors: list[OSError] = []
        assert find_images(tmp_path, on_error=errors.append) == [tmp_path / "x.jpg"]
        assert [error.filename for error in errors] == [str(tmp_path / "shut")]


class TestKinds:
    @pytest.mark.parametrize("extension", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
    def test_formats(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"x.{extension}"
        halves().save(path)
        image = open_image(path)
        assert (image.mode, image.size) == ("RGB", (64, 32))
        assert near(image.getpixel((10, 10)), RED)
        assert near(image.getpixel((50, 10)), BLUE)

    def test_the_name_does_not_matter(self, tmp_path: Path) -> None:
        halves().save(tmp_path / "x.png", format="JPEG")
        assert open_image(tmp_path / "x.png").size == (64, 32)

    @pytest.mark.parametrize("extension", ["gif", "webp", "png", "tiff"])
    def test_first_frame(self, tmp_path: Path, extension: str) -> None:
        path = tmp_path / f"x.{extension}"
        Image.new("RGB", (20, 20), RED).save(path, save_all=True, append_images=[Image.new("RGB", (20, 20), BLUE)])
        assert near(open_image(path).getpixel((5, 5)), RED)

    @pytest.mark.parametrize("extension", ["jpg", "png", "webp", "tiff"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_every_orientation_is_made_upright(self, tmp_path: Path, extension: str, orientation: int) -> None:
        upright = Image.new("RGB", (64, 32), "white")
        upright.paste(RED, (0, 0, 16, 16))  # red at the upper left
        undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # the transposition that a viewer takes back
        stored = upright if orientation == 1 else upright.transpose(Image.Transpose(undo[orientation]))
        exif = Image.Exif()
        exif[0x0112] = orientation
        path = tmp_path / f"x.{extension}"
        stored.save(path, exif=exif)
        image = open_image(path)
        assert image.size == (64, 32)
        assert near(image.getpixel((4, 4)), RED, 40)
        assert near(image.getpixel((60, 4)), (255, 255, 255), 40)
        assert near(image.getpixel((4, 28)), (255, 255, 255), 40)
        again = open_image(image)
        assert again.tobytes() == image.tobytes()
        assert open_image(Image.open(path)).tobytes() == image.tobytes()
        decoded = decode_image(path.read_bytes(), path, at_least=8)
        assert (decoded.width, decoded.height) == (64, 32)

    def test_broken_exif_does_not_spoil_the_image(self, tmp_path: Path) -> None:
        halves().save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xffgarbage")
        assert open_image(tmp_path / "x.jpg").size == (64, 32)

    @pytest.mark.parametrize("name", ["x.jpg", "x.tiff"])
    def test_cmyk_inverted_by_adobe_in_jpeg_and_plain_in_tiff(self, tmp_path: Path, name: str) -> None:
        halves().convert("CMYK").save(tmp_path / name)
        if name == "x.jpg":
            assert b"Adobe" in (tmp_path / name).read_bytes()
        assert near(open_image(tmp_path / name).getpixel((10, 10)), RED)
        assert near(open_image(tmp_path / name).getpixel((50, 10)), BLUE)

    def test_greyscale_and_one_bit(self, tmp_path: Path) -> None:
        Image.new("L", (20, 20), 100).save(tmp_path / "x.jpg")
        assert near(open_image(tmp_path / "x.jpg").getpixel((5, 5)), (100, 100, 100))
        Image.new("1", (20, 20), 1).save(tmp_path / "x.png")
        assert open_image(tmp_path / "x.png").getpixel((5, 5)) == (255, 255, 255)

    def test_transparent_becomes_white(self, tmp_path: Path) -> None:
        rgba = Image.new("RGBA", (20, 20), (0, 0, 0, 0))
        rgba.paste((255, 0, 0, 255), (0, 0, 10, 20))
        rgba.paste((0, 0, 0, 128), (0, 10, 10, 20))
        for path in (tmp_path / "x.png", tmp_path / "x.webp"):
            rgba.save(path, lossless=True)
            image = open_image(path)
            assert image.getpixel((15, 5)) == (255, 255, 255)
            assert image.getpixel((5, 5)) == RED
            assert near(image.getpixel((5, 15)), (127, 127, 127), 2)
        Image.new("LA", (20, 20), (0, 0)).save(tmp_path / "la.png")
        assert open_image(tmp_path / "la.png").getpixel((5, 5)) == (255, 255, 255)

    @pytest.mark.parametrize("name", ["x.png", "x.gif"])
    def test_palette_with_transparency(self, tmp_path: Path, name: str) -> None:
        image = Image.new("P", (20, 20), 0)
        image.putpalette([0, 0, 0, 255, 0, 0])
        image.paste(1, (0, 0, 10, 20))
        image.save(tmp_path / name, transparency=0)
        opened = open_image(tmp_path / name)
        assert opened.getpixel((5, 5)) == RED
        assert opened.getpixel((15, 5)) == (255, 255, 255)

    @pytest.mark.parametrize("name", ["x.png", "x.tiff"])
    def test_16_bit_is_scaled_not_clipped(self, tmp_path: Path, name: str) -> None:
        ramp = np.linspace(0, 65535, 256).round().astype(np.uint16)
        Image.fromarray(np.tile(ramp, (4, 1))).save(tmp_path / name)
        grey = np.asarray(open_image(tmp_path / name))[0, :, 0].astype(int)
        assert np.abs(grey - np.arange(256)).max() <= 1

    def test_16_bit_rgb(self, tmp_path: Path) -> None:
        rows = b"".join(b"\0" + struct.pack(">3H", 65535, 32768, 257) * 2 for _ in range(2))
        data = b"\x89PNG\r\n\x1a\n"
        for kind, body in (
            (b"IHDR", struct.pack(">2I5B", 2, 2, 16, 2, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows)),
            (b"IEND", b""),
        ):
            data += struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        (tmp_path / "x.png").write_bytes(data)
        assert near(open_image(tmp_path / "x.png").getpixel((0, 0)), (255, 128, 1), 1)

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ([0.0, 0.5, 1.0], [0, 128, 255]),
            ([0.0, 128.0, 255.0], [0, 128, 255]),
            ([0.0, 32768.0, 65535.0], [0, 128, 255]),
            ([-1.0, 0.0, 1.0], [0, 128, 255]),
            ([0.0, np.nan, np.inf], [0, 0, 255]),
            ([1e6, 2e6, 3e6], [0, 128, 255]),
        ],
    )
    def test_floats(self, tmp_path: Path, values: list[float], expected: list[int]) -> None:
        Image.fromarray(np.array([values], dtype=np.float32)).save(tmp_path / "x.tiff")
        grey = np.asarray(open_image(tmp_path / "x.tiff"))[0, :, 0].astype(int)
        if np.isinf(values).any():
            assert grey[0] == grey[1]  # not a number is as dark as the darkest
        else:
            assert np.abs(grey - expected).max() <= 1

    @pytest.mark.parametrize("order", ["<", ">"])
    def test_compressed_floats_of_either_byte_order(self, tmp_path: Path, order: str) -> None:
        pixels = zlib.compress(np.array([[0.0, 0.5, 1.0]], dtype=f"{order}f4").tobytes())
        pixels += b"\0" * (len(pixels) % 2)
        fields = {256: 3, 257: 1, 258: 32, 259: 8, 262: 1, 273: 8, 277: 1, 278: 1, 279: len(pixels), 339: 3}
        data = {"<": b"II", ">": b"MM"}[order] + struct.pack(f"{order}HI", 42, 8 + len(pixels)) + pixels
        data += struct.pack(f"{order}H", len(fields))
        data += b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in fields.items())
        (tmp_path / "x.tif").write_bytes(data + bytes(4))
        grey = np.asarray(open_image(tmp_path / "x.tif"))[0, :, 0]
        assert grey.tolist() == [0, 128, 255]

    def test_32_bit_integers(self, tmp_path: Path) -> None:
        Image.fromarray(np.array([[0, 32768, 65535]], dtype=np.int32)).save(tmp_path / "x.tiff")
        assert np.abs(np.asarray(open_image(tmp_path / "x.tiff"))[0, :, 0].astype(int) - [0, 128, 255]).max() <= 1

    def test_constant_float_image(self) -> None:
        assert open_image(Image.new("F", (3, 3), 1e9)).size == (3, 3)


class TestArrays:
    def test_colour_grey_and_opacity(self) -> None:
        colour = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        assert np.array_equal(np.asarray(open_image(colour)), colour)
        assert np.array_equal(np.asarray(open_image(colour[::2, ::-1])), colour[::2, ::-1])
        assert np.array_equal(np.asarray(open_image(colour[:, :, 0])), np.repeat(colour[:, :, :1], 3, axis=2))
        clear = np.zeros((2, 2, 4), dtype=np.uint8)
        assert open_image(clear).getpixel((0, 0)) == (255, 255, 255)

    @pytest.mark.parametrize(
        "wrong",
        [
            np.zeros((20, 30, 3), dtype=np.float32),
            np.zeros((20, 30), dtype=bool),
            np.zeros((3, 20, 30), dtype=np.uint8),
            np.zeros((2, 20, 30, 3), dtype=np.uint8),
            np.zeros((0, 30, 3), dtype=np.uint8),
            np.zeros(30, dtype=np.uint8),
            b"bytes",
            [[1, 2], [3, 4]],
            None,
            7,
        ],
        ids=lambda wrong: type(wrong).__name__,
    )
    def test_anything_else_is_refused_with_what_is_taken(self, wrong: object) -> None:
        with pytest.raises(InputError, match=r"path of a file, a PIL image, or a NumPy array of uint8, \(H, W, 3\)"):
            open_image(wrong)  # type: ignore[arg-type]

    def test_a_pil_image_without_pixels(self) -> None:
        with pytest.raises(ImageError, match="no pixels"):
            open_image(Image.new("RGB", (0, 5)))


class TestAtLeast:
    def test_a_large_jpeg_is_decoded_smaller_but_not_too_small(self, tmp_path: Path) -> None:
        halves().resize((2000, 1000)).save(tmp_path / "x.jpg")
        small = open_image(tmp_path / "x.jpg", at_least=224)
        assert 224 <= min(small.size) < 500
        assert near(small.getpixel((10, 10)), RED)
        decoded = decode_image((tmp_path / "x.jpg").read_bytes(), "x.jpg", at_least=224)
        assert (decoded.width, decoded.height) == (2000, 1000)
        assert open_image(tmp_path / "x.jpg").size == (2000, 1000)

    def test_odd_sizes_are_reported_exactly(self, tmp_path: Path) -> None:
        Image.new("RGB", (1000, 999)).save(tmp_path / "x.jpg")
        decoded = decode_image((tmp_path / "x.jpg").read_bytes(), "x.jpg", at_least=100)
        assert (decoded.width, decoded.height) == (1000, 999)
        assert decoded.image.width < 1000

    def test_a_small_jpeg_stays_as_it_is(self, tmp_path: Path) -> None:
        halves().save(tmp_path / "x.jpg")
        assert open_image(tmp_path / "x.jpg", at_least=224).size == (64, 32)


class TestBroken:
    def refused(self, path: Path, *words: str) -> None:
        with pytest.raises(ImageError) as caught:
            open_image(path)
        message = str(caught.value)
        assert str(path) in message
        assert "\n" not in message
        for word in words:
            assert word in message

    def test_empty(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").touch()
        self.refused(tmp_path / "x.jpg", "the file is empty")

    def test_html_saved_as_jpg(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").write_text("\n<!DOCTYPE html><html><body>404</body></html>")
        self.refused(tmp_path / "x.jpg", "not an image", "web page")

    def test_noise(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").write_bytes(bytes(range(256)) * 8)
        self.refused(tmp_path / "x.jpg", "not an image")

    @pytest.mark.parametrize("extension", ["jpg", "png", "webp", "gif", "bmp", "tiff"])
    def test_truncated(self, tmp_path: Path, extension: str) -> None:
        noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        whole = io.BytesIO()
        Image.fromarray(noise).save(whole, format={"jpg": "JPEG"}.get(extension, extension.upper()))
        path = tmp_path / f"x.{extension}"
        path.write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
        self.refused(path)

    def test_postscript_is_never_run(self, tmp_path: Path) -> None:
        (tmp_path / "x.jpg").write_bytes(
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"
        )
        self.refused(tmp_path / "x.jpg", "its format (PostScript) is not supported")

    def test_folder_missing_and_pipe(self, tmp_path: Path) -> None:
        self.refused(tmp_path, "not a file")
        self.refused(tmp_path / "gone.jpg", "No such file")
        os.mkfifo(tmp_path / "pipe.jpg")
        self.refused(tmp_path / "pipe.jpg", "not a file")

    def test_null_character_in_the_name(self) -> None:
        with pytest.raises(ImageError):
            open_image("a\0b.jpg")

    def test_no_permission(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def read_bytes(path: Path) -> bytes:
            raise PermissionError(13, "Permission denied", str(path))

        halves().save(tmp_path / "x.jpg")
        monkeypatch.setattr(Path, "read_bytes", read_bytes)
        self.refused(tmp_path / "x.jpg", "Permission denied")

    def test_a_broken_file_opened_lazily_by_the_caller(self, tmp_path: Path) -> None:
        halves().resize((300, 300)).save(tmp_path / "x.jpg")
        data = (tmp_path / "x.jpg").read_bytes()
        (tmp_path / "x.jpg").write_bytes(data[: len(data) // 2])
        with pytest.raises(ImageError, match=r"x\.jpg"):
            open_image(Image.open(tmp_path / "x.jpg"))

    @settings(max_examples=150, deadline=None)
    @given(data=st.data())
    def test_damage_anywhere_is_an_image_or_an_image_error(self, data: st.DataObject) -> None:
        whole = bytearray(data.draw(st.sampled_from(_SEEDS)))
        for _ in range(data.draw(st.integers(1, 8))):
            whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
        try:
            decoded = decode_image(bytes(whole), "x", at_least=8)
        except ImageError:
            return
        assert decoded.image.mode == "RGB"


def _seeds() -> list[bytes]:
    seeds = []
    for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"):
        buffer = io.BytesIO()
        halves().save(buffer, format=kind)
        seeds.append(buffer.getvalue())
    return seeds


_SEEDS = _seeds()


def test_digest_tells_contents_apart() -> None:
    assert content_digest(b"a") == content_digest(b"a") != content_digest(b"b")
    assert len(content_digest(b"")) == 32
