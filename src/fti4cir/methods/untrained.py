"""Methods that learn nothing: the image alone, the text alone, their weighted sum, a caption of the image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import VisionFeatures
from ..captions.table import load_captioned_images
from ..errors import InputError
from ..inversion.prompts import Template


class TextEncoder(Protocol):
    """What these methods need of a model."""

    def encode_texts(self, texts: Sequence[str], *, allow_blank: bool = False) -> Tensor:
        """B texts, none of them blank unless that is allowed, to unit-length features (B, D)."""
        ...


class ImageOnly:
    """The reference's own feature: what a search finds that does not read the text.

    >>> import torch
    >>> features = VisionFeatures(image=torch.tensor([[3.0, 4.0]]), local=torch.zeros(1, 1, 1))
    >>> ImageOnly().compose(features, ["in red"])
    tensor([[0.6000, 0.8000]])
    """

    name = "image"

    def compose(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        pictures: Sequence[Path] = (),
    ) -> Tensor:
        """Image features (R, D), not normalised, to unit length, that of each text's owner (B, D)."""
        unit = F.normalize(features.image, dim=-1)
        return unit if owner is None else unit[list(owner)]


class TextOnly:
    """The modification's feature: what a search finds that does not look at the image."""

    name = "text"

    def __init__(self, model: TextEncoder) -> None:
        self._model = model

    def compose(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        pictures: Sequence[Path] = (),
    ) -> Tensor:
        """B texts to unit-length features (B, D); the images make no difference."""
        # A block of queries repeats a few texts many times: encode each once.
        distinct = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        encoded = self._model.encode_texts(list(distinct), allow_blank=True).to(features.image.device)
        return encoded[[distinct[text] for text in texts]]


class WeightedSum:
    """`image_weight` of the image's unit-length feature and the rest of the text's; 0.5 is their mean.

    Where the two cancel each other out exactly, the sum has no direction and the feature is zero.

    Raises:
        InputError: if the weight is not within [0, 1].
    """

    name = "sum"

    def __init__(self, model: TextEncoder, image_weight: float = 0.5) -> None:
        if not 0 <= image_weight <= 1:
            raise InputError(f"The image weight must be from 0 to 1, not {image_weight}.")
        self._image, self._text = ImageOnly(), TextOnly(model)
        self._weight = image_weight

    def compose(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        pictures: Sequence[Path] = (),
    ) -> Tensor:
        """Features of R images and B texts, each of the image that `owner` says, to (B, D)."""
        image, text = self._image.compose(features, texts, owner), self._text.compose(features, texts)
        return F.normalize(self._weight * image + (1 - self._weight) * text, dim=-1)


class Captioned:
    """A caption of the image in the place of its pseudo-words: `a photo of {caption} but {modification}`.

    Of several captions of an image the first counts.

    Args:
        model: what encodes texts.
        captions: a caption for each image's file.
    """

    name = "caption"

    def __init__(self, model: TextEncoder, captions: Mapping[Path, str]) -> None:
        self._model, self._captions = model, captions
        self._template = Template()

    @classmethod
    def read(cls, model: TextEncoder, images: Path, table: Path) -> Captioned:
        """With captions from a table that `captions.table` reads; InputError if it cannot."""
        data = load_captioned_images(images, table)
        first = zip(data.names, data.captions, strict=True)
        return cls(model, {(images / name).absolute(): captions[0].text for name, captions in first})

    def require(self, pictures: Sequence[Path]) -> None:
        """InputError unless each of these images' files has a caption."""
        without = [picture for picture in pictures if picture.absolute() not in self._captions]
        if without:
            count = f"; {len(without):,} images have none" if len(without) > 1 else ""
            raise InputError(
                f"The image {without[0]} has no caption{count}; caption all of them with `fti4cir caption FOLDER "
                "--output captions.jsonl`."
            )

    def compose(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        pictures: Sequence[Path] = (),
    ) -> Tensor:
        """R images' files and B modifications, each of the image `owner` says, to (B, D).

        Raises:
            InputError: if an image has no caption.
        """
        self.require(pictures)
        known = [self._captions[picture.absolute()] for picture in pictures]
        rows = range(len(texts)) if owner is None else owner
        template = self._template
        return self._model.encode_texts(
            [
                f"{template.opening} {known[row]} {template.modification.format(text=text)}"
                for row, text in zip(rows, texts, strict=True)
            ],
            allow_blank=True,
        )
