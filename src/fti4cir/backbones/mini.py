"""`mini`, the bundled dual encoder: small enough to ship, trained by `research/train_mini.py`.

Image tower: EfficientNet-Lite0 (Tan and Le, 2019; batch normalisation folded into the convolutions),
whose 7 x 7 grid of features passes through two transformer layers with a class token in front. So it gives
what a ViT gives: a global feature, and one local feature for each place. Text tower: MiniLM-L6 (Wang et al.,
2020), mean-pooled. It takes token embeddings, and therefore pseudo-words as well.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError
from ..images.preprocess import RATIO
from .base import Precision, VisionFeatures
from .packing import Packing
from .registry import Backbone
from .text import clean

BACKBONE = Backbone(kind="the bundled model", bundled=True)

FOLDER = Path(__file__).parent.parent / "weights" / "mini"
JOINT_WIDTH, VISION_WIDTH, TOKEN_WIDTH = 256, 256, 384
INPUT_SIZE = 224
# BERT's vocabulary
_START, _END = 101, 102
# Images in the image tower at once on a CPU. The largest activations of eight images stay below 32 MiB. For
# larger tensors, the C library maps fresh memory each time: with 32 images, zeroing it takes almost half of the time.
_AT_ONCE = 8

# kernel, stride, expansion, channels, repeats: EfficientNet-Lite0 (a "-Lite" has no squeeze-excitation,
# ReLU6 for swish, and neither first nor last stage scaled).
_STAGES = (
    (3, 1, 1, 16, 1),
    (3, 2, 6, 24, 2),
    (5, 2, 6, 40, 2),
    (3, 2, 6, 80, 3),
    (5, 1, 6, 112, 3),
    (5, 2, 6, 192, 4),
    (3, 1, 6, 320, 1),
)


class _Conv(nn.Conv2d):
    """Convolution with TensorFlow's "same" padding: with stride 2 the odd pixel goes right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, padding=0 if stride == 2 else kernel // 2, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        if self.stride[0] == 2:
            total = self.kernel_size[0] - 2 + x.shape[-1] % 2
            x = F.pad(x, (total // 2, total - total // 2, total // 2, total - total // 2))
        return super().forward(x)


class _Block(nn.Module):
    """Inverted residual: widen, filter depth-wise, narrow; with a shortcut where the shapes agree."""

    def __init__(self, kernel: int, stride: int, expansion: int, inputs: int, outputs: int) -> None:
        super().__init__()
        wide = inputs * expansion
        self.expand = _Conv(inputs, wide, 1) if expansion != 1 else None
        self.depthwise = _Conv(wide, wide, kernel, stride, groups=wide)
        self.project = _Conv(wide, outputs, 1)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x if self.expand is None else F.relu6(self.expand(x))
        y = self.project(F.relu6(self.depthwise(y)))
        return x + y if self.shortcut else y


class Trunk(nn.Module):
    """EfficientNet-Lite0 without its classifier: (B, 3, S, S) -> (B, 1280, S/32, S/32)."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _Conv(3, 32, 3, stride=2)
        blocks: list[nn.Module] = []
        width = 32
        for kernel, stride, expansion, outputs, repeats in _STAGES:
            for repeat in range(repeats):
                blocks.append(_Block(kernel, stride if repeat == 0 else 1, expansion, width, outputs))
                width = outputs
        self.blocks = nn.ModuleList(blocks)
        self.head = _Conv(width, 1280, 1)

    def forward(self, pixels: Tensor) -> Tensor:
        """The whole trunk."""
        return self.upper(self.lower(pixels))

    def lower(self, pixels: Tensor, until: int = 5) -> Tensor:
        """The stem and the first `until` blocks (5: stages one to three, 40 channels at S/8)."""
        x = F.relu6(self.stem(pixels))
        for block in self.blocks[:until]:
            x = block(x)
        return x

    def upper(self, x: Tensor, start: int = 5) -> Tensor:
        """The blocks from `start` on and the head, applied to the result of `lower`."""
        for block in self.blocks[start:]:
            x = block(x)
        return F.relu6(self.head(x))


class _Layer(nn.Module):
    """Transformer layer, with the norms before its parts as in a ViT (`pre_norm`), otherwise after them as in BERT."""

    def __init__(self, width: int, heads: int, pre_norm: bool) -> None:
        super().__init__()
        self.heads, self.pre_norm = heads, pre_norm
        self.norm1 = nn.LayerNorm(width, eps=1e-12)
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width, eps=1e-12)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def _attend(self, x: Tensor, packing: Packing | None) -> Tensor:
        # The attention's scale is applied to its queries.
        query, rest = self.qkv(x).split([x.shape[-1], 2 * x.shape[-1]], dim=-1)
        qkv = torch.cat([query * (x.shape[-1] // self.heads) ** -0.5, rest], dim=-1)
        if packing is not None:
            return self.out(packing.attend(qkv, self.heads, causal=False))
        # Not PyTorch's fused attention: on a CPU, its gradient takes half of a training step.
        query, key, value = qkv.unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = (query @ key.transpose(-2, -1)).softmax(dim=-1) @ value
        return self.out(y.transpose(1, 2).flatten(2))

    def _widen(self, x: Tensor) -> Tensor:
        return self.narrow(F.gelu(self.wide(x)))

    def forward(self, x: Tensor, packing: Packing | None = None) -> Tensor:
        """(B, T, W) -> (B, T, W), or packed (N, W) -> (N, W)."""
        if self.pre_norm:
            x = x + self._attend(self.norm1(x), packing)
            return x + self._widen(self.norm2(x))
        x = self.norm1(x + self._attend(x, packing))
        return self.norm2(x + self._widen(x))


class ImageTower(nn.Module):
    """Images to one global and many local features.

    The class token and the 49 places of the trunk's grid pass two layers. The global feature adds a
    projection of the class token to one of the grid's mean.
    """

    def __init__(self, joint_width: int, width: int, *, layers: int = 2) -> None:
        super().__init__()
        self.trunk = Trunk()
        self.reduce = nn.Linear(1280, width)
        self.class_token = nn.Parameter(torch.randn(width) * 0.02)
        self.positions = nn.Parameter(torch.randn(50, width) * 0.02)
        self.layers = nn.ModuleList(_Layer(width, width // 64, True) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.from_class = nn.Linear(width, joint_width, bias=False)
        self.from_mean = nn.Linear(1280, joint_width, bias=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, 224, 224) -> image features (B, D), local features (B, 50, V), class token first."""
        return self.pool(self.trunk(pixels))

    def pool(self, grid: Tensor) -> tuple[Tensor, Tensor]:
        """What follows the trunk: (B, 1280, 7, 7) -> (B, D), (B, 50, V)."""
        places = grid.flatten(2).transpose(1, 2)  # (B, 49, 1280)
        x = torch.cat([self.class_token.expand(len(grid), 1, -1), self.reduce(places)], dim=1) + self.positions
        for layer in self.layers:
            x = layer(x)
        return self.from_class(self.norm(x[:, 0])) + self.from_mean(places.mean(1)), x


class TextTower(nn.Module):
    """MiniLM-L6: token embeddings (B, T, W) to features (B, D), the mean over a sentence's tokens."""

    def __init__(self, joint_width: int, vocabulary: int = 30522, *, width: int = 384) -> None:
        super().__init__()
        self.words = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(512, width)  # BERT's segment embedding is added in here
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(_Layer(width, 12, False) for _ in range(6))
        self.project = nn.Linear(width, joint_width, bias=False)

    def forward(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """Embeddings (B, T, W) of sentences that are `lengths` (B,) tokens long -> (B, D)."""
        packing = Packing(lengths, embeddings.shape[1], exact=True)
        x = self.norm(packing.pack(embeddings) + self.positions(packing.positions))  # (N, W)
        for layer in self.layers:
            x = layer(x, packing)
        return self.project(packing.mean(x))


def square(image: Image.Image) -> Image.Image:
    """Target pad, resize the short side to 224 (bicubic), crop the centre, rounded as when `mini` was trained.

    `images.preprocess.square`, which follows the method's release, may differ from it by a row or column.
    """
    padded, left, top = _padded(*image.size)
    excess = min(padded) / (4 * INPUT_SIZE)
    if excess > 1:
        # Padding a panorama of 20000 x 2 at its full size would take a gigabyte.
        shrunk = max(1, round(image.width / excess)), max(1, round(image.height / excess))
        image = image.resize(shrunk, Image.Resampling.BICUBIC, reducing_gap=3.0)
        padded, left, top = _padded(*image.size)
    width, height = padded
    image = ImageOps.expand(image, (left, top, width - image.width - left, height - image.height - top))
    if width < height:
        width, height = INPUT_SIZE, int(INPUT_SIZE * height / width)
    else:
        width, height = int(INPUT_SIZE * width / height), INPUT_SIZE
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    left, top = (width - INPUT_SIZE) // 2, (height - INPUT_SIZE) // 2
    return image.crop((left, top, left + INPUT_SIZE, top + INPUT_SIZE))


def _padded(width: int, height: int) -> tuple[tuple[int, int], int, int]:
    """The padded size of an image, and how many pixels of padding are at the left and above it."""
    short = round(max(width, height) / RATIO)
    wide, high = max(width, short), max(height, short)
    return (wide, high), (wide - width) // 2, (high - height) // 2


class MiniEncoder:
    """The two towers of `mini` as a dual encoder; frozen, in evaluation mode.

    The image tower runs in bfloat16 if the processor multiplies it in hardware, otherwise in float32.
    """

    name = "mini"
    joint_width = JOINT_WIDTH
    vision_width = VISION_WIDTH
    token_width = TOKEN_WIDTH
    context_length = 128
    input_size = INPUT_SIZE
    decode_at_least: int | None = 2 * INPUT_SIZE
    start_token = _START
    end_token = _END
    logit_scale = 100.0
    """CLIP's value, because the trained one was not kept with the weights."""

    def __init__(self, image: ImageTower, text: TextTower, *, tokenizer: Tokenizer, fingerprint: str) -> None:
        self.image = image.eval().requires_grad_(False)
        self.image.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
        self.text = text.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.fingerprint = fingerprint

    @property
    def device(self) -> torch.device:
        """Where the towers are."""
        return self.text.project.weight.device

    def preprocess(self, image: Image.Image) -> Tensor:
        """Upright RGB image to (3, 224, 224) float32 in [-1, 1]: target pad 1.25, resize, centre crop."""
        pixels = np.asarray(square(image), dtype=np.float32)
        return torch.from_numpy(pixels).permute(2, 0, 1) / 127.5 - 1

    @torch.inference_mode()
    def _run_image_tower(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        pixels = pixels.to(self.device, memory_format=torch.channels_last)
        if self.device.type != "cpu":
            return self.image(pixels)
        fast = torch.ops.mkldnn._is_mkldnn_bf16_supported()
        with torch.autocast("cpu", torch.bfloat16, enabled=fast):
            image, local = zip(*map(self.image, pixels.split(_AT_ONCE)), strict=True)
        return torch.cat(image), torch.cat(local)

    def encode_pixels(self, pixels: Tensor) -> VisionFeatures:
        """(B, 3, 224, 224) -> image features (B, 256) and local features (B, 50, 256)."""
        image, local = self._run_image_tower(pixels)
        # Cloned outside of inference mode, so that training can use them.
        return VisionFeatures(image.float().clone(), local.float().clone())

    def tokenize(self, text: str) -> list[int]:
        """Token ids without start and end, cleaned as for CLIP; text that looks like a special token stays text."""
        ids: list[int] = self.tokenizer.encode(clean(text), add_special_tokens=False).ids
        return ids

    def embed_tokens(self, ids: Tensor) -> Tensor:
        """Ids (...) -> (..., 384)."""
        embedded: Tensor = self.text.words(ids)
        return embedded

    def encode_embeddings(self, embeddings: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, 384) -> (B, 256)."""
        features: Tensor = self.text(embeddings, lengths)
        return features.float()

    def token_table(self) -> Tensor:
        """All token embeddings, (30522, 384)."""
        return self.text.words.weight

    def word_of(self, token: int) -> str | None:
        """The whole word of a token, None for pieces ("##s"), marks and special tokens."""
        piece = self.tokenizer.id_to_token(token)
        return piece if piece is not None and piece.isalpha() else None

    def to(self, device: str | torch.device) -> MiniEncoder:
        """Move both towers."""
        self.image.to(device)
        self.text.to(device)
        return self


def save_mini(folder: Path, image: ImageTower, *, text: TextTower) -> None:
    """Write both towers' weights: float16, the word embeddings as bytes with one scale for each word."""
    tensors = {f"image.{name}": value.half() for name, value in image.state_dict().items()}
    tensors |= {f"text.{name}": value.half() for name, value in text.state_dict().items()}
    words = tensors.pop("text.words.weight").float()
    scale = words.abs().amax(dim=1) / 127
    tensors["text.words.bytes"] = (words / scale[:, None]).round().to(torch.int8)
    tensors["text.words.scale"] = scale
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in tensors.items()}, folder / "model.safetensors")


def load_mini(device: str | torch.device | None = None, folder: Path = FOLDER) -> MiniEncoder:
    """The bundled encoder. ModelError if its files are missing or damaged."""
    weights = folder / "model.safetensors"
    damaged = ModelError(f"The bundled model in {folder} is missing or damaged; install fti4cir again.")
    try:
        data = weights.read_bytes()
        tensors = load_file(weights)
    except (OSError, SafetensorError) as error:
        raise damaged from error
    try:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    except Exception as error:  # the library raises nothing more specific
        raise damaged from error
    tensors["text.words.weight"] = tensors.pop("text.words.bytes").float() * tensors.pop("text.words.scale")[:, None]
    with torch.device("meta"):  # skips initial values, which are overwritten anyway
        image, text = ImageTower(JOINT_WIDTH, VISION_WIDTH), TextTower(JOINT_WIDTH)
    for tower, prefix in ((image, "image."), (text, "text.")):
        state = {name.removeprefix(prefix): v.float() for name, v in tensors.items() if name.startswith(prefix)}
        tower.load_state_dict(state, assign=True)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    tokenizer.encode_special_tokens = True  # what a user types is text, also "[SEP]"
    encoder = MiniEncoder(image, text, tokenizer=tokenizer, fingerprint=hashlib.sha256(data).hexdigest()[:16])
    return encoder if device is None else encoder.to(device)


def load_encoder(folder: Path, name: str, dtype: Precision) -> MiniEncoder:
    """The bundled encoder, on the CPU. `name` and `dtype` are ignored: the processor decides the precision."""
    return load_mini(folder=folder)
