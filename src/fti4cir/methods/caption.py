"""A caption of the reference image in the place of its pseudo-words, in one sentence with the modification text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from ..captions.table import load_captioned_images
from ..errors import InputError
from ..inversion.prompts import Template
from ..models.queries import Queries
from .base import Entry, Model, Options, TextEncoder


class Captioned:
    """The sentence `a photo of {caption} but {modification}`.

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

    def require(self, paths: Sequence[Path]) -> None:
        """InputError unless each of these images' files has a caption."""
        without = [path for path in paths if path.absolute() not in self._captions]
        if without:
            count = f"; {len(without):,} images have none" if len(without) > 1 else ""
            raise InputError(
                f"The image {without[0]} has no caption{count}; caption all of them with `fti4cir caption FOLDER "
                "--output captions.jsonl`."
            )

    def compose(self, queries: Queries) -> Tensor:
        """B queries, whose images' files are known, to unit-length features (B, D).

        Raises:
            InputError: if an image has no caption.
            ValueError: if the files are not known.
        """
        if not queries.paths:
            raise ValueError("captions are those of files; give the queries' paths")
        self.require(queries.paths)
        captions = [self._captions[path.absolute()] for path in queries.paths]
        template = self._template
        return self._model.encode_texts(
            [
                f"{template.opening} {captions[row]} {template.modification.format(text=text)}"
                for row, text in zip(queries.reference_index, queries.texts, strict=True)
            ],
            allow_blank=True,
        )


def _create(model: Model, options: Options) -> Captioned:
    if options.captions is None:
        raise InputError("The method caption needs captions of the images; give them with --captions FILE.")
    return Captioned.read(model, options.captions.images, options.captions.table)


METHOD = Entry(create=_create)
