"""Training the inversion network on captioned pictures that nobody labelled.

    config = training.preset("composed")
    training.train(config, "pictures/", "captions.jsonl", "mini", "my-model/")

The encoder is frozen, so its features of every picture are computed once, into OUTPUT/features, and read from
there. OUTPUT/checkpoint.pt holds everything that a step depends on: a training that was killed goes on from it
and ends with the same weights, bit for bit on one machine's CPU, as one that was not.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import os
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from . import checkpoint, losses
from .backbones.base import DualEncoder
from .captions.edit import edit
from .captions.split import SplitCaption, split
from .datasets import captioned
from .datasets.captioned import CaptionedPictures
from .errors import PictureError, TrainingError
from .inversion import prompts
from .inversion.compose import encode_sentences
from .inversion.network import FineGrainedInversion, InversionConfig, PseudoWords
from .losses import LossWeights
from .pictures import decode_picture

Say = Callable[[str], None]


@dataclass(frozen=True)
class TrainingConfig:
    """Everything that decides what a training gives. The defaults are the paper's, as its release has them."""

    epochs: int = 60
    """How often each picture is seen, with one of its captions."""
    batch_size: int = 256
    """Pictures a step; with the contrastive losses, more is not only faster."""
    learning_rate: float = 4e-5
    weight_decay: float = 0.01
    schedule: Literal["step", "cosine"] = "step"
    """`step`: a tenth of the learning rate from `decay_epoch` on; `cosine`: down to zero."""
    decay_epoch: int = 10
    warmup_steps: int = 0
    """The learning rate rises linearly over these."""
    clip_norm: float | None = None
    """The gradient's norm is held below this."""
    average: float = 0.0
    """Decay of the exponential average of the weights, which then is what is saved; 0: the last weights."""
    temperature: float = 0.20
    """Of the contrastive loss."""
    composed_temperature: float = 0.07
    """Of the composed loss."""
    weights: LossWeights = field(default_factory=LossWeights)
    num_latent: int = 24
    max_attributes: int = 12
    threshold: float | None = 0.05
    layers: int = 3
    heads: int = 1
    dropout: float = 0.5
    """These six as in `InversionConfig`."""
    bfloat16: bool = False
    """Run the step in bfloat16 where the processor multiplies it in hardware."""
    validation: int = 500
    """Pictures kept out of training to measure on, at most a tenth of all."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        if self.learning_rate <= 0:
            raise TrainingError(f"learning_rate is {self.learning_rate}, but must be above 0.")
        if self.schedule not in ("step", "cosine"):
            raise TrainingError(f"schedule is {self.schedule!r}, but must be step or cosine.")
        if not 0 <= self.average < 1:
            raise TrainingError(f"average is {self.average}, but must lie in [0, 1).")
        for name in ("weight_decay", "warmup_steps", "validation", "decay_epoch"):
            if getattr(self, name) < 0:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must not be negative.")

    def network(self, encoder: DualEncoder) -> InversionConfig:
        """The network's configuration for an encoder."""
        return InversionConfig(
            encoder.joint_width, encoder.vision_width, encoder.token_width, self.num_latent, self.max_attributes,
            self.threshold, self.layers, self.heads, self.dropout,
        )  # fmt: skip

    def learning_rate_at(self, step: int, steps_per_epoch: int) -> float:
        """The learning rate of a step, counted from 0."""
        rate = self.learning_rate * min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * step / (self.epochs * steps_per_epoch)))
        return rate * (0.1 if step >= self.decay_epoch * steps_per_epoch else 1.0)


PRESETS: dict[str, TrainingConfig] = {
    "paper": TrainingConfig(),
    "composed": TrainingConfig(
        epochs=8, batch_size=128, learning_rate=5e-4, schedule="cosine", warmup_steps=50, clip_norm=1.0, average=0.998,
        weights=LossWeights(composed=2.0), dropout=0.2, bfloat16=True,
    ),
}  # fmt: skip
"""`paper`: the release's recipe. `composed`: ours, with the composed loss, for small encoders and few pictures."""


