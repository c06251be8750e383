"""A loaded model: a dual encoder, and where there is one, the inversion network that belongs to it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder, VisionFeatures, image_fingerprint
from ..errors import InputError, ModelError
from ..images.decode import Source, check_images, open_image
from ..inversion import prompts
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion
from .explain import Explanation, explain

Picture = Source
_EXPLAINED_SIZE = 640
"""In pixels. A larger image may be decoded smaller for an explanation, but with no side shorter than this."""


class Model:
    """Images, texts and images-with-texts to unit-length features in one joint space.

    Made by `fti4cir.load`. All features come back as float32 on the CPU.

    `method` says what the inversion network was trained as, `extra` holds what that training left besides.
    """

    def __init__(
        self,
        encoder: DualEncoder,
        inversion: FineGrainedInversion | None,
        name: str,
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
        """Changes whenever the image features would: a store keeps it beside its vectors."""
        return image_fingerprint(self.encoder)

    def features(self, images: Sequence[Picture], batch_size: int = 32) -> VisionFeatures:
        """What the image tower gives: image features (B, D), not normalised, local features (B, P, V).

        Files are decoded exactly. InputError if one of `images` is no image, or there is none at all.
        """
        check_images(images)
        images = list(images)
        blocks = []
        for start in range(0, len(images), batch_size):
            opened = [open_image(image) for image in images[start : start + batch_size]]
            blocks.append(self.encoder.encode_pixels(torch.stack([self.encoder.preprocess(image) for image in opened])))
        if not blocks:
            raise InputError("There is no image to encode.")
        return VisionFeatures(
            torch.cat([block.image for block in blocks]), torch.cat([block.local for block in blocks])
        )

    def encode_images(self, images: Sequence[Picture], batch_size: int = 32) -> Tensor:
        """Images (paths, PIL images or arrays (H, W, 3) of uint8) to unit-length features (B, D).

        Raises:
            ImageError: if one cannot be read.
            InputError: if one is no image.

        """
        check_images(images)
        images = list(images)
        if not images:
            return torch.zeros(0, self.encoder.joint_width)
        return F.normalize(self.features(images, batch_size).image, dim=-1).cpu()

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 64, allow_blank: bool = False) -> Tensor:
        """Texts to unit-length features (B, D).

        Args:
            texts: B texts.
            batch_size: texts at a time.
            allow_blank: encode a blank text, too, as the text tower's start and end tokens alone. Benchmarks have such.

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

    def compose(self, images: Sequence[Picture], texts: Sequence[str], batch_size: int = 32) -> Tensor:
        """Each image with its text, "this image, but {text}", to unit-length features (B, D).

        Raises:
            InputError: if the two are not equally many, or a text is empty.
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
        if not images:
            return torch.zeros(0, self.encoder.joint_width)
        return self.compose_features(self.features(images, batch_size), texts, batch_size=batch_size)

    @torch.no_grad()
    def compose_features(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        batch_size: int = 32,
        allow_blank: bool = False,
    ) -> Tensor:
        """`compose` for images whose features are known; each image's pseudo-words are made once.

        Args:
            features: of R images, image (R, D) and local (R, P, V).
            texts: B modifications.
            owner: the row of each text's image; None: text i belongs to image i.
            batch_size: images, and sentences, at a time.
            allow_blank: compose a blank text, too, as `Template.pseudo` says. Benchmarks have such.

        Returns:
            (B, D) unit-length features.

        Raises:
            InputError: if a text is blank, unless that is allowed.
            ModelError: if the model has no inversion weights.

        """
        inversion = self.require_inversion()
        texts = [prompts.check_text(text, allow_blank) for text in texts]
        owner = range(len(texts)) if owner is None else owner
        composed = torch.empty(len(texts), self.encoder.joint_width)
        for start in range(0, len(features.image), batch_size):
            stop = start + batch_size
            words = inversion(
                features.image[start:stop].to(self.encoder.device),
                features.local[start:stop].float().to(self.encoder.device),
            )
            asked = [place for place, row in enumerate(owner) if start <= row < stop]
            for first in range(0, len(asked), batch_size):
                block = asked[first : first + batch_size]
                sentences = [inversion.config.sentence(texts[place]) for place in block]
                rows = torch.tensor([owner[place] - start for place in block])
                composed[block] = encode_sentences(self.encoder, sentences, words, rows).cpu()
        return F.normalize(composed, dim=-1)

    def explain(self, image: Picture) -> Explanation:
        """Which pseudo-words the image gets, which real words are nearest to them, and where each one looked.

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
        """The inversion network; ModelError with the mend if there is none."""
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
                f"{models[0].name} and {model.name} cannot be compared in one pass, for their encoders differ; "
                "evaluate each by itself."
            )


def _check_texts(texts: object) -> None:
    """InputError for what is no list of texts; a single one would pass for a list of its characters."""
    if isinstance(texts, str):
        raise InputError(f"Texts come as a list; give [{texts!r}].")
    if not isinstance(texts, Iterable):
        raise InputError(f"Texts come as a list, not as {type(texts).__name__}.")
