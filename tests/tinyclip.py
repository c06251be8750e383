"""A random CLIP small enough to make in a test, with a byte-level vocabulary of a few words."""

import json
from pathlib import Path

import torch
from PIL import Image
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPConfig, CLIPModel

from fti4cir.inversion.network import FineGrainedInversion, InversionConfig

WORDS = ("photo", "with", "but", "red", "dog", "cat", "black", "striped", "grass")
JOINT, VISION, TOKEN = 24, 48, 32
INPUT_SIZE, PATCH = 32, 8


def build(folder: Path, seed: int = 0) -> Path:
    """Write a CLIP as transformers saves it; another seed gives other weights."""
    alphabet = sorted(ByteLevel.alphabet())
    vocabulary = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    merges = []
    for word in WORDS:
        pieces = [*word[:-1], f"{word[-1]}</w>"]
        left = pieces[0]
        for right in pieces[1:]:
            if (left, right) not in merges:
                merges.append((left, right))
            left += right
            if left not in vocabulary:
                vocabulary.append(left)
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    start, end = len(vocabulary) - 2, len(vocabulary) - 1
    text = {
        "vocab_size": len(vocabulary),
        "hidden_size": TOKEN,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "bos_token_id": start,
        "eos_token_id": end,
        "pad_token_id": end,
    }
    vision = {
        "hidden_size": VISION,
        "intermediate_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "image_size": INPUT_SIZE,
        "patch_size": PATCH,
    }
    torch.manual_seed(seed)
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=JOINT))
    with torch.no_grad():
        for parameter in model.parameters():  # CLIP's own initial values make all features nearly equal
            parameter.add_(torch.randn_like(parameter) * 0.1)
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps({piece: i for i, piece in enumerate(vocabulary)}), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    tokenizer = {
        "tokenizer_class": "CLIPTokenizer",
        "bos_token": "<|startoftext|>",
        "eos_token": "<|endoftext|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|endoftext|>",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    processor = {"image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def random_inversion(seed: int = 0, **changes: object) -> FineGrainedInversion:
    """An inversion network that fits the tiny CLIP; K 6 and M 4 unless changed."""
    torch.manual_seed(seed)
    settings = {"num_latent": 6, "max_attributes": 4, **changes}
    return FineGrainedInversion(InversionConfig(JOINT, VISION, TOKEN, **settings)).eval()


def picture(seed: int = 0, size: tuple[int, int] = (48, 40)) -> Image.Image:
    """An image of random colours."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8, generator=generator)
    return Image.fromarray(pixels.numpy())
