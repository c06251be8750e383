"""How fast is a training step with CLIP ViT-B/32 here, beside the way the authors' release takes one? Prints JSON.

python perf/training.py [--captions FILE.csv] [--tokenizer FOLDER] [--batch 32] [--threads 2]

Both ways learn from the same images with the same losses, the preset `paper`'s, and take turns, so that whatever
else the machine does slows both. The CLIP has random weights, because their values do not change the cost.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
import re
import statistics
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from fti4cir.backbones.clip import ClipEncoder
from fti4cir.captions.split import SplitCaption, split
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import FineGrainedInversion, PseudoWords
from fti4cir.methods import registry
from fti4cir.methods.fti4cir import InversionObjective, InversionOptions
from fti4cir.training import losses
from fti4cir.training.config import TrainingConfig
from fti4cir.training.objective import Batch, Corpus
from fti4cir.training.state import make_optimizer

EPOCHS = 60
"""Over which the cost of what is computed once is spread: as many as the paper's."""
CAPTIONS = (
    ("a black dog", "running through the shallow water with a stick in its mouth"),
    ("a child", "in a pink dress is climbing up a set of stairs in an entry way"),
    ("two men", "in hard hats stand beside a yellow crane at a building site"),
    ("a girl", "going into a wooden building"),
    ("a man", "lays on a bench while his dog sits by him"),
    ("a group of people", "sit around a table full of food in a dimly lit restaurant"),
    ("a woman", "wearing a red jacket skis down a steep snowy slope"),
    ("a boy", "jumps off a swing"),
)
"""As long as those of Flickr8k, for a run without a file."""


class WordTokenizer:
    """Stands in for CLIP's: a token a word or mark, which is nearly what CLIP makes of such captions."""

    bos_token_id, eos_token_id = 49406, 49407

    def __call__(self, text: str, **_: object) -> SimpleNamespace:
        pieces = re.findall(r"\w+|[^\w\s]", text.lower())
        return SimpleNamespace(input_ids=[zlib.crc32(piece.encode()) % 49000 for piece in pieces])


def build_encoder(tokenizer: Path | None) -> ClipEncoder:
    """A CLIP of the shape of ViT-B/32 (the defaults of transformers), random."""
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    torch.manual_seed(0)
    words = CLIPTokenizer.from_pretrained(tokenizer, local_files_only=True) if tokenizer else WordTokenizer()
    return ClipEncoder(CLIPModel(CLIPConfig()), words, {"image_mean": [0.5] * 3, "image_std": [0.25] * 3}, "ViT-B/32")


def read_captions(file: Path | None, count: int) -> list[SplitCaption]:
    if file is None:
        return [SplitCaption(*CAPTIONS[i % len(CAPTIONS)]) for i in range(count)]
    if not file.is_file():
        sys.exit(f"There is no file '{file}'.")
    with open(file, newline="", encoding="utf-8") as rows:
        texts = [row["caption"] for row in csv.DictReader(rows)]
    texts = random.Random(0).sample(texts, min(len(texts), 2 * count))
    usable = [caption for caption in split(texts) if caption is not None]
    return [usable[i % len(usable)] for i in range(count)]


# ------------------------------------------------------------------ our way
class Ours:
    """As `training` takes a step: features from the cache, in bfloat16 where the processor multiplies it."""

    def __init__(self, config: TrainingConfig, encoder: ClipEncoder, network: FineGrainedInversion) -> None:
        self.config, self.encoder, self.network = config, encoder, network
        corpus = Corpus(encoder, torch.empty(0).numpy(), [], [], Path())
        self.objective = InversionObjective(config, corpus)
        self.optimizer = make_optimizer(config, network)
        self.bfloat16 = bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
        self.marks: list[tuple[str, float]] = []

    def prepare(self, pixels: Tensor, captions: Sequence[SplitCaption]) -> tuple[Batch, float]:
        """What is computed once, and the seconds it took: the features of images and real sentences."""
        start = time.perf_counter()
        features = self.encoder.encode_pixels(pixels)
        texts = [(self.network.config.template.real(*caption),) for caption in captions]
        with torch.no_grad():
            real = encode_sentences(self.encoder, texts)
        rows = list(range(len(captions)))
        batch = Batch(rows, list(captions), features.image, features.local.half(), real)
        return batch, time.perf_counter() - start

    def terms(self, batch: Batch, bfloat16: bool) -> dict[str, Tensor]:
        assert batch.local is not None
        batch = replace(batch, local=batch.local.float())
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            outputs = self.objective.outputs(self.network, batch)
        self.mark("text_tower_forward")
        return self.objective.terms(outputs, batch)

    def step(self, batch: Batch) -> None:
        self.optimizer.zero_grad()
        total = self.config.options.weights.total(self.terms(batch, self.bfloat16))
        self.mark("losses")
        total.backward()
        self.mark("network_backward")
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), float("inf"))
        assert torch.isfinite(norm)
        self.optimizer.step()
        self.mark("optimiser")

    def mark(self, name: str) -> None:
        self.marks.append((name, time.perf_counter()))

    def breakdown(self, batch: Batch, repeats: int) -> dict[str, float]:
        """Where a step's time goes, in milliseconds: medians."""

        def words_made(module: nn.Module, inputs: object, words: PseudoWords) -> None:
            self.mark("word_mappings_forward")
            # The gradient of the pseudo-words is there once that of the text tower is done.
            words.attributes.register_hook(lambda gradient: self.mark("text_tower_backward"))

        assert self.network.latent is not None
        hooks = [
            self.network.latent.register_forward_hook(lambda *_: self.mark("attribute_transformer_forward")),
            self.network.register_forward_hook(words_made),
        ]
        taken: dict[str, list[float]] = {}
        for _ in range(repeats):
            self.marks = []
            previous = time.perf_counter()
            self.step(batch)
            for name, moment in self.marks:
                taken.setdefault(name, []).append(1000 * (moment - previous))
                previous = moment
        for hook in hooks:
            hook.remove()
        return {name: round(statistics.median(values), 1) for name, values in taken.items()}


