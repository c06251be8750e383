"""A loaded model: a dual encoder and, if there is one, the inversion network that was trained for it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder, VisionFeatures, image_fingerprint
from ..errors import InputError, ModelError
from ..images.decode import ImageSource, check_images, open_image
from ..images.prefetch import prefetch
from ..inversion import prompts
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion
from ..inversion.prompts import Sentence
from ..inversion.steering import ComposedQueries, check_steering
from .explain import Explanation, explain
from .queries import Queries

_EXPLAINED_SIZE = 640
"""In pixels. A larger image may be decoded smaller for an explanation, but with no side shorter than this."""


class Model:
    """Images, texts and images-with-texts to unit-length features in one joint space.

    Made by `fti4cir.load`. All features come back as float32 on the CPU.

    `method` is what the inversion network was trained as. `extra` is what that method needs besides the network.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        inversion: FineGrainedInversion | None,
        name: str,
        *,
        method: str = "fti4cir",
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        self.encoder = encoder
        self.method = method
        self.extra: Mapping[str, Any] = extra or {}
        self.inversion = inversion.eval().requires_grad_(False).to(encoder.device) if inversion else None
        self.name = name
        if inversion is not None:
            config = inversion.config
            for width in ("joint_width", "vision_width", "token_width"):
                if getattr(config, width) != getattr(encoder, width):
                    raise ModelError(
                        f"The inversion weights of {name} do not fit the encoder {encoder.name}: their {width} is "
                        f"{getattr(config, width)}, the encoder's {getattr(encoder, width)}."
                    )

    @property
    def fingerprint(self) -> str:
        """Changes whenever the image features change. A store keeps it beside its vectors."""
        return image_fingerprint(self.encoder)

    def features(self, images: Sequence[ImageSource], batch_size: int = 32) -> VisionFeatures:
        """The image tower's features: of the image (B, D), not normalised, and local ones (B, P, V).

        Files are decoded exactly, by threads that read ahead of the encoder.

        Raises:
            ImageError: if one cannot be read.
            InputError: if one of `images` is not an image, or there is none at all.

        """
        check_images(images)
        pixels = prefetch(self._to_pixels, map(_opened_unless_file, images), ahead=2 * batch_size)
        blocks = []
        while batch := list(islice(pixels, batch_size)):
            blocks.append(self.encoder.encode_pixels(torch.stack(batch)))
        if not blocks:
            raise InputError("There is no image to encode.")
        return VisionFeatures(
            torch.cat([block.image for block in blocks]), torch.cat([block.local for block in blocks])
        )

    def _to_pixels(self, image: ImageSource) -> Tensor:
        """A file or an opened image to the encoder's input, (3, S, S)."""
        opened = image if isinstance(image, Image.Image) else open_image(image)
        return self.encoder.preprocess(opened)

    def encode_images(self, images: Sequence[ImageSource], batch_size: int = 32) -> Tensor:
        """Images (paths, PIL images or arrays (H, W, 3) of uint8) to unit-length features (B, D).

        Raises:
            ImageError: if one cannot be read.
            InputError: if one is not an image.

        """
        check_images(images)
        images = list(images)
        if not images:
            return torch.zeros(0, self.encoder.joint_width)
        return F.normalize(self.features(images, batch_size).image, dim=-1).cpu()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 64, *, allow_blank: bool = False) -> Tensor:
        """Texts to unit-length features (B, D).

        Args:
            texts: B texts.
            batch_size: texts at a time.
            allow_blank: encode also a blank text, as start and end token alone. Some benchmarks contain blank texts.

        Raises:
            InputError: if a text is blank, unless that is allowed.

        """
        _check_texts(texts)
        checked = [prompts.check_text(text, allow_blank) for text in texts]
        sentences: list[prompts.Sentence] = [(text,) if text else () for text in checked]
        blocks = [
            encode_sentences(self.encoder, sentences[start : start + batch_size])
            for start in range(0, len(sentences), batch_size)
        ]
        return F.normalize(torch.cat(blocks), dim=-1).cpu() if blocks else torch.zeros(0, self.encoder.joint_width)

    def compose(
        self,
        images: Sequence[ImageSource],
        texts: Sequence[str],
        *,
        strength: float = 1.0,
        balance: float = 0.0,
        batch_size: int = 32,
    ) -> Tensor:
        """Each image with its text, "this image, but {text}", to unit-length features (B, D).

        Args:
            images: B images.
            texts: B modification texts.
            strength: how far the text moves the query, at least 0; 1: as trained.
            balance: how much the image's own feature counts, from 0 to 1; 0: as trained. `inversion.steering` has the
                formula of both.
            batch_size: images, and sentences, at a time.

        Raises:
            InputError: if there are not as many texts as images, a text is empty, or a number is out of range.
            ImageError: if an image cannot be read.
            ModelError: if the model has no inversion weights.

        """
        _check_texts(texts)
        check_images(images)
        images, texts = list(images), list(texts)
        if len(images) != len(texts):
            raise InputError(f"There are {len(images)} images but {len(texts)} texts; each image needs one text.")
        for text in texts:
            prompts.check_text(text)
        check_steering(strength, balance=balance)
        if not images:
            return torch.zeros(0, self.encoder.joint_width)
        queries = Queries(self.features(images, batch_size), texts)
        if (strength, balance) == (1.0, 0.0):
            return self.compose_features(queries, batch_size=batch_size)
        return self.composed_queries(queries, batch_size=batch_size).at(strength=strength, balance=balance)

    def compose_features(self, queries: Queries, *, batch_size: int = 32, allow_blank: bool = False) -> Tensor:
        """`compose` for images whose features are known. Each image's pseudo-words are made once.

        Args:
            queries: features of R reference images, and B modification texts.
            batch_size: images, and sentences, at a time.
            allow_blank: compose a blank text, too, as `Template.pseudo` says. Benchmarks have such.

        Returns:
            (B, D) unit-length features.

        Raises:
            InputError: if a text is blank and this is not allowed.
            ModelError: if the model has no inversion weights.

        """
        config = self.require_inversion().config
        texts = [prompts.check_text(text, allow_blank) for text in queries.texts]
        sentences = [config.sentence(text) for text in texts]
        return self._encode(queries.features, sentences, queries.reference_index, batch_size=batch_size)

    def composed_queries(self, queries: Queries, *, batch_size: int = 32, allow_blank: bool = False) -> ComposedQueries:
        """What is needed to steer queries: arguments and errors as of `compose_features`."""
        composed = self.compose_features(queries, batch_size=batch_size, allow_blank=allow_blank)
        sentence, count = self.require_inversion().config.sentence(), len(queries.features.image)
        plain = self._encode(queries.features, [sentence] * count, range(count), batch_size=batch_size)
        image, index = F.normalize(queries.features.image.float().cpu(), dim=-1), list(queries.reference_index)
        return ComposedQueries(image=image[index], plain=plain[index], composed=composed)

    @torch.no_grad()
    def _encode(
        self, features: VisionFeatures, sentences: Sequence[Sentence], index: Sequence[int], *, batch_size: int
    ) -> Tensor:
        """B sentences with the pseudo-words of the images that `index` names, to unit-length features (B, D)."""
        inversion = self.require_inversion()
        encoded = torch.empty(len(sentences), self.encoder.joint_width)
        for start in range(0, len(features.image), batch_size):
            stop = start + batch_size
            words = inversion(
                features.image[start:stop].to(self.encoder.device),
                features.local[start:stop].float().to(self.encoder.device),
            )
            places = [place for place, row in enumerate(index) if start <= row < stop]
            for first in range(0, len(places), batch_size):
                block = places[first : first + batch_size]
                rows = torch.tensor([index[place] - start for place in block])
                chosen = [sentences[place] for place in block]
                encoded[block] = encode_sentences(self.encoder, chosen, words, rows).cpu()
        return F.normalize(encoded, dim=-1)

    def explain(self, image: ImageSource) -> Explanation:
        """Which pseudo-words the image gets, which real words are nearest, and where in the image each one looked.

        Raises:
            ImageError: if the image cannot be read.
            ModelError: if the model has no inversion weights.

        """
        inversion = self.require_inversion()
        return explain(
            self.encoder,
            inversion,
            image=open_image(image, at_least=_EXPLAINED_SIZE),
            features=self.features([image]),
            model=self.name,
            source=Path(image).name if isinstance(image, str | Path) else "",
        )

    def require_inversion(self) -> FineGrainedInversion:
        """The inversion network; ModelError that says how to train one if there is none."""
        if self.inversion is None:
            raise ModelError(
                f"{self.name} has no inversion weights, so it cannot compose an image with a text; train them with "
                f"`fti4cir train --backbone {self.name} --images FOLDER --captions FILE --output DIR` "
                "and give --model DIR."
            )
        return self.inversion


def require_one_encoder(models: Sequence[Model]) -> None:
    """Refuse models whose features cannot be compared; ModelError names the first that differs, and what to do."""
    for model in models:
        if model.fingerprint != models[0].fingerprint:
            raise ModelError(
                f"{models[0].name} and {model.name} cannot be compared in one pass, because their encoders differ; "
                "evaluate each by itself."
            )


def _opened_unless_file(image: ImageSource) -> ImageSource:
    """Open what is in memory in the caller's thread: the same lazily opened PIL image may occur several times."""
    return image if isinstance(image, str | Path) else open_image(image)


def _check_texts(texts: object) -> None:
    """InputError unless this is a list of texts. A single text would pass for a list of its characters."""
    if isinstance(texts, str):
        raise InputError(f"Texts come as a list; give [{texts!r}].")
    if not isinstance(texts, Iterable):
        raise InputError(f"Texts come as a list, not as {type(texts).__name__}.")
