"""A random BLIP small enough to make in a test, with a vocabulary of a few words."""

import json
from pathlib import Path

import torch
from transformers import BlipConfig, BlipForConditionalGeneration

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WORDS = ("a", "picture", "of", "dog", "cat", "red", "black", "on", "the", "grass", "with", "sun", "##s", ".")
INPUT_SIZE = 32
MEAN, STD = [0.48, 0.46, 0.41], [0.27, 0.26, 0.28]


def build(folder: Path, seed: int = 3) -> Path:
    """Write a BLIP captioner as the hub has it; another seed gives other weights."""
    vocabulary = [*SPECIAL, *WORDS]
    start = len(vocabulary)  # beyond the tokeniser's words, as in the real one
    layers = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {
        **layers,
        "vocab_size": start + 2,
        "encoder_hidden_size": 32,
        "projection_dim": 32,
        "max_position_embeddings": 40,
        "bos_token_id": start,
        "sep_token_id": SPECIAL.index("[SEP]"),
    }
    vision = {**layers, "image_size": INPUT_SIZE, "patch_size": 8}
    torch.manual_seed(seed)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=32))
    with torch.no_grad():
        for parameter in model.parameters():  # BLIP's own initial values make all captions nearly equal
            parameter.add_(torch.randn_like(parameter) * 0.2)
        likely = model.text_decoder.cls.predictions.bias
        likely[: len(SPECIAL)] -= 20
        likely[SPECIAL.index("[SEP]")] += 21
        likely[start:] -= 20
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(vocabulary) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "do_lower_case": true}')
    size = {"height": INPUT_SIZE, "width": INPUT_SIZE}
    processor = {"image_processor_type": "BlipImageProcessor", "image_mean": MEAN, "image_std": STD, "size": size}
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder
