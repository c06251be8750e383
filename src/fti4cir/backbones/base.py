"""What the method needs of a dual encoder, whoever made it."""

from __future__ import annotations

from typing import Literal, NamedTuple, Protocol

import torch
from PIL import Image
from torch import Tensor

Precision = Literal["float32", "bfloat16"]
"""The type of a backbone's weights. All features are float32."""


class VisionFeatures(NamedTuple):
    """What the image tower gives for B images."""

    image: Tensor  # (B, D) float32: the global feature, projected to the joint space, not normalised
    local: Tensor  # (B, P, V) float32: the last block's output for every token, class token first


PIXELS = 2
"""Counts the ways in which a file's pixels have been brought to an encoder; another one gives other features."""


class DualEncoder(Protocol):
    """An image tower and a text tower with one joint space of width D.

    V is the width of the image tower's tokens, P their number, W the width of the text tower's token
    embeddings. Both towers are frozen: no parameter asks for a gradient, but gradients flow through
    `encode_embeddings` to the embeddings it is given.
    """

    name: str
    """What a person calls it: `mini`, a hub name or a folder."""
    fingerprint: str
    """Changes with the weights, and with the mean and the deviation of pixels: what is trained for it fits it alone."""
    joint_width: int
    vision_width: int
    token_width: int
    context_length: int
    """The most tokens of a sentence, start and end token included."""
    input_size: int
    """S, the side of the square that `preprocess` makes, in pixels."""
    decode_at_least: int | None
    """How small a JPEG may be decoded for a store, and for searching one: see `images.decode.decode_image`.

    None: never smaller than it is. Whatever else features are made for, pixels are exact.
    """
    start_token: int
    end_token: int
    logit_scale: float
    """What the encoder learned to multiply cosines by in its own contrastive training: one by a temperature."""

    @property
    def device(self) -> torch.device:
        """Where both towers are."""
        ...

    def preprocess(self, image: Image.Image) -> Tensor:
        """An upright RGB image to the tower's input, (3, S, S) float32."""
        ...

    def encode_pixels(self, pixels: Tensor) -> VisionFeatures:
        """(B, 3, S, S), on any device, to the features; without gradient."""
        ...

    def tokenize(self, text: str) -> list[int]:
        """The token ids of a text, without start and end token, at its full length."""
        ...

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Ids (...) to token embeddings (..., W), before positions are added."""
        ...

    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Sentences to features (B, D), not normalised.

        `embeddings` (B, T, W) hold start token, words, end token, then padding, whose content has no
        effect; `lengths` (B,) count the tokens before the padding.
        """
        ...

    def token_table(self) -> Tensor:
        """All token embeddings, (vocabulary, W)."""
        ...

    def word_of(self, token: int) -> str | None:
        """The whole word that a token stands for, or None if it is a piece, a mark or special."""
        ...

    def to(self, device: str | torch.device) -> DualEncoder:
        """Move both towers; gives itself back."""
        ...


def image_fingerprint(encoder: DualEncoder) -> str:
    """Changes whenever the features of images would: with the encoder, and with how files are decoded for it."""
    return f"{encoder.fingerprint}.{PIXELS}"
