"""Any CLIP that `transformers` loads, as a dual encoder."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..preprocess import square
from .base import VisionFeatures


class ClipEncoder:
    """Thin adapter of `transformers.CLIPModel`; both towers frozen and in evaluation mode.

    The local features are the vision tower's last block's outputs, before its final layer norm.
    """

    def __init__(self, model: Any, tokenizer: Any, processor: dict[str, Any], name: str) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        text, vision = model.config.text_config, model.config.vision_config
        self.joint_width: int = model.config.projection_dim
        self.vision_width: int = vision.hidden_size
        self.token_width: int = text.hidden_size
        self.context_length: int = text.max_position_embeddings
        self.input_size: int = vision.image_size
        self.start_token: int = tokenizer.bos_token_id
        self.end_token: int = tokenizer.eos_token_id
        self._mean = torch.tensor(processor["image_mean"])[:, None, None]
        self._std = torch.tensor(processor["image_std"])[:, None, None]
        self.fingerprint = _fingerprint(model, processor)

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return next(self.model.parameters()).device

    def preprocess(self, image: Image.Image) -> Tensor:
        """Upright RGB picture to (3, S, S) float32: target pad 1.25, resize, centre crop, normalise."""
        pixels = np.asarray(square(image, self.input_size), dtype=np.float32) / 255
        return (torch.from_numpy(pixels).permute(2, 0, 1) - self._mean) / self._std

    @torch.no_grad()
    def encode_pixels(self, pixels: Tensor) -> VisionFeatures:
        """(B, 3, S, S) -> image features (B, D) and local features (B, P, V), in one run of the tower."""
        tower = self.model.vision_model
        output = tower(pixel_values=pixels.to(self.device, self.model.dtype))
        image = self.model.visual_projection(output.pooler_output)
        return VisionFeatures(image.float(), output.last_hidden_state.float())

    def tokenize(self, text: str) -> list[int]:
        """Token ids without start and end; text that spells a special token stays text."""
        ids: list[int] = self.tokenizer(
            text, add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids
        return ids

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Ids (...) -> (..., W)."""
        embedded: Tensor = self.model.text_model.embeddings.token_embedding(ids)
        return embedded

    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, W) -> (B, D), read at each sentence's end token; what follows it is never seen."""
        tower = self.model.text_model
        x = tower.embeddings(inputs_embeds=embeddings)
        length = embeddings.shape[1]
        mask = torch.full((length, length), float("-inf"), dtype=x.dtype, device=x.device).triu(1)
        x = tower.encoder(inputs_embeds=x, attention_mask=mask[None, None]).last_hidden_state
        ends = x[torch.arange(len(x), device=x.device), lengths - 1]
        features: Tensor = self.model.text_projection(tower.final_layer_norm(ends))
        return features.float()

    def token_table(self) -> Tensor:
        """All token embeddings, (vocabulary, W) float32."""
        table: Tensor = self.model.text_model.embeddings.token_embedding.weight
        return table.float()

    def word_of(self, token: int) -> str | None:
        """The word a token ends and begins, None for pieces, marks and special tokens."""
        piece: str = self.tokenizer.convert_ids_to_tokens(token)
        word = piece.removesuffix("</w>")
        return word if word != piece and word.isalpha() else None

    def to(self, device: str | torch.device) -> ClipEncoder:
        """Move both towers."""
        self.model.to(device)
        return self


def _fingerprint(model: Any, processor: dict[str, Any]) -> str:
    """Hash of every parameter's name, shape and a sample of its values, and of the preprocessing.

    The samples are rounded to bfloat16, so that the hash is that of the weights, whatever precision they were
    loaded in; another precision than float32 gives other features, so its name follows behind a dash.
    """
    digest = hashlib.sha256(json.dumps([processor["image_mean"], processor["image_std"]]).encode())
    for name, parameter in sorted(model.state_dict().items()):
        flat = parameter.detach().flatten()
        sample = flat[:: max(1, len(flat) // 16)].bfloat16().float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + sample.tobytes())
    precision = "" if model.dtype == torch.float32 else f"-{str(model.dtype).removeprefix('torch.')}"
    return digest.hexdigest()[:16] + precision