def preset(name: str, **changes: Any) -> TrainingConfig:
    """A preset with some of its fields changed. TrainingError if there is no such preset."""
    if name not in PRESETS:
        raise TrainingError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    return replace(PRESETS[name], **changes)


# ------------------------------------------------------------------ features, computed once
class FeatureCache:
    """Image features (N, D) float32 and local features (N, P, V) float16 in two memory-mapped files."""

    def __init__(self, folder: Path, image: np.ndarray, local: np.ndarray, state: np.ndarray) -> None:
        self.folder = folder
        self.image, self.local, self.state = image, local, state

    @classmethod
    def open(cls, folder: Path, encoder: DualEncoder, data: CaptionedPictures) -> FeatureCache:
        """Open the cache, or lay one out if there is none for this encoder and these pictures.

        Raises TrainingError if the disk has too little room for it.
        """
        key = hashlib.sha256(json.dumps([encoder.fingerprint, str(data.source), data.names]).encode()).hexdigest()
        files = [folder / f"{part}.npy" for part in ("image", "local", "state")]
        if (folder / "key").exists() and (folder / "key").read_text() == key:
            return cls(folder, *(np.load(file, mmap_mode="r+") for file in files))
        probe = encoder.encode_pixels(torch.zeros(1, 3, encoder.input_size, encoder.input_size))
        count, tokens = len(data), probe.local.shape[1]
        shapes: list[tuple[tuple[int, ...], Any]] = [
            ((count, encoder.joint_width), np.float32),
            ((count, tokens, encoder.vision_width), np.float16),
            ((count,), np.uint8),
        ]
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        needed = sum(math.prod(shape) * np.dtype(kind).itemsize for shape, kind in shapes)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise TrainingError(
                f"The features of {count} pictures take {needed / 1e9:.1f} GB, but {folder} has only "
                f"{free / 1e9:.1f} GB left; choose an output folder on a larger disk or fewer pictures."
            )
        arrays = [
            np.lib.format.open_memmap(file, "w+", dtype=kind, shape=shape)
            for file, (shape, kind) in zip(files, shapes, strict=True)
        ]
        (folder / "key").write_text(key)
        return cls(folder, *arrays)

    def fill(self, encoder: DualEncoder, data: CaptionedPictures, say: Say) -> list[PictureError]:
        """Compute what is not there yet; gives the errors of the pictures that cannot be read."""
        todo = np.flatnonzero(self.state == 0)
        broken: list[PictureError] = []
        started = time.monotonic()
        with data.reader() as read, ThreadPoolExecutor(2) as pool:

            def prepare(item: tuple[int, bytes | PictureError]) -> tuple[int, Tensor | PictureError]:
                index, content = item
                if isinstance(content, PictureError):
                    return index, content
                try:
                    picture = decode_picture(content, data.names[index], encoder.input_size)
                except PictureError as error:
                    return index, error
                return index, encoder.preprocess(picture.image)

            def contents(block: Sequence[int]) -> Iterator[tuple[int, bytes | PictureError]]:
                for index in block:
                    try:
                        yield index, read(data.names[index])
                    except PictureError as error:
                        yield index, error

            done = 0
            for block in (todo[start : start + 64].tolist() for start in range(0, len(todo), 64)):
                good: list[tuple[int, Tensor]] = []
                for index, result in pool.map(prepare, contents(block)):
                    if isinstance(result, PictureError):
                        broken.append(result)
                        self.state[index] = 2
                    else:
                        good.append((index, result))
                if good:
                    rows = [index for index, _ in good]
                    features = encoder.encode_pixels(torch.stack([pixels for _, pixels in good]))
                    self.image[rows] = features.image.cpu().numpy()
                    self.local[rows] = features.local.cpu().numpy()
                    self.state[rows] = 1
                done += len(block)
                if done % 1024 < 64:
                    say(f"features: {done} of {len(todo)} pictures, {done / (time.monotonic() - started):.0f} a second")
        return broken

    def take(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Image features (B, D) and local features (B, P, V) of these rows, float32."""
        image = torch.from_numpy(self.image[rows]).to(device)
        return image, torch.from_numpy(self.local[rows]).to(device).float()


# ------------------------------------------------------------------ one step
@dataclass(frozen=True)
class Batch:
    """B pictures by their rows in the cache, with a caption each and, for the composed loss, an edit of it."""

    rows: list[int]
    captions: list[SplitCaption]
    modifications: list[str]
    edited: list[str]


def loss_terms(
    config: TrainingConfig,
    encoder: DualEncoder,
    inversion: FineGrainedInversion,
    image: Tensor,
    local: Tensor,
    batch: Batch,
) -> tuple[dict[str, Tensor], PseudoWords]:
    """The losses of a batch by name, those of weight zero left out, and the pseudo-words.

    All sentences that hold pseudo-words pass the text tower together, each at its real length; so do, without
    gradient, those of real words.
    """
    weights = config.weights
    words = inversion(image, local)
    count = len(image)
    whole, composed = _sentences_of(inversion)
    sentences: dict[str, list[prompts.Sentence]] = {"whole": [whole()] * count}
    if weights.regularization_subject:
        sentences["subject"] = [prompts.pseudo_subject(caption.attribute) for caption in batch.captions]
    if weights.regularization_attributes and config.max_attributes:
        sentences["attributes"] = [prompts.pseudo_attributes(caption.subject) for caption in batch.captions]
    if weights.composed:
        sentences["composed"] = [composed(modification) for modification in batch.modifications]
    together = [sentence for group in sentences.values() for sentence in group]
    owner = torch.arange(count).repeat(len(sentences))
    features = encode_sentences(encoder, together, words, owner)
    pseudo = dict(zip(sentences, features.split(count), strict=True))
    with torch.no_grad():
        real_sentences = [prompts.real(caption.subject, caption.attribute) for caption in batch.captions]
        edited_sentences: list[prompts.Sentence] = [(text,) for text in batch.edited] if weights.composed else []
        real_features = encode_sentences(encoder, [*real_sentences, *edited_sentences])
        real, edited = real_features[:count], real_features[count:]
    terms: dict[str, Tensor] = {}
    if weights.contrastive:
        terms["contrastive"] = losses.contrastive(image, pseudo["whole"], config.temperature)
    if weights.orthogonality and config.max_attributes:
        terms["orthogonality"] = losses.orthogonality(words.selected)
    for name, key in (("subject", "subject"), ("attributes", "attributes"), ("whole", "whole")):
        if getattr(weights, f"regularization_{name}") and key in pseudo:
            terms[f"regularization_{name}"] = losses.regularization(pseudo[key], real)
    if weights.composed:
        terms["composed"] = losses.composed(pseudo["composed"], edited, real, config.composed_temperature)
    return terms, words


def _sentences_of(inversion: FineGrainedInversion) -> tuple[Callable[..., prompts.Sentence], ...]:
    whole = prompts.whole if inversion.config.max_attributes else prompts.subject_only
    return whole, whole


# ------------------------------------------------------------------ the loop
def train(
    config: TrainingConfig,
    images: str | Path,
    captions: str | Path,
    backbone: str,
    output: str | Path,
    *,
    resume: bool = False,
    say: Say = print,
    features: str | Path | None = None,
) -> Path:
    """Train an inversion network and save it in `output`, which `fti4cir.load` then reads.

    Args:
        config: see `preset`.
        images: a folder or a tar file of pictures.
        captions: a CSV or JSON lines file, see `datasets.captioned.load`.
        backbone: the encoder, by a name or folder that `fti4cir.load` knows.
        output: a folder; also gets `log.csv`, one row a report, and what a later `resume` needs.
        resume: go on from the checkpoint in `output`, or begin if there is none.
        say: gets a line of progress now and then.
        features: where the features are kept; None: in `output`. Trainings of the same encoder on the same
            pictures can share a folder, one after the other.

    Raises:
        TrainingError: if the output holds another training, or the loss is no longer a finite number; the
            last checkpoint stays.
        InputError, ModelError: as the data and the backbone demand.

    """
    output = Path(output)
    state_file = output / "checkpoint.pt"
    if state_file.exists() and not resume:
        raise TrainingError(f"{output} holds a training already; go on with it (--resume) or choose another folder.")
    encoder = checkpoint.load(backbone).encoder
    data = captioned.load(images, captions)
    if data.missing:
        say(f"{len(data.missing)} captioned pictures are not in {images}, such as {data.missing[0]}; left out")
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TrainingError(f"The output folder {output} cannot be made: {error.strerror}.") from error
    split_captions = _split_all(data, say)
    cache = FeatureCache.open(Path(features) if features else output / "features", encoder, data)
    for error in cache.fill(encoder, data, say):
        say(f"left out: {error}")
    usable = [row for row in range(len(data)) if cache.state[row] == 1 and split_captions[row]]
    training, validation = _hold_out(usable, data, config.validation)
    if len(training) < 2:
        raise TrainingError(f"Only {len(training)} pictures with usable captions are left; training needs at least 2.")
    say(f"training on {len(training)} pictures, measuring on {len(validation)} others")
    run = _Run(config, encoder, cache, split_captions, training, validation, output, say)
    if state_file.exists():
        run.restore(state_file)
    try:
        run.loop()
    except KeyboardInterrupt:
        say(f"interrupted; what is done up to step {run.saved_step} is kept: go on with --resume")
        raise
    return checkpoint.save(output, run.result(), encoder, run.describe(images, captions))


def _split_all(data: CaptionedPictures, say: Say) -> list[list[SplitCaption]]:
    flat = [caption for group in data.captions for caption in group]
    plain = [caption.text for caption in flat if caption.parts is None]
    parts = iter(split(plain) if plain else [])
    result: list[list[SplitCaption]] = []
    dropped = 0
    for group in data.captions:
        found = [SplitCaption(*caption.parts) if caption.parts else next(parts) for caption in group]
        kept = [part for part in found if part is not None]
        dropped += len(found) - len(kept)
        result.append(kept)
    if dropped:
        say(f"{dropped} of {len(flat)} captions have no noun, or nothing after it, or too few words; left out")
    return result


def _hold_out(usable: list[int], data: CaptionedPictures, most: int) -> tuple[list[int], list[int]]:
    """Rows for training and for validation, decided by a hash of the picture's name."""
    count = min(most, len(usable) // 10)
    by_hash = sorted(usable, key=lambda row: hashlib.sha256(data.names[row].encode()).digest())
    return sorted(by_hash[count:]), sorted(by_hash[:count])


class _Run:
    """The state of one training, and its loop."""

    def __init__(
        self,
        config: TrainingConfig,
        encoder: DualEncoder,
        cache: FeatureCache,
        captions: list[list[SplitCaption]],
        training: list[int],
        validation: list[int],
        output: Path,
        say: Say,
    ) -> None:
        self.config, self.encoder, self.cache, self.captions = config, encoder, cache, captions
        self.training, self.validation, self.output, self.say = training, validation, output, say
        torch.manual_seed(config.seed)
        self.inversion = FineGrainedInversion(config.network(encoder)).to(encoder.device)
        self.optimizer = torch.optim.AdamW(
            self.inversion.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.average = {name: value.detach().clone() for name, value in self.inversion.named_parameters()}
        self.batch_size = min(config.batch_size, len(training))
        self.steps_per_epoch = len(training) // self.batch_size
        self.total_steps = self.steps_per_epoch * config.epochs
        self.step = 0
        self.saved_step = 0
        self.sums: dict[str, float] = {}
        self.figures: dict[str, float] = {}
        self.data_key = hashlib.sha256(json.dumps([training, captions]).encode()).hexdigest()[:16]

    # -- what a step sees depends on the seed and the step alone, never on the steps before it
    def batch(self, step: int) -> Batch:
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.training))
        places = order[within * self.batch_size : (within + 1) * self.batch_size]
        return self.make_batch([self.training[place] for place in places], random.Random(f"{self.config.seed} {step}"))

    def make_batch(self, rows: list[int], random_: random.Random) -> Batch:
        chosen = [random_.choice(self.captions[row]) for row in rows]
        modifications, edited = [], []
        if self.config.weights.composed:
            for row, caption in zip(rows, chosen, strict=True):
                # What stands beside a picture in a folder is often of its kind, and makes a plausible edit.
                near = [other for other in range(max(0, row - 200), row + 200) if other < len(self.captions)]
                other = next((found for _ in range(20) if (found := self.captions[random_.choice(near)])), [caption])
                result = edit(caption, random_.choice(other), random_)
                modifications.append(result.modification)
                edited.append(result.caption)
        return Batch(rows, chosen, modifications, edited)

    def loop(self) -> None:
        config = self.config
        started, first, pace = time.monotonic(), self.step, time.monotonic()
        self.inversion.train()
        torch.manual_seed(config.seed + 1) if self.step == 0 else None
        while self.step < self.total_steps:
            rate = config.learning_rate_at(self.step, self.steps_per_epoch)
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            batch = self.batch(self.step)
            image, local = self.cache.take(batch.rows, self.encoder.device)
            with self.precision():
                terms, words = loss_terms(config, self.encoder, self.inversion, image, local, batch)
            total = config.weights.total(terms)
            if not torch.isfinite(total):
                raise TrainingError(
                    f"The loss is {total.item()} at step {self.step}; the state of step {self.saved_step} is kept. "
                    "Try a smaller learning rate."
                )
            self.optimizer.zero_grad()
            total.backward()  # type: ignore[no-untyped-call]
            if config.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(self.inversion.parameters(), config.clip_norm)
            self.optimizer.step()
            self.step += 1
            self.update_average()
            for name, value in {**terms, "total": total, "attributes": words.counts.float().mean()}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value.item()
            self.sums["steps"] = self.sums.get("steps", 0) + 1
            last = self.step == self.total_steps
            if self.step % self.steps_per_epoch == 0 or last:
                self.figures = self.validate()
            if self.step % max(1, min(50, self.steps_per_epoch)) == 0 or last or self.figures:
                left = (time.monotonic() - started) / (self.step - first) * (self.total_steps - self.step)
                self.report(rate, left)
            if time.monotonic() - pace > 60 or last or self.step % self.steps_per_epoch == 0:
                self.save()
                pace = time.monotonic()

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        device = self.encoder.device.type
        fast = self.config.bfloat16 and (
            torch.cuda.is_bf16_supported() if device == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
        with torch.autocast(device, torch.bfloat16, enabled=bool(fast)):
            yield

    @torch.no_grad()
    def update_average(self) -> None:
        if self.config.average:
            decay = min(self.config.average, self.step / (self.step + 10))
            for name, value in self.inversion.named_parameters():
                self.average[name].lerp_(value, 1 - decay)

    def result(self) -> FineGrainedInversion:
        """The network to keep: with averaged weights if the configuration says so."""
        network = FineGrainedInversion(self.inversion.config).to(self.encoder.device)
        network.load_state_dict(self.average if self.config.average else self.inversion.state_dict())
        return network.eval()

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Figures on the pictures kept out: the losses, and two retrieval rates.

        `val_image_R@1`: the share of pseudo-sentences whose nearest picture is their own;
        `val_composed_R@1`: of composed sentences whose nearest caption is the edited one.
        """
        if not self.validation:
            return {}
        network = self.result()
        batch = self.make_batch(self.validation, random.Random(f"{self.config.seed} validation"))
        wholes, composed, pictures, edited, real = [], [], [], [], []
        whole, modified = _sentences_of(network)
        for start in range(0, len(batch.rows), 64):
            part = slice(start, start + 64)
            image, local = self.cache.take(batch.rows[part], self.encoder.device)
            words = network(image, local)
            pictures.append(image)
            wholes.append(encode_sentences(self.encoder, [whole()] * len(image), words))
            real.append(encode_sentences(self.encoder, [prompts.real(*c) for c in batch.captions[part]]))
            if batch.edited:
                composed.append(encode_sentences(self.encoder, [modified(m) for m in batch.modifications[part]], words))
                edited.append(encode_sentences(self.encoder, [(text,) for text in batch.edited[part]]))
        own = torch.arange(len(batch.rows), device=self.encoder.device)

        def rate(queries: list[Tensor], keys: list[Tensor]) -> float:
            scores = F.normalize(torch.cat(queries), dim=-1) @ F.normalize(torch.cat(keys), dim=-1).T
            return (scores[own, own] >= scores.amax(dim=1) - 1e-6).float().mean().item()

        figures = {"val_image_R@1": rate(wholes, pictures)}
        if composed:
            figures["val_composed_R@1"] = rate(composed, [*edited, *real])
        return figures

    def report(self, rate: float, left: float) -> None:
        """One row of the log, with means since the last, and one line for people."""
        steps = self.sums.pop("steps")
        row = {name: value / steps for name, value in self.sums.items()} | self.figures
        self.sums, self.figures = {}, {}
        columns = ["step", "epoch", "learning_rate", "total", *vars(self.config.weights), "attributes"]
        columns += ["val_image_R@1", "val_composed_R@1"]
        file = self.output / "log.csv"
        new = not file.exists()
        with open(file, "a", newline="", encoding="utf-8") as log:
            writer = csv.DictWriter(log, columns, restval="")
            if new:
                writer.writeheader()
            writer.writerow(
                {"step": self.step, "epoch": self.step / self.steps_per_epoch, "learning_rate": rate, **row}
            )
        shown = ", ".join(f"{name} {value:.3f}" for name, value in row.items())
        self.say(f"step {self.step} of {self.total_steps}: {shown}; about {left / 60:.0f} min left")

    def save(self) -> None:
        """Write the checkpoint beside its final name, then move it there."""
        state = {
            "config": asdict(self.config),
            "encoder": self.encoder.fingerprint,
            "data": self.data_key,
            "step": self.step,
            "inversion": self.inversion.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self.encoder.device.type == "cuda" else [],
            "sums": self.sums,
        }
        partial = self.output / f"checkpoint.{os.getpid()}.tmp"
        torch.save(state, partial)
        partial.replace(self.output / "checkpoint.pt")
        self.saved_step = self.step

    def restore(self, file: Path) -> None:
        """Take up a checkpoint. TrainingError if it is damaged or of another training."""
        try:
            state = torch.load(file, map_location=self.encoder.device, weights_only=True)
            theirs = state["config"]
        except Exception as error:
            raise TrainingError(f"The checkpoint {file} cannot be read; delete it to begin anew.") from error
        ours = asdict(self.config)
        for name, value in ours.items():
            if theirs.get(name) != value:
                raise TrainingError(
                    f"The training in {self.output} was begun with {name} = {theirs.get(name)}, not {value}; "
                    "resume it with the same settings or choose another folder."
                )
        if state["encoder"] != self.encoder.fingerprint or state["data"] != self.data_key:
            raise TrainingError(
                f"The training in {self.output} was begun with another backbone or other pictures and captions; "
                "resume it with the same or choose another folder."
            )
        self.inversion.load_state_dict(state["inversion"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        if state["random_cuda"]:
            torch.cuda.set_rng_state_all([value.cpu() for value in state["random_cuda"]])
        self.step = self.saved_step = state["step"]
        self.sums = dict(state["sums"])
        self.trim_log()
        self.say(f"going on from step {self.step} of {self.total_steps}")

    def trim_log(self) -> None:
        """Drop the log's rows of steps that will be done again."""
        file = self.output / "log.csv"
        if not file.exists():
            return
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines[1:] if line.endswith("\n") and int(line.partition(",")[0]) <= self.step]
        file.write_text("".join([*lines[:1], *kept]), encoding="utf-8")

    def describe(self, images: str | Path, captions: str | Path) -> dict[str, object]:
        """How the network was made, for the saved model's config."""
        return {
            "method": "fti4cir",
            "pictures": len(self.training),
            "images": Path(images).name,
            "captions": Path(captions).name,
            "steps": self.step,
            "config": asdict(self.config),
        }
