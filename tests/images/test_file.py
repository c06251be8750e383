"""Files that are broken, large or odd: what is read of them, and that nothing else in the process is touched."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from PIL.PngImagePlugin import PngInfo

from fti4cir.errors import ImageError
from fti4cir.images import file as imagefile
from fti4cir.images.decode import CutImageWarning, DecodedImage, decode_image

RED = (255, 0, 0)


def gradient(width: int = 96, height: int = 64) -> Image.Image:
    """Coloured everywhere, and nowhere middle grey."""
    x, y = np.meshgrid(np.linspace(150, 250, width), np.linspace(0, 90, height))
    return Image.fromarray(np.stack([x, y, np.full_like(x, 40)], axis=-1).astype(np.uint8))


def saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def quietly(data: bytes, name: str = "x") -> DecodedImage:
    """Decoded without any warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return decode_image(data, name)


def chunk(kind: bytes, body: bytes, checksum: int | None = None) -> bytes:
    right = zlib.crc32(kind + body) if checksum is None else checksum
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", right)


def with_chunk(png: bytes, extra: bytes, before: bytes = b"IDAT") -> bytes:
    place = png.index(before) - 4
    return png[:place] + extra + png[place:]


class TestMetadataOfPng:
    @pytest.fixture
    def png(self) -> bytes:
        return saved(gradient(), "PNG")

    @pytest.mark.parametrize("before", [b"IDAT", b"IEND"])
    @pytest.mark.parametrize(
        "extra",
        [
            chunk(b"zTXt", b"Comment\0\0" + zlib.compress(b" " * 2_000_000)),
            chunk(b"iTXt", b"Comment\0\x01\0\0\0" + zlib.compress(b" " * 2_000_000)),
            chunk(b"zTXt", b"Comment\0\x07nonsense"),
            chunk(b"tEXt", b"Comment\0hello", checksum=1),
            chunk(b"gAMA", b"\0", checksum=2),
            chunk(b"pHYs", b"\0"),
            chunk(b"eXIf", b"garbage", checksum=3),
            chunk(b"iCCP", b"name\0\0" + zlib.compress(b"\0" * 2_000_000)),
            chunk(b"iCCP", b"name\0\0" + zlib.compress(b"\0" * 20_000_000)),
            chunk(b"iCCP", b"name\0\x09nonsense"),
            chunk(b"iCCP", b"name\0\0nonsense", checksum=4),
            chunk(b"acTL", b"\0\0"),
            chunk(b"fcTL", b"\0" * 30),
        ],
        ids=lambda extra: f"{extra[4:8].decode()}-{len(extra)}",
    )
    def test_the_pixels_are_read(self, png: bytes, extra: bytes, before: bytes) -> None:
        assert quietly(with_chunk(png, extra, before)).image.tobytes() == gradient().tobytes()

    def test_sixty_five_long_texts(self) -> None:
        texts = PngInfo()
        for number in range(70):
            texts.add_text(f"Comment {number}", " " * 1_000_000, zip=True)
        assert quietly(saved(gradient(), "PNG", pnginfo=texts)).image.tobytes() == gradient().tobytes()

    def test_what_decides_the_pixels_is_kept(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        palette = gradient().quantize(16)
        for image, options in (
            (gradient(), {"exif": exif}),
            (palette, {"transparency": 3}),
            (gradient().convert("L"), {"transparency": 20}),
        ):
            data = saved(image, "PNG", **options)
            broken = with_chunk(data, chunk(b"tEXt", b"a\0b", checksum=1))
            assert quietly(broken).image.tobytes() == quietly(data).image.tobytes()

    def test_pixels_with_a_wrong_checksum_of_the_header_are_not_trusted(self, png: bytes) -> None:
        with pytest.raises(ImageError, match="checksum"):
            decode_image(png[:29] + b"\0\0\0\0" + png[33:], "x")


class TestCutShort:
    @pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}], ids=str)
    @pytest.mark.parametrize("lost", [1, 2])
    def test_a_jpeg_without_its_last_bytes_is_whole(self, options: dict[str, object], lost: int) -> None:
        whole = saved(gradient(), "JPEG", **options)
        assert quietly(whole[:-lost]).image.tobytes() == quietly(whole).image.tobytes()

    @pytest.mark.parametrize("junk", [b"\n", b"\r\n\r\n", b"\xef\xbb\xbf", b"Warning: something\n", b"\0" * 100])
    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP"])
    def test_junk_in_front(self, kind: str, junk: bytes) -> None:
        whole = saved(gradient(), kind)
        assert quietly(junk + whole).image.tobytes() == quietly(whole).image.tobytes()

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "PPM", "GIF"])
    def test_the_larger_part_is_read_and_the_rest_said_to_be_missing(self, kind: str) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 100, (64, 64, 3), dtype=np.uint8))
        whole = saved(noise, kind, **({"interlace": 0} if kind == "GIF" else {}))
        with pytest.warns(CutImageWarning, match=r"'cut.x' is cut short or damaged: \d+ % of the image"):
            found = decode_image(whole[: len(whole) * 3 // 4], "cut.x")
        assert 0.15 < found.missing < 0.4
        expected, read = np.asarray(decode_image(whole, "x").image), np.asarray(found.image)
        rows = slice(34, 64) if kind == "BMP" else slice(0, 30)  # which begins at the lower edge
        assert np.array_equal(read[rows], expected[rows])
        assert (found.width, found.height) == (64, 64)
        assert tuple(read[0 if kind == "BMP" else 63, 63]) == (128, 128, 128)

    @pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "PPM", "GIF"])
    def test_where_more_than_half_is_missing_the_file_is_refused(self, kind: str) -> None:
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 100, (64, 64, 3), dtype=np.uint8))
        whole = saved(noise, kind)
        with pytest.raises(ImageError, match=r"'cut.x': \d+ % of the image is missing"):
            decode_image(whole[: len(whole) * 45 // 100], "cut.x")

    @pytest.mark.parametrize("kind", ["WEBP", "AVIF", "JPEG2000"])
    def test_formats_that_are_decoded_as_a_whole_are_refused(self, kind: str) -> None:
        whole = saved(gradient(), kind)
        with pytest.raises(ImageError):
            decode_image(whole[: len(whole) * 3 // 4], "x")

    def test_a_cut_image_that_lies_on_its_side_is_turned_with_its_missing_part(self) -> None:
        exif = Image.Exif()
        exif[0x0112] = 6
        noise = Image.fromarray(np.random.default_rng(0).integers(0, 100, (64, 96, 3), dtype=np.uint8))
        for kind in ("JPEG", "TIFF"):
            whole = saved(noise, kind, exif=exif)
            with pytest.warns(CutImageWarning):
                found = decode_image(whole[: len(whole) * 3 // 4], "x")
            assert (found.width, found.height) == found.image.size == (64, 96)
            assert found.image.getpixel((0, 90)) == (128, 128, 128)  # the end of the file is at the left

    def test_no_setting_of_pillow_is_changed_while_threads_decode(self) -> None:
        """Others in the process would read cut files without knowing it, if one were."""
        cut = saved(gradient(400, 300), "JPEG")[:-500]
        seen: set[object] = set()
        stop = threading.Event()

        def watch() -> None:
            while not stop.is_set():
                seen.add((ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS))

        watcher = threading.Thread(target=watch)
        watcher.start()
        before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
        for _ in range(20):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                decode_image(cut, "x")
        stop.set()
        watcher.join()
        assert seen == {before}


class TestMemory:
    def test_a_jpeg_over_the_limit_is_decoded_at_a_fraction(self, monkeypatch: pytest.MonkeyPatch) -> None:
        data = saved(gradient(1000, 600), "JPEG")
        monkeypatch.setattr(imagefile, "MOST_MEMORY", 4 * 1000 * 600)
        assert quietly(data).image.size == (1000, 600)
        monkeypatch.setattr(imagefile, "MOST_MEMORY", 4 * 1000 * 600 - 4)
        found = quietly(data)
        assert found.image.size == (500, 300)
        assert (found.width, found.height) == (1000, 600)
        assert decode_image(data, "x", at_least=100).image.size == (250, 150)

    @pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "GIF", "BMP", "AVIF", "PPM"])
    def test_another_format_over_the_limit_is_refused_in_plain_words(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data = saved(gradient(1000, 600), kind)
        monkeypatch.setattr(imagefile, "MOST_MEMORY", 4 * 1000 * 600 - 4)
        with pytest.raises(ImageError) as caught:
            decode_image(data, "x")
        assert "1000 by 600 pixels" in str(caught.value)
        assert "of memory" in str(caught.value)
        assert "save it smaller" in str(caught.value)

    def test_a_progressive_jpeg_keeps_all_coefficients_and_has_a_limit(self, monkeypatch: pytest.MonkeyPatch) -> None:
        plain, progressive = (saved(gradient(800, 800), "JPEG", progressive=flag) for flag in (False, True))
        monkeypatch.setattr(imagefile, "MOST_COEFFICIENTS", 2 * 800 * 800 * 3 // 2 - 1)
        quietly(plain)
        with pytest.raises(ImageError, match="progressive JPEG of 800 by 800"):
            decode_image(progressive, "x", at_least=8)

    @pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the memory of a process is read from /proc")
    def test_a_phones_200_megapixels_and_a_panorama_are_read(self, tmp_path: Path) -> None:
        """In a process of its own, to know what memory it takes."""
        code = """
import sys
from PIL import Image
Image.MAX_IMAGE_PIXELS = None  # here the file is made
from fti4cir.images.decode import decode_image
width, height = map(int, sys.argv[1].split("x"))
image = Image.new("L", (width, height), 200)
image.save(sys.argv[2], quality=20)
del image
Image.MAX_IMAGE_PIXELS = 1024 * 1024 * 1024 // 4 // 3
found = decode_image(open(sys.argv[2], "rb").read(), "x", at_least=448)
assert (found.width, found.height) == (width, height), found
assert min(found.image.size) >= 448
assert abs(found.image.getpixel((9, 9))[0] - 200) < 4, found.image.getpixel((9, 9))
# Not by `getrusage`, which begins with what the process that started this one took.
[peak] = [line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")]
print(peak)
"""
        for size in ("16320x12240", "20000x20000"):
            done = subprocess.run(
                [sys.executable, "-c", code, size, str(tmp_path / "x.jpg")], capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
            assert done.stderr == ""
            assert int(done.stdout) < 900_000  # KiB, of which making the file takes 400,000


class TestOddDepths:
    def tiff(self, values: np.ndarray, photometric: int, kind: int, order: str) -> bytes:
        """One row of grey values; `kind` is 1 for integers without a sign, 2 with, 3 for floats."""
        bits, (height, width) = 8 * values.itemsize, values.shape
        tags = [(256, width), (257, height), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 9 * 12 + 4)]
        tags += [(277, 1), (279, values.nbytes), (339, kind)]
        data = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, len(tags))
        for tag, value in tags:
            data += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
        return data + b"\0\0\0\0" + values.astype(values.dtype.newbyteorder(order)).tobytes()

    @pytest.mark.parametrize("order", "<>")
    @pytest.mark.parametrize("white_is_zero", [True, False])
    @pytest.mark.parametrize(
        ("values", "kind"),
        [
            (np.array([[0, 32768, 65535]], dtype=np.uint16), 1),
            (np.array([[0, 2**31, 2**32 - 1]], dtype=np.uint32), 1),
            (np.array([[0, 0.5, 1]], dtype=np.float32), 3),
        ],
        ids=["16", "32", "float"],
    )
    def test_grey_tiff(self, values: np.ndarray, kind: int, white_is_zero: bool, order: str) -> None:
        image = quietly(self.tiff(values, 0 if white_is_zero else 1, kind, order)).image
        expected = [255, 128, 0] if white_is_zero else [0, 128, 255]
        assert np.abs(np.asarray(image)[0, :, 0].astype(int) - expected).max() <= 1

    def png(self, depth: int, colour: int, row: bytes, width: int, transparent: bytes) -> bytes:
        header = struct.pack(">2I5B", width, 1, depth, colour, 0, 0, 0)
        chunks = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row)), (b"IEND", b"")]
        return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, body) for kind, body in chunks)

    @pytest.mark.parametrize(
        ("depth", "colour", "row", "transparent", "expected"),
        [
            (16, 0, struct.pack(">2H", 1000, 40000), struct.pack(">H", 1000), [255, 156]),
            (8, 0, bytes([10, 200]), struct.pack(">H", 10), [255, 200]),
            (4, 0, bytes([0x1F]), struct.pack(">H", 1), [255, 255]),
            (4, 0, bytes([0x18]), struct.pack(">H", 1), [255, 136]),
            (2, 0, bytes([0b01100000]), struct.pack(">H", 1), [255, 170]),
            (16, 2, struct.pack(">6H", *[2570] * 3, *[51400] * 3), struct.pack(">3H", *[2570] * 3), [255, 200]),
        ],
    )
    def test_a_transparent_value_of_any_depth_is_white(
        self, depth: int, colour: int, row: bytes, transparent: bytes, expected: list[int]
    ) -> None:
        image = quietly(self.png(depth, colour, row, 2, transparent)).image
        assert np.asarray(image)[0, :, 0].tolist() == expected


class TestFormats:
    @pytest.mark.parametrize("brand", ["HEIF", "AVIF", "JPEG2000", "PPM"])
    def test_further_formats(self, brand: str) -> None:
        if brand == "HEIF":
            pillow_heif = pytest.importorskip("pillow_heif")
            buffer = io.BytesIO()
            pillow_heif.from_pillow(gradient()).save(buffer, quality=95)
            data = buffer.getvalue()
        else:
            data = saved(gradient(), brand)
        found = quietly(data)
        assert (found.width, found.height) == (96, 64)
        assert np.abs(np.asarray(found.image).astype(int) - np.asarray(gradient())).max() < 20

    @pytest.mark.parametrize("orientation", [1, 3, 6, 8])
    def test_a_turned_heic_is_upright_once(self, orientation: int) -> None:
        pillow_heif = pytest.importorskip("pillow_heif")
        exif = Image.Exif()
        exif[0x0112] = orientation
        buffer = io.BytesIO()
        heif = pillow_heif.from_pillow(gradient())
        heif.save(buffer, quality=95, exif=exif.tobytes())
        found = quietly(buffer.getvalue())
        assert found.image.size == (found.width, found.height)
        jpeg = quietly(saved(gradient(), "JPEG", exif=exif))
        assert found.image.size == jpeg.image.size
        assert np.abs(np.asarray(found.image).astype(int) - np.asarray(jpeg.image)).max() < 40

    def test_a_heic_cut_short_is_refused_with_a_reason(self) -> None:
        pillow_heif = pytest.importorskip("pillow_heif")
        buffer = io.BytesIO()
        pillow_heif.from_pillow(gradient()).save(buffer)
        with pytest.raises(ImageError, match=r"Cannot read 'x\.heic': (?!it is not an image)"):
            decode_image(buffer.getvalue()[:-100], "x.heic")

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"8BPS\0\1" + b"\0" * 40, "Photoshop"),
            (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
            (b"\xff\x0a" + b"\1" * 40, "JPEG XL"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
            (b"\0\0\0\x18ftypcrx " + b"\0" * 40, "camera RAW"),
        ],
    )
    def test_a_kind_that_is_not_supported_is_named(self, data: bytes, words: str) -> None:
        with pytest.raises(ImageError, match=rf"{words}\) is not supported; export it as JPEG or PNG"):
            decode_image(data, "x.jpg")

    def test_of_a_raw_file_no_preview_is_passed_off_as_the_image(self) -> None:
        with pytest.raises(ImageError, match="camera RAW"):
            decode_image(saved(gradient(), "TIFF"), "x.NEF")

    def test_pillow_itself_opens_no_more_than_before(self) -> None:
        code = (
            "from PIL import Image; Image.init(); before = set(Image.OPEN)\n"
            "from fti4cir.images.decode import decode_image\n"
            "try: decode_image(b'\\0\\0\\0\\x18ftypheic' + b'\\0' * 40, 'x')\n"
            "except Exception as error: print(error)\n"
            "assert set(Image.OPEN) == before"
        )
        subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
