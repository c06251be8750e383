"""The preprocessing of CLIP against a second version, written down as the release and torchvision have it."""

import tracemalloc

import numpy as np
import pytest
from PIL import Image, ImageOps

from fti4cir.backbones import mini
from fti4cir.images.preprocess import padding, square


def reference(image: Image.Image, size: int) -> Image.Image:
    """The release's TargetPad(1.25), then torchvision's Resize(size, bicubic) and CenterCrop(size), step by step."""
    w, h = image.size
    if max(w, h) / min(w, h) >= 1.25:
        scaled_max_wh = max(w, h) / 1.25
        hp = max(int((scaled_max_wh - w) / 2), 0)
        vp = max(int((scaled_max_wh - h) / 2), 0)
        image = ImageOps.expand(image, (hp, vp, hp, vp), fill=0)
    w, h = image.size
    short, long = (w, h) if w <= h else (h, w)
    new_short, new_long = size, int(size * long / short)
    image = image.resize((new_short, new_long) if w <= h else (new_long, new_short), Image.Resampling.BICUBIC)
    crop_top = int(round((image.height - size) / 2.0))  # noqa: RUF046
    crop_left = int(round((image.width - size) / 2.0))  # noqa: RUF046
    return image.crop((crop_left, crop_top, crop_left + size, crop_top + size))


def noise(random: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("size", [32, 37, 224])
def test_the_same_pixels_as_the_release_at_random_sizes(size: int) -> None:
    random = np.random.default_rng(size)
    for _ in range(100):
        image = noise(random, *(int(side) for side in random.integers(1, 700, 2)))
        assert square(image, size).tobytes() == reference(image, size).tobytes(), image.size


@pytest.mark.parametrize(
    "sides", [(500, 400), (400, 500), (499, 400), (501, 400), (224, 224), (448, 224), (1, 900), (900, 1), (225, 224)]
)
def test_the_same_pixels_at_the_edges_of_each_rule(sides: tuple[int, int]) -> None:
    image = noise(np.random.default_rng(0), *sides)
    assert square(image, 224).tobytes() == reference(image, 224).tobytes()


def test_padding_is_two_equal_halves_rounded_down() -> None:
    assert padding(640, 480) == (0, 16)
    assert padding(480, 640) == (16, 0)
    assert padding(641, 480) == (0, 16)  # 512.8 less 480 is 32.8
    assert padding(499, 400) == (0, 0)


@pytest.mark.parametrize("sides", [(20000, 2), (2, 20000)])
def test_a_panorama_takes_little_memory(sides: tuple[int, int]) -> None:
    """Padded at its full size it would be 1.3 GB; Pillow's own blocks are counted by size, for it allocates in C."""
    made: list[int] = []
    real = Image.core.new, Image.core.fill

    def counted(which: int):  # type: ignore[no-untyped-def]
        def make(mode, size, *rest):  # type: ignore[no-untyped-def]
            made.append(size[0] * size[1])
            return real[which](mode, size, *rest)

        return make

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Image.core, "new", counted(0))
        patch.setattr(Image.core, "fill", counted(1))
        tracemalloc.start()
        assert square(Image.new("RGB", sides, "red"), 224).size == (224, 224)
        tracemalloc.stop()
    assert made
    assert max(made) < 10_000_000


def test_mini_keeps_the_pixels_that_it_was_trained_with() -> None:
    """Padded to the rounded size, the odd pixel at the right and below; cropped at half the excess, rounded down."""
    random = np.random.default_rng(1)
    for _ in range(60):
        image = noise(random, *(int(side) for side in random.integers(2, 600, 2)))
        width, height = image.size
        short = round(max(width, height) / 1.25)
        wide, high = max(width, short), max(height, short)
        if min(wide, high) > 4 * 224:
            continue
        padded = Image.new("RGB", (wide, high))
        padded.paste(image, ((wide - width) // 2, (high - height) // 2))
        size = (224, int(224 * high / wide)) if wide < high else (int(224 * wide / high), 224)
        resized = padded.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
        expected = resized.crop((left, top, left + 224, top + 224))
        assert mini.square(image).tobytes() == expected.tobytes(), image.size


def test_minis_pixels_are_recorded() -> None:
    """Of one image of each shape, as the version that trained `mini` made them."""
    import hashlib

    digest = hashlib.sha256()
    random = np.random.default_rng(2)
    for sides in [(224, 224), (640, 480), (333, 501), (3000, 40), (40, 3000), (1999, 1333)]:
        digest.update(mini.square(noise(random, *sides)).tobytes())
    assert digest.hexdigest()[:16] == "0d75c36fabfcaf60"
