"""A model's public methods."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

from fti4cir.backbones.base import VisionFeatures, image_fingerprint
from fti4cir.backbones.clip import ClipEncoder
from fti4cir.errors import ImageError, InputError, ModelError
from fti4cir.images.decode import open_image
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion, InversionConfig
from fti4cir.inversion.prompts import Slot
from fti4cir.models.model import Model
from fti4cir.models.queries import Queries
from tinyclip import JOINT, TOKEN, VISION, picture, random_inversion

pytestmark = pytest.mark.numeric


@pytest.fixture(scope="module")
def model(encoder: ClipEncoder) -> Model:
    return Model(encoder, random_inversion(threshold=0.2), "tiny")


def test_features_are_unit_length(model: Model) -> None:
    for features in (
        model.encode_images([picture(seed) for seed in range(3)]),
        model.encode_texts(["a red dog", "*", "🐕"]),
        model.compose([picture(seed) for seed in range(3)], ["is red", "* and *", "🐕"]),
    ):
        assert features.shape == (3, JOINT)
        assert features.dtype == torch.float32
        torch.testing.assert_close(features.norm(dim=-1), torch.ones(3))


def test_batches_make_no_difference(model: Model) -> None:
    pictures, texts = [picture(seed) for seed in range(5)], ["is red", "a cat", "dog", "black grass", "with a dog"]
    one, all_at_once = (model.compose(pictures, texts, batch_size=size) for size in (1, 5))
    torch.testing.assert_close(one, all_at_once, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.encode_texts(texts, 2), model.encode_texts(texts), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(model.encode_images(pictures, 2), model.encode_images(pictures), rtol=1e-5, atol=1e-5)


def test_paths_and_images(model: Model, tmp_path: object) -> None:
    path = f"{tmp_path}/a.png"
    picture().save(path)
    torch.testing.assert_close(model.encode_images([path]), model.encode_images([picture()]))


def test_arrays_are_images_everywhere(model: Model) -> None:
    image = picture()
    array = np.asarray(image)
    torch.testing.assert_close(model.encode_images([array]), model.encode_images([image]))
    torch.testing.assert_close(model.compose([array], ["is red"]), model.compose([image], ["is red"]))
    assert model.explain(array).source == ""
    for many in (array, image, "a.jpg", np.stack([array, array])):
        for call in (model.encode_images, model.features, lambda images: model.compose(images, ["is red"])):
            with pytest.raises(InputError, match="must be a list"):
                call(many)  # type: ignore[arg-type]
    for none in (None, 5):
        with pytest.raises(InputError, match="must be a list"):
            model.encode_images(none)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="not Tensor"):
        model.encode_images(torch.zeros(2, 3, 8, 8))  # type: ignore[arg-type]
    with pytest.raises(InputError, match="NumPy array of uint8"):
        model.encode_images([array / 255])  # type: ignore[list-item]
    with pytest.raises(InputError, match="NumPy array of uint8"):
        model.encode_images([torch.zeros(3, 8, 8)])  # type: ignore[list-item]


def test_texts_of_wrong_types(model: Model) -> None:
    for text in (None, b"is red", 5):
        for call in (model.encode_texts, lambda texts: model.compose([picture()], texts)):
            with pytest.raises(InputError, match="A text is a string, not"):
                call([text])  # type: ignore[list-item]
    for texts in (None, 5):
        with pytest.raises(InputError, match="Texts come as a list, not as"):
            model.encode_texts(texts)  # type: ignore[arg-type]
    assert model.encode_texts(text for text in ["is red", "is blue"]).shape[0] == 2  # type: ignore[arg-type]


def test_files_are_decoded_exactly(model: Model, tmp_path: Path) -> None:
    """Also those far larger than the input: a fraction of their size would give other pixels."""
    picture(size=(400, 300)).save(tmp_path / "x.jpg")
    exact = Image.open(tmp_path / "x.jpg").convert("RGB")
    assert torch.equal(model.encode_images([tmp_path / "x.jpg"]), model.encode_images([exact]))
    assert model.encoder.decode_at_least is None


def test_the_fingerprint_of_a_store_is_not_that_of_trained_weights(model: Model) -> None:
    """Decoding and preprocessing change a store's features, but inversion weights still fit their encoder."""
    assert model.fingerprint == image_fingerprint(model.encoder) != model.encoder.fingerprint
    assert model.fingerprint.startswith(model.encoder.fingerprint)


def test_compose_depends_on_both(model: Model) -> None:
    red, dog = model.compose([picture()] * 2, ["is red", "is a dog"])
    other = model.compose([picture(1)], ["is red"])[0]
    assert not torch.allclose(red, dog)
    assert not torch.allclose(red, other)


def test_known_features_give_the_same(model: Model) -> None:
    features = model.features([picture(0), picture(1)])
    texts = ["is red", "is black"]
    torch.testing.assert_close(
        model.compose_features(Queries(features, texts)), model.compose([picture(0), picture(1)], texts)
    )
    half = VisionFeatures(features.image, features.local.half())
    torch.testing.assert_close(
        model.compose_features(Queries(half, texts)),
        model.compose_features(Queries(features, texts)),
        rtol=1e-2,
        atol=1e-2,
    )


def test_pseudo_words_of_an_image_are_made_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    features = model.features([picture(seed) for seed in range(5)])
    index = [3, 0, 3, 1, 0, 3, 4]  # none is of image 2
    texts = ["is red", "a cat", "dog", "black grass", "with a dog", "red grass", "a dog"]
    repeated = model.compose_features(Queries(VisionFeatures(features.image[index], features.local[index]), texts))
    seen = []
    whole = model.require_inversion().forward
    monkeypatch.setattr(
        model.inversion, "forward", lambda image, local: (seen.append(len(image)), whole(image, local))[1]
    )
    once = model.compose_features(Queries(features, texts, index), batch_size=2)
    assert sum(seen) == 5
    torch.testing.assert_close(once, repeated, rtol=1e-5, atol=1e-5)


def test_nothing_gives_nothing(model: Model) -> None:
    assert model.encode_images([]).shape == (0, JOINT)
    assert model.encode_texts([]).shape == (0, JOINT)
    assert model.compose([], []).shape == (0, JOINT)


def test_wrong_input(model: Model, tmp_path: object) -> None:
    with pytest.raises(InputError, match="2 images but 1 texts"):
        model.compose([picture()] * 2, ["is red"])
    with pytest.raises(InputError, match="empty"):
        model.compose([picture()], ["  "])
    with pytest.raises(InputError, match="empty"):
        model.encode_texts(["red", ""])
    with pytest.raises(ImageError):
        model.encode_images([f"{tmp_path}/missing.jpg"])


def test_blank_texts_are_for_benchmarks(model: Model) -> None:
    """Of a blank text the tower reads its start and end tokens, of a blank modification the sentence up to `but`."""
    features = model.features([picture()])
    with pytest.raises(InputError, match="empty"):
        model.compose_features(Queries(features, [" "]))
    blank, asked = model.compose_features(Queries(features, [" ", "is red"], [0, 0]), allow_blank=True)
    words = model.require_inversion()(features.image, features.local)
    up_to_but = ("a photo of", Slot.SUBJECT, "with", Slot.ATTRIBUTES, "but")
    (expected,) = F.normalize(encode_sentences(model.encoder, [up_to_but], words), dim=-1)
    torch.testing.assert_close(blank, expected, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(blank, asked)

    text, other = model.encode_texts(["\t", "is red"], allow_blank=True)
    ids = torch.tensor([[model.encoder.start_token, model.encoder.end_token]])
    nothing = model.encoder.encode_embeddings(model.encoder.embed_tokens(ids), torch.tensor([2]))
    torch.testing.assert_close(text, F.normalize(nothing, dim=-1)[0], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(text, other)


def test_without_attributes(encoder: ClipEncoder) -> None:
    model = Model(encoder, random_inversion(max_attributes=0), "subject only")
    assert model.compose([picture()], ["is red"]).shape == (1, JOINT)


def test_without_inversion(encoder: ClipEncoder) -> None:
    with pytest.raises(ModelError, match=r"bare has no inversion weights.*fti4cir train"):
        Model(encoder, None, "bare").compose([picture()], ["is red"])


@pytest.mark.parametrize("width", ["joint_width", "vision_width", "token_width"])
def test_widths_must_fit(encoder: ClipEncoder, width: str) -> None:
    widths = {"joint_width": JOINT, "vision_width": VISION, "token_width": TOKEN}
    config = InversionConfig(**{**widths, width: widths[width] + 8})
    with pytest.raises(ModelError, match=width):
        Model(encoder, FineGrainedInversion(config), "tiny")


def test_files_are_read_ahead_to_the_same_features(encoder: ClipEncoder, tmp_path: Path) -> None:
    paths = []
    for number in range(7):
        paths.append(tmp_path / f"{number}.png")
        picture(number).save(paths[-1])
    model = Model(encoder, None, "tiny")
    with Image.open(paths[0]) as lazy:
        ahead = model.features([*paths, lazy, lazy], batch_size=3)
    blocks = [[*paths[:3]], [*paths[3:6]], [paths[6], paths[0], paths[0]]]
    stacked = [torch.stack([encoder.preprocess(open_image(path)) for path in block]) for block in blocks]
    serial = [encoder.encode_pixels(pixels) for pixels in stacked]
    assert torch.equal(ahead.image, torch.cat([block.image for block in serial]))
    assert torch.equal(ahead.local, torch.cat([block.local for block in serial]))


def test_steering_starts_from_the_sentence_without_the_text(model: Model) -> None:
    images, texts = [picture(seed) for seed in range(3)], ["is red", "a cat", "dog"]
    inversion, features = model.require_inversion(), model.features(images)
    words = inversion(features.image, features.local.float())
    plain = F.normalize(encode_sentences(model.encoder, [inversion.config.sentence()] * 3, words), dim=-1)
    composed, image = model.compose(images, texts), model.encode_images(images)
    for strength, balance in ((2.0, 0.0), (0.5, 0.3), (0.0, 1.0)):
        expected = F.normalize((1 - balance) * plain + balance * image + strength * (composed - plain), dim=-1)
        steered = model.compose(images, texts, strength=strength, balance=balance, batch_size=2)
        torch.testing.assert_close(steered, expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(model.compose(images, texts, strength=1.0, balance=0.0), composed)


def test_steered_queries_keep_their_own_references(model: Model) -> None:
    features = model.features([picture(0), picture(1)])
    together = model.composed_queries(Queries(features, ["is red", "dog", "a cat"], (1, 0, 1)), batch_size=1)
    for row, (reference, text) in enumerate([(1, "is red"), (0, "dog"), (1, "a cat")]):
        alone = model.compose([picture(reference)], [text], strength=1.7, balance=0.2)
        torch.testing.assert_close(together.at(strength=1.7, balance=0.2)[row], alone[0], rtol=1e-4, atol=1e-5)


def test_steering_out_of_range_is_refused_before_anything_is_encoded(model: Model) -> None:
    with pytest.raises(InputError, match="balance is 2"):
        model.compose([Path("not-there.png")], ["is red"], balance=2.0)
