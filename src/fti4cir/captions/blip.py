"""Captions from BLIP (Li et al., 2022), by the recipe of FTI4CIR, section 3.3."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from transformers import BertTokenizer, BlipForConditionalGeneration

from ..errors import InputError, ModelError
from ..images.preprocess import square
from ..models.names import CAPTIONER, CAPTIONER_FILES, CAPTIONER_WEIGHTS, fetch_captioner
from .split import cut_last_word

BASE = CAPTIONER
"""The base captioner on the hub. transformers' script made it of the release's file, `model_base_capfilt_large.pth`."""

PROMPT = "a picture of"
"""How each caption begins before it is cut off, as in BLIP's own code."""
BEAMS = 3
SHORTEST, LONGEST = 10, 25
"""Tokens of a caption. As in BLIP's own code, the start and the prompt count, four of them, and so does the end."""

Preprocessing = Literal["target-pad", "squeeze"]
"""How an image becomes a square. `target-pad`: as in FTI4CIR's release, padded, then the centre cut out. `squeeze`: as
in BLIP's own code, all of it, with its sides pressed to one length."""
PREPROCESSINGS: tuple[Preprocessing, ...] = get_args(Preprocessing)


class BlipCaptioner:
    """Thin adapter of `transformers.BlipForConditionalGeneration`, frozen and in evaluation mode."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        processor: dict[str, Any],
        name: str,
        fingerprint: str,
        preprocessing: Preprocessing = "target-pad",
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer = tokenizer
        self.name = name
        self.preprocessing = preprocessing
        self.fingerprint = fingerprint
        """Another one gives other captions."""
        self.input_size: int = model.config.vision_config.image_size
        self._mean = torch.tensor(processor["image_mean"])[:, None, None]
        self._std = torch.tensor(processor["image_std"])[:, None, None]
        self._prompt = tokenizer(PROMPT, return_tensors="pt").input_ids  # (1, start, words and end)

    def preprocess(self, image: Image.Image) -> Tensor:
        """Upright RGB image to (3, S, S) float32: made a square, see `Preprocessing`, and normalised."""
        if self.preprocessing == "target-pad":
            image = square(image, self.input_size)
        else:
            image = image.resize((self.input_size, self.input_size), Image.Resampling.BICUBIC)
        pixels = np.asarray(image, dtype=np.float32) / 255
        return (torch.from_numpy(pixels).permute(2, 0, 1) - self._mean) / self._std

    @torch.no_grad()
    def caption(self, pixels: Tensor) -> list[str]:
        """(B, 3, S, S) -> B captions, by beam search, without the prompt and the last word's repeats."""
        ids = self.model.generate(
            pixels.to(self.model.device, self.model.dtype),
            # `generate` writes the start into its input and takes the end off it.
            input_ids=self._prompt.repeat(len(pixels), 1).to(self.model.device),
            num_beams=BEAMS, min_length=SHORTEST, max_length=LONGEST, do_sample=False,
        )  # fmt: skip
        prompt_length = self._prompt.shape[1] - 1
        texts = self.tokenizer.batch_decode(ids[:, prompt_length:], skip_special_tokens=True)
        return [cut_last_word(text) for text in texts]


def load_captioner(
    name_or_dir: str | Path = BASE,
    device: str | torch.device | None = None,
    preprocessing: Preprocessing = "target-pad",
) -> BlipCaptioner:
    """Load a BLIP captioner: in float32 on a CPU, in float16 on a GPU.

    Args:
        name_or_dir: its name on the Hugging Face hub, downloaded on first use, or its folder.
        device: where it runs; None: a CUDA device if there is one, else the CPU.
        preprocessing: how an image becomes a square.

    Raises:
        InputError: if there is no such preprocessing.
        ModelError: if there is no such captioner, it cannot be downloaded, is damaged, or is something else.

    """
    if preprocessing not in PREPROCESSINGS:
        raise InputError(f"There is no preprocessing {preprocessing!r}; there are {', '.join(PREPROCESSINGS)}.")
    name, folder = str(name_or_dir), Path(name_or_dir).expanduser()
    if not folder.is_dir():
        folder = fetch_captioner(name)
    where = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = torch.float16 if where.type == "cuda" else torch.float32
    kind = _kind(folder)
    if kind != "blip":
        raise ModelError(f"{name} is not a BLIP that captions: its config.json says {kind!r}.")
    try:
        processor = _read_processor(folder)
        model, info = BlipForConditionalGeneration.from_pretrained(
            folder, dtype=dtype, local_files_only=True, weights_only=True, output_loading_info=True
        )
        captioner = BlipCaptioner(
            model.to(where),
            BertTokenizer.from_pretrained(folder, local_files_only=True),
            processor,
            name,
            _fingerprint(folder, dtype, preprocessing),
            preprocessing,
        )
    except Exception as error:
        # transformers, tokenizers and safetensors raise errors of almost any class for files that are damaged.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(
            f"The captioner in {folder} cannot be loaded, its files may be missing or damaged ({reason})."
        ) from error
    # transformers fills what is missing with random numbers.
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ModelError(
            f"{name} is not a BLIP that captions: "
            f"{len(info['missing_keys']) + len(info['mismatched_keys'])} of a captioner's weights are not in it."
        )
    # And it makes do without a vocabulary. Two marks of BLIP's decoder are usually not in it.
    if len(captioner.tokenizer) < model.config.text_config.vocab_size - 2:
        raise ModelError(f"The vocabulary of {folder} (vocab.txt or tokenizer.json) is missing or not complete.")
    return captioner


def _kind(folder: Path) -> object:
    """What a model says it is; ModelError if it does not."""
    try:
        return json.loads((folder / "config.json").read_text(encoding="utf-8"))["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{folder} holds no captioner: its config.json is missing or damaged ({error}).") from error


def _read_processor(folder: Path) -> dict[str, Any]:
    """The settings of the preprocessing; transformers 5 saves them as a part of the whole processor's."""
    own, whole = folder / "preprocessor_config.json", folder / "processor_config.json"
    if own.exists() or not whole.exists():
        return json.loads(own.read_text(encoding="utf-8"))
    return json.loads(whole.read_text(encoding="utf-8"))["image_processor"]


def _fingerprint(folder: Path, dtype: torch.dtype, preprocessing: Preprocessing) -> str:
    """Hash of all that decides the captions: the recipe, the precision, and each of the captioner's files."""
    digest = hashlib.sha256(json.dumps([PROMPT, BEAMS, SHORTEST, LONGEST, str(dtype), preprocessing]).encode())
    for path in sorted({path for pattern in [*CAPTIONER_FILES, *CAPTIONER_WEIGHTS] for path in folder.glob(pattern)}):
        with open(path, "rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]