# ------------------------------------------------------------------ the release's way
class Release:
    """The same step as the authors' release takes it (docs/method.md), plainly.

    The frozen image tower runs twice an image in every step, each kind of sentence passes the text tower on its
    own, padded to 77 tokens, all in float32; attributes are chosen and put into sentences image by image.
    """

    def __init__(self, config: TrainingConfig, encoder: ClipEncoder, network: FineGrainedInversion) -> None:
        self.config, self.encoder, self.network = config, encoder, network
        self.optimizer = torch.optim.AdamW(
            network.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def terms(self, pixels: Tensor, captions: Sequence[SplitCaption]) -> dict[str, Tensor]:
        network, model = self.network, self.encoder.model
        assert network.latent is not None
        assert network.attribute is not None
        with torch.no_grad():
            image = model.visual_projection(model.vision_model(pixel_values=pixels).pooler_output)
            local = model.vision_model(pixel_values=pixels).last_hidden_state
        subject = network.subject(image)
        x = torch.cat([network.latent.queries.expand(len(local), -1, -1), local], dim=1)
        for layer in network.latent.layers:
            x = layer(x)
        latent = torch.sigmoid(network.latent.project(x[:, : network.config.num_latent]))
        chosen = [self.choose(*pair) for pair in zip(latent, image, strict=True)]
        selected = torch.stack([one for one, _ in chosen])
        words = network.attribute(selected)
        slots = [(subject[i, None], words[i, :count]) for i, (_, count) in enumerate(chosen)]
        whole = self.encode([["a photo of", s, "with", a] for s, a in slots])
        pseudo_subject = self.encode(
            [["a photo of", s, f"with {text.attribute}"] for (s, _), text in zip(slots, captions, strict=True)]
        )
        pseudo_attributes = self.encode(
            [[f"a photo of {text.subject} with", a] for (_, a), text in zip(slots, captions, strict=True)]
        )
        with torch.no_grad():
            real = self.encode([[f"a photo of {text.subject} with {text.attribute}"] for text in captions])
        return {
            "contrastive": losses.contrastive(image, whole, self.config.options_as(InversionOptions).temperature),
            "orthogonality": losses.orthogonality(selected),
            "regularization_subject": losses.regularization(pseudo_subject, real),
            "regularization_attributes": losses.regularization(pseudo_attributes, real),
            "regularization_whole": losses.regularization(whole, real),
        }

    def choose(self, latent: Tensor, image: Tensor) -> tuple[Tensor, int]:
        """One image's attributes (M, D), those that make words first, and how many do."""
        most, threshold = self.network.config.max_attributes, self.network.config.threshold
        relevance = (latent @ image).softmax(dim=0).tolist()
        order = sorted(range(len(relevance)), key=lambda index: -relevance[index])[:most]
        kept = [index for index in order if threshold is None or relevance[index] > threshold] or order[:1]
        others = [index for index in order if index not in kept]
        return F.normalize(latent[sorted(kept) + others], dim=-1), len(kept)

    def encode(self, sentences: Sequence[Sequence[str | Tensor]]) -> Tensor:
        encoder, tower = self.encoder, self.encoder.model.text_model
        rows, ends = [], []
        for sentence in sentences:
            parts = [encoder.embed_tokens(torch.tensor([encoder.start_token]))]
            for piece in sentence:
                parts.append(
                    encoder.embed_tokens(torch.tensor(encoder.tokenize(piece))) if isinstance(piece, str) else piece
                )
            parts.append(encoder.embed_tokens(torch.tensor([encoder.end_token])))
            row = torch.cat(parts)
            ends.append(len(row) - 1)
            rows.append(torch.cat([row, row.new_zeros(encoder.context_length - len(row), row.shape[1])]))
        x = tower.embeddings(inputs_embeds=torch.stack(rows))
        mask = torch.full((encoder.context_length, encoder.context_length), float("-inf")).triu(1)
        x = tower.encoder(inputs_embeds=x, attention_mask=mask[None, None]).last_hidden_state
        return encoder.model.text_projection(tower.final_layer_norm(x)[torch.arange(len(x)), ends])

    def step(self, pixels: Tensor, captions: Sequence[SplitCaption]) -> None:
        self.optimizer.zero_grad()
        self.config.options.weights.total(self.terms(pixels, captions)).backward()
        self.optimizer.step()


# ------------------------------------------------------------------ measuring
def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def peak(dtype: torch.dtype) -> float:
    """The most operations a second that a large product of matrices gets here."""
    a = torch.randn(2048, 2048).to(dtype)
    return 2 * 2048**3 / min(seconds(lambda: a @ a) for _ in range(10))


def operations(run: Callable[[], object]) -> int:
    """Of the matrix products of a run, forwards and backwards; a multiplication and an addition are two."""
    with FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--captions", type=Path, help="a CSV with a column caption; by default a few built in")
    parser.add_argument("--tokenizer", type=Path, help="a CLIP's folder; by default a stand-in, a token a word")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--all-attributes", action="store_true", help="all 12 make words: the longest sentences")
    options = parser.parse_args()

    torch.set_num_threads(options.threads)
    encoder = build_encoder(options.tokenizer)
    captions = read_captions(options.captions, options.batch)
    changes: dict[str, Any] = {"network.threshold": None} if options.all_attributes else {}
    config = registry.preset("paper", batch_size=options.batch, **changes)
    torch.manual_seed(0)
    network = FineGrainedInversion(config.network.for_encoder(encoder))
    ours, release = Ours(config, encoder, network), Release(config, encoder, deepcopy(network))
    pixels = torch.randn(options.batch, 3, encoder.input_size, encoder.input_size)
    batch, once = ours.prepare(pixels, captions)
    assert batch.local is not None

    # The same losses? In evaluation mode, for dropout draws at random; local features are kept in half precision.
    ours.network.eval(), release.network.eval()
    with torch.no_grad():
        expected = release.terms(pixels, captions)
        found = {precision: ours.terms(batch, precision == "bfloat16") for precision in ("float32", "bfloat16")}
        counts = ours.network(batch.image, batch.local.float()).counts.float()
    off = {
        precision: max(abs(terms[name].item() - expected[name].item()) for name in expected)
        for precision, terms in found.items()
    }
    if off["float32"] > 1e-4:
        sys.exit(f"The two ways differ: {found['float32']}, but {expected}.")

    ours.network.train(), release.network.train()
    work = {
        "ours": operations(lambda: ours.step(batch)),
        "release": operations(lambda: release.step(pixels, captions)),
    }
    ours.step(batch)
    taken: dict[str, list[float]] = {"ours": [], "release": []}
    peaks = {"float32": 0.0, "bfloat16": 0.0}
    for _ in range(options.repeats):
        taken["ours"].append(statistics.median(seconds(lambda: ours.step(batch)) for _ in range(3)))
        taken["release"].append(seconds(lambda: release.step(pixels, captions)))
        peaks = {name: max(value, peak(getattr(torch, name))) for name, value in peaks.items()}
    typical, least = ({name: of(values) for name, values in taken.items()} for of in (statistics.median, min))
    precision = {"ours": "bfloat16" if ours.bfloat16 else "float32", "release": "float32"}
    result = {
        "threads": options.threads,
        "batch": options.batch,
        "captions": str(options.captions or "built in"),
        "tokenizer": "CLIP's" if options.tokenizer else "stand-in, a token a word",
        "attribute_words_per_image": round(counts.mean().item(), 2),
        "largest_difference_of_a_loss": off,
        "precision": precision,
        "samples_a_second": {name: round(options.batch / value, 2) for name, value in typical.items()},
        f"samples_a_second_with_features_over_{EPOCHS}_epochs": round(
            options.batch / (typical["ours"] + once / EPOCHS), 2
        ),
        "ratio": round(statistics.median(map(lambda a, b: b / a, taken["ours"], taken["release"])), 2),
        "ratios": [round(b / a, 2) for a, b in zip(taken["ours"], taken["release"], strict=True)],
        "gigaflop_a_sample": {name: round(value / options.batch / 1e9, 2) for name, value in work.items()},
        "gigaflop_a_second_at_best": {name: round(value / 1e9) for name, value in peaks.items()},
        # Of the fastest repeat, as the peak is: the least disturbed one.
        "share_of_the_peak": {name: round(work[name] / least[name] / peaks[precision[name]], 3) for name in work},
        "milliseconds_of_our_step": ours.breakdown(batch, options.repeats),
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
