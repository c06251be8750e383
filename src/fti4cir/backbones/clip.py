"""Any CLIP that `transformers` loads, as a dual encoder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ..images.preprocess import square
from . import pretrained
from .base import Precision, VisionFeatures
from .packing import Packing
from .registry import Backbone
from .text import clean

BACKBONE = Backbone(kind="CLIP", model_types=("clip",))


def load_encoder(folder: Path, name: str, dtype: Precision) -> ClipEncoder:
    """A CLIP from a folder as `transformers` saves it, on the CPU.

    Args:
        folder: with config, preprocessing, weights as safetensors and tokeniser.
        name: what a person calls the model.
        dtype: of both towers.

    Raises:
        ModelError: if files are missing or damaged.

    """
    processor = pretrained.read_processor(folder, name)
    # Imported here, because transformers takes seconds.
    from transformers import CLIPModel, CLIPTokenizer

    model, tokenizer = pretrained.load_model_and_tokenizer(
        folder, name, model_class=CLIPModel, tokenizer_class=CLIPTokenizer, dtype=dtype
    )
    return ClipEncoder(model, tokenizer, processor, name)


class ClipEncoder:
    """Thin adapter of `transformers.CLIPModel`; both towers frozen and in evaluation mode.

    The local features are the vision tower's last block's outputs, before its final layer norm. The text tower's
    layers are run here, not by `transformers`, because training waits for them most of the time.
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
        self.decode_at_least: int | None = None
        self.start_token: int = tokenizer.bos_token_id
        self.end_token: int = tokenizer.eos_token_id
        self.logit_scale: float = model.logit_scale.exp().item()
        self._mean = torch.tensor(processor["image_mean"])[:, None, None]
        self._std = torch.tensor(processor["image_std"])[:, None, None]
        self.fingerprint = _fingerprint(model, processor)
        self._text_layers: dict[torch.dtype, list[_TextLayer]] = {}

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return next(self.model.parameters()).device

    def preprocess(self, image: Image.Image) -> Tensor:
        """Upright RGB image to (3, S, S) float32: target pad 1.25, resize, centre crop, normalise."""
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
        """Token ids without start and end, cleaned as by OpenAI's CLIP; text that spells a special token stays text."""
        ids: list[int] = self.tokenizer(
            clean(text), add_special_tokens=False, split_special_tokens=True, verbose=False
        ).input_ids
        return ids

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Ids (...) -> (..., W)."""
        embedded: Tensor = self.model.text_model.embeddings.token_embedding(ids)
        return embedded

    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, W) -> (B, D), read at each sentence's end token; what follows it is never seen.

        Within autocast the tower runs in autocast's precision.
        """
        kind = embeddings.device.type
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else self.model.dtype
        tower = self.model.text_model
        packing = Packing(lengths, embeddings.shape[1])
        with torch.autocast(kind, enabled=False):  # the layers convert for themselves
            x = packing.pack(embeddings).float() + tower.embeddings.position_embedding(packing.positions)  # (N, W)
            for layer in self._layers(dtype):
                x = layer(x, packing)
            ends = tower.final_layer_norm(packing.ends(x).to(self.model.dtype))
            features: Tensor = self.model.text_projection(ends)
        return features.float()

    @torch.inference_mode(False)  # what is made in inference mode could not be used in training later
    def _layers(self, dtype: torch.dtype) -> list[_TextLayer]:
        """The text tower's layers with weights of that precision, made when first asked for."""
        if dtype not in self._text_layers:
            layers, config = self.model.text_model.encoder.layers, self.model.config.text_config
            self._text_layers[dtype] = [_TextLayer(layer, config, dtype) for layer in layers]
        return self._text_layers[dtype]

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
        self._text_layers.clear()
        return self


class _TextLayer:
    """A frozen layer of CLIP's text tower on packed sentences: the sum in float32, the products in `dtype`.

    Its weights are kept in the form and precision in which they are used: autocast would convert them again
    every time. They are taken from the modules by the names that they have in CLIP's files.
    """

    def __init__(self, layer: Any, config: Any, dtype: torch.dtype) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self.heads: int = config.num_attention_heads
        # The scale of the attention is that of its queries' weights here.
        scale = (config.hidden_size // self.heads) ** -0.5
        query, key, value, out = attention.q_proj, attention.k_proj, attention.v_proj, attention.out_proj
        self.norm1, self.norm2 = (
            (norm.normalized_shape, norm.weight.float(), norm.bias.float(), norm.eps)
            for norm in (layer.layer_norm1, layer.layer_norm2)
        )
        self.qkv = (
            torch.cat([query.weight * scale, key.weight, value.weight]).to(dtype),
            torch.cat([query.bias * scale, key.bias, value.bias]).to(dtype),
        )
        self.out = out.weight.to(dtype), out.bias.to(dtype)
        # "quick GELU" is x * sigmoid(1.702 x) = silu(1.702 x) / 1.702, and PyTorch does silu in one pass.
        quick = config.hidden_act == "quick_gelu"
        self.activation = F.silu if quick else mlp.activation_fn
        factor = 1.702 if quick else 1.0
        self.wide = (mlp.fc1.weight * factor).to(dtype), (mlp.fc1.bias * factor).to(dtype)
        self.narrow = (mlp.fc2.weight / factor).to(dtype), mlp.fc2.bias.to(dtype)

    def __call__(self, x: Tensor, packing: Packing) -> Tensor:
        """(N, W) float32 -> (N, W) float32."""
        dtype = self.qkv[0].dtype
        qkv = F.linear(F.layer_norm(x, *self.norm1).to(dtype), *self.qkv)
        x = x + F.linear(packing.attend(qkv, self.heads, causal=True), *self.out)
        wide = F.linear(F.layer_norm(x, *self.norm2).to(dtype), *self.wide)
        return x + F.linear(self.activation(wide), *self.narrow)


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
