"""Training the inversion network on captioned pictures that nobody labelled.

    config = training.preset("composed")
    training.train(config, "pictures/", "captions.jsonl", "mini", "my-model/")

The encoder is frozen, so its features of every picture are computed once, into OUTPUT/features, and read from
there. OUTPUT/checkpoint.pt holds everything that a step depends on: a training that was killed, at whatever
moment, goes on from it and ends with the same weights, bit for bit on one machine's CPU, as one that was not.
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
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from . import checkpoint, losses
from .backbones.base import DualEncoder
from .captions.edit import edit
from .captions.split import SplitCaption, split
from .datasets import captioned
from .datasets.captioned import CaptionedPictures
from .errors import ModelError, PictureError, TrainingError
from .inversion import prompts
from .inversion.compose import encode_sentences, pseudo_sentence
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
    """The learning rate rises linearly over these, but at most over a tenth of all."""
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
    attribute_gain: float = 1.0
    """Scale of the initial weights that turn the attribute transformer's outputs into latent attributes. With 1 all
    pictures start with nearly the same attributes; a small encoder then never learns to tell them apart."""
    bfloat16: bool = False
    """Run the step in bfloat16 where the processor multiplies it in hardware."""
    validation: int = 500
    """Pictures kept out of training to measure on, at most a tenth of all."""
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} is {getattr(self, name)}, but must be at least 1.")
        for name in ("learning_rate", "temperature", "composed_temperature", "clip_norm", "attribute_gain"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise TrainingError(f"{name} is {value}, but must be above 0.")
        if self.schedule not in ("step", "cosine"):
            raise TrainingError(f"schedule is {self.schedule!r}, but must be step or cosine.")
        if not 0 <= self.average < 1:
            raise TrainingError(f"average is {self.average}, but must lie in [0, 1).")
        for name in ("weight_decay", "warmup_steps", "validation", "decay_epoch", "seed"):
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
        total_steps = self.epochs * steps_per_epoch
        warmup = min(self.warmup_steps, total_steps // 10)
        rate = self.learning_rate * min(1.0, (step + 1) / max(1, warmup))
        if self.schedule == "cosine":
            return rate * 0.5 * (1 + math.cos(math.pi * step / total_steps))
        return rate * (0.1 if step >= self.decay_epoch * steps_per_epoch else 1.0)


PRESETS: dict[str, TrainingConfig] = {
    "paper": TrainingConfig(),
    "composed": TrainingConfig(
        epochs=5, batch_size=128, learning_rate=5e-4, schedule="cosine", warmup_steps=50, clip_norm=1.0, average=0.998,
        # The orthogonality of vectors without negative numbers is reached soonest by constant ones: with the paper's
        # weights the attributes of `mini` lost all that differs between pictures.
        weights=LossWeights(orthogonality=0.1, regularization_attributes=5.0, composed=2.0, composed_image=1.0),
        attribute_gain=6.0, dropout=0.2, bfloat16=True,
    ),
}  # fmt: skip
"""`paper`: the release's recipe. `composed`: ours, with the composed loss, for small encoders and few pictures."""


def preset(name: str, **changes: Any) -> TrainingConfig:
    """A preset with some of its fields changed. TrainingError if there is no such preset."""
    if name not in PRESETS:
        raise TrainingError(f"There is no preset {name!r}; there are {', '.join(PRESETS)}.")
    return replace(PRESETS[name], **changes)


# ------------------------------------------------------------------ features, computed once
_BLOCK = 64
"""Pictures that pass the image tower together: the same ones with an interruption as without, for how many there
are in a batch may decide how their features are rounded."""


@dataclass(frozen=True)
class Features:
    """The frozen encoder's features of N pictures, in two memory-mapped files."""

    image: NDArray[np.float32]
    """(N, D), not normalised."""
    local: NDArray[np.float16]
    """(N, P, V), in half precision to halve the disk and what is read of it."""
    unreadable: dict[int, str]
    """The reason for each row that has no features."""

    def take(self, rows: Sequence[int], device: torch.device) -> tuple[Tensor, Tensor]:
        """Image features (B, D) and local features (B, P, V) of these rows, float32."""
        image, local = (torch.from_numpy(np.asarray(part[rows])).to(device) for part in (self.image, self.local))
        return image, local.float()


def compute_features(folder: Path, encoder: DualEncoder, data: CaptionedPictures, say: Say) -> Features:
    """Compute the features of all pictures, as far as `folder` does not hold them yet.

    The files `image.f32` and `local.f16` grow block by block. A block counts once its line is in `blocks.jsonl`,
    whatever else a process that was killed left behind; the line holds the pictures that could not be read.
    Pictures are known by their names: a file whose content changes later keeps its features.

    Raises:
        TrainingError: if the folder holds the features of other pictures or of another encoder, the disk has too
            little room for them, or it cannot be written to.
        ModelError: if a feature is not a finite number.

    """
    probe = encoder.encode_pixels(torch.zeros(1, 3, encoder.input_size, encoder.input_size))
    image_shape, local_shape = (len(data), *probe.image.shape[1:]), (len(data), *probe.local.shape[1:])
    made_of = [encoder.fingerprint, str(data.source.resolve()), data.names]
    key = hashlib.sha256(json.dumps(made_of).encode()).hexdigest()
    image_file, local_file, journal = folder / "image.f32", folder / "local.f16", folder / "blocks.jsonl"
    if not (folder / "key").exists():
        _lay_out(folder, key, 4 * math.prod(image_shape) + 2 * math.prod(local_shape))
    if (folder / "key").read_text() != key:
        raise TrainingError(
            f"{folder} holds the features of other pictures or of another backbone; delete it or choose another folder."
        )
    with _writing(folder):
        done = _whole_lines(journal)
    unreadable = {int(row): reason for line in done for row, reason in json.loads(line).items()}
    first, started, told = len(done) * _BLOCK, time.monotonic(), time.monotonic()
    if first < len(data):
        with data.reader() as read:
            for start in range(first, len(data), _BLOCK):
                stop = min(start + _BLOCK, len(data))
                pixels, broken = _read_block(data, range(start, stop), read, encoder)
                image = np.zeros((stop - start, *image_shape[1:]), np.float32)
                local = np.zeros((stop - start, *local_shape[1:]), np.float16)
                if pixels:
                    places = [row - start for row in pixels]
                    block = encoder.encode_pixels(torch.stack(list(pixels.values())))
                    image[places], local[places] = block.image.cpu().numpy(), block.local.half().cpu().numpy()
                if not (np.isfinite(image).all() and np.isfinite(local).all()):
                    raise ModelError(
                        f"{encoder.name} gives features that half precision cannot hold, for one of the "
                        f"{stop - start} pictures from {data.names[start]} on."
                    )
                with _writing(folder):
                    _write_rows(image_file, start, image)
                    _write_rows(local_file, start, local)
                    with open(journal, "a", encoding="utf-8") as lines:
                        lines.write(json.dumps(broken) + "\n")
                unreadable |= broken
                if time.monotonic() - told > 10 or stop == len(data):
                    told = time.monotonic()
                    say(f"features: {stop} of {len(data)} pictures, {(stop - first) / (told - started):.0f} a second")
    for file, size in ((image_file, 4 * math.prod(image_shape)), (local_file, 2 * math.prod(local_shape))):
        if not file.exists() or file.stat().st_size != size:
            raise TrainingError(f"The features in {folder} are damaged: {file.name} has not its size; delete {folder}.")
    return Features(
        np.memmap(image_file, np.float32, "r", shape=image_shape),
        np.memmap(local_file, np.float16, "r", shape=local_shape),
        unreadable,
    )


def _lay_out(folder: Path, key: str, needed: int) -> None:
    """Make an empty cache; `needed` is what it will grow to, in bytes."""
    with _writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if needed > free:
            raise TrainingError(
                f"The features take {needed / 1e9:.1f} GB, but {folder} has only {free / 1e9:.1f} GB left; keep them "
                "on a larger disk (--features) or take fewer pictures."
            )
        for name in ("image.f32", "local.f16", "blocks.jsonl"):
            (folder / name).write_bytes(b"")
        # Last and at one go: where there is a key, the files are there too.
        (folder / "key.tmp").write_text(key)
        (folder / "key.tmp").replace(folder / "key")


def _whole_lines(file: Path) -> list[str]:
    """The lines of a file, after what a killed process left of one more is cut off it."""
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    return whole.splitlines()


def _read_block(
    data: CaptionedPictures, rows: Sequence[int], read: Callable[[str], bytes], encoder: DualEncoder
) -> tuple[dict[int, Tensor], dict[int, str]]:
    """The tower's input (3, S, S) of each row whose picture can be read, and the reason of each other."""

    def contents() -> Iterator[tuple[int, bytes | PictureError]]:
        for row in rows:
            try:
                yield row, read(data.names[row])
            except PictureError as error:
                yield row, error

    def prepare(item: tuple[int, bytes | PictureError]) -> tuple[int, Tensor | PictureError]:
        row, content = item
        if isinstance(content, PictureError):
            return row, content
        try:
            return row, encoder.preprocess(decode_picture(content, data.names[row], encoder.input_size).image)
        except PictureError as error:
            return row, error

    pixels, broken = {}, {}
    # `map` reads all contents in this thread, for a tar file has one position; decoding is shared.
    with ThreadPoolExecutor(2) as pool:
        for row, result in pool.map(prepare, contents()):
            if isinstance(result, PictureError):
                broken[row] = str(result)
            else:
                pixels[row] = result
    return pixels, broken


def _write_rows(path: Path, start: int, rows: NDArray[Any]) -> None:
    """Write rows of a file of equal rows, beginning with row `start`, through to the disk."""
    with open(path, "r+b") as file:
        file.seek(start * rows[0].nbytes)
        file.write(rows.tobytes())
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """TrainingError for what goes wrong while a folder is written to."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise TrainingError(f"{folder} cannot be written to: {reason}; what was saved before is kept.") from error


# ------------------------------------------------------------------ one step
@dataclass(frozen=True)
class Batch:
    """B pictures by their rows in the features, with a caption each and, for the composed loss, an edit of it."""

    rows: list[int]
    captions: list[SplitCaption]
    modifications: list[str]
    edited: list[str]


@dataclass(frozen=True)
class Found:
    """For F of a batch's edited captions, a picture that carries such a caption word for word."""

    places: list[int]
    """Which F of the batch's B they are."""
    image: Tensor
    """(F, D) the image features of the pictures, not normalised."""
    same: Tensor
    """(F, F + B) bool: which of these pictures and of the batch's own carry the same caption, too."""


def loss_terms(
    config: TrainingConfig,
    encoder: DualEncoder,
    inversion: FineGrainedInversion,
    image: Tensor,
    local: Tensor,
    batch: Batch,
    found: Found | None = None,
) -> tuple[dict[str, Tensor], PseudoWords]:
    """The losses of a batch by name, those of weight zero left out, and the pseudo-words.

    All sentences that hold pseudo-words pass the text tower together, each at its real length; so do, without
    gradient, those of real words.

    Args:
        config: which losses count, and their temperatures.
        encoder: the dual encoder that the features are of.
        inversion: the network.
        image: (B, D) image features, not normalised.
        local: (B, P, V) local features.
        batch: what goes with them.
        found: for the composed loss against pictures; None leaves it out.

    """
    weights = config.weights
    with_edits = bool(batch.edited)
    words = inversion(image, local)
    count = len(image)
    sentences: dict[str, list[prompts.Sentence]] = {"whole": [pseudo_sentence(words)] * count}
    if weights.regularization_subject:
        sentences["subject"] = [prompts.pseudo_subject(caption.attribute) for caption in batch.captions]
    if weights.regularization_attributes and config.max_attributes:
        sentences["attributes"] = [prompts.pseudo_attributes(caption.subject) for caption in batch.captions]
    if with_edits:
        sentences["composed"] = [pseudo_sentence(words, modification) for modification in batch.modifications]
    together = [sentence for group in sentences.values() for sentence in group]
    owner = torch.arange(count).repeat(len(sentences))
    features = encode_sentences(encoder, together, words, owner)
    pseudo = dict(zip(sentences, features.split(count), strict=True))
    with torch.no_grad():
        real_sentences = [prompts.real(caption.subject, caption.attribute) for caption in batch.captions]
        edited_sentences: list[prompts.Sentence] = [(text,) for text in batch.edited]
        real_features = encode_sentences(encoder, [*real_sentences, *edited_sentences])
        real, edited = real_features[:count], real_features[count:]
    terms: dict[str, Tensor] = {}
    # In full precision even within autocast: a small temperature magnifies what bfloat16 rounds away.
    with torch.autocast(image.device.type, enabled=False):
        if weights.contrastive:
            terms["contrastive"] = losses.contrastive(image, pseudo["whole"], config.temperature)
        if weights.orthogonality and config.max_attributes:
            terms["orthogonality"] = losses.orthogonality(words.selected.float())
        for name in ("subject", "attributes", "whole"):
            if getattr(weights, f"regularization_{name}") and name in pseudo:
                terms[f"regularization_{name}"] = losses.regularization(pseudo[name], real)
        if weights.composed:
            said = [*batch.edited, *map(str, batch.captions)]
            same = torch.tensor([[text == other for other in said] for text in batch.edited], device=image.device)
            terms["composed"] = losses.composed(pseudo["composed"], edited, real, same, config.composed_temperature)
        if weights.composed_image and found is not None:
            terms["composed_image"] = losses.composed(
                pseudo["composed"][found.places], found.image, image, found.same, config.composed_temperature
            )
    return terms, words


# ------------------------------------------------------------------ the loop
def train(
    config: TrainingConfig,
    images: str | Path,
    captions: str | Path,
    backbone: str | Path,
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

    Returns:
        The output folder.

    Raises:
        TrainingError: if the output holds another training, the loss is no longer a finite number, or nothing
            can be written; the last checkpoint stays.
        InputError, ModelError: as the data and the backbone demand.

    """
    output = Path(output)
    state_file = output / "checkpoint.pt"
    if state_file.exists() and not resume:
        raise TrainingError(f"{output} holds a training already; go on with it (--resume) or choose another folder.")
    checkpoint.require_free(output)
    with _writing(output):  # before hours of work, not after
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
    encoder = checkpoint.load_encoder(backbone)
    data = captioned.load(images, captions)
    if data.missing:
        say(f"{len(data.missing)} captioned pictures are not in {images}, such as {data.missing[0]}; left out")
    split_captions = _split_all(data, say)
    cache = compute_features(Path(features) if features else output / "features", encoder, data, say)
    for reason in cache.unreadable.values():
        say(f"left out: {reason}")
    usable = [row for row in range(len(data)) if row not in cache.unreadable and split_captions[row]]
    training, validation = _hold_out(usable, data, config.validation)
    if len(training) < 2:
        raise TrainingError(f"Only {len(training)} pictures with usable captions are left; training needs at least 2.")
    say(f"training on {len(training)} pictures, measuring on {len(validation)} others")
    run = _Run(config, encoder, cache, data.names, split_captions, training, validation, output, say)
    if state_file.exists():
        run.restore(state_file)
    run.loop()
    return checkpoint.save(output, run.result(), encoder, run.describe(images, captions))


def _split_all(data: CaptionedPictures, say: Say) -> list[list[SplitCaption]]:
    """For each picture its captions that can be split."""
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


_SAVE_EVERY = 60.0
"""Seconds between checkpoints, besides those at the end of each epoch."""
_NEAR = 200
"""How far away, in the order of names, the picture may be whose caption lends a part to an edit."""


def _seed_torch(seed: int, number: int) -> None:
    """Set PyTorch's random numbers to the stream of that number."""
    torch.manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))


class _Run:
    """The state of one training, and its loop.

    What a step sees, its dropout included, depends on the seed and the step's number alone, never on the steps
    before it: so nothing random has to be kept in a checkpoint.
    """

    def __init__(
        self,
        config: TrainingConfig,
        encoder: DualEncoder,
        features: Features,
        names: Sequence[str],
        captions: list[list[SplitCaption]],
        training: list[int],
        validation: list[int],
        output: Path,
        say: Say,
    ) -> None:
        self.config, self.encoder, self.features, self.captions = config, encoder, features, captions
        self.training, self.validation, self.output, self.say = training, validation, output, say
        _seed_torch(config.seed, 0)
        self.inversion = FineGrainedInversion(config.network(encoder)).to(encoder.device)
        if self.inversion.latent is not None:
            with torch.no_grad():
                self.inversion.latent.project.weight.mul_(config.attribute_gain)
        self.optimizer = torch.optim.AdamW(
            self.inversion.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )
        self.average = {name: value.detach().clone() for name, value in self.inversion.named_parameters()}
        self.batch_size = min(config.batch_size, len(training))
        self.steps_per_epoch = len(training) // self.batch_size
        self.total_steps = self.steps_per_epoch * config.epochs
        self.step = 0
        self.saved_step: int | None = None
        self.sums: dict[str, float] = {}
        """Of each figure, over the steps since the last report; and their number."""
        self.says = {row: frozenset(map(str, captions[row])) for row in training}
        self.rows_of: dict[str, list[int]] = {}
        for row, said in self.says.items():
            for text in sorted(said):
                self.rows_of.setdefault(text, []).append(row)
        learnt = [[names[row], captions[row]] for row in training]
        self.data_key = hashlib.sha256(json.dumps(learnt).encode()).hexdigest()

    def batch(self, step: int) -> Batch:
        """What a step, counted from 0, learns from."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self.training))
        places = order[within * self.batch_size : (within + 1) * self.batch_size].tolist()
        return self.make_batch(self.training, places, random.Random(f"{self.config.seed} {step}"))

    def make_batch(self, pool: list[int], places: Sequence[int], random_: random.Random) -> Batch:
        """The pictures at some places of `pool`, which lends the edits their other captions, too."""
        rows = [pool[place] for place in places]
        chosen = [random_.choice(self.captions[row]) for row in rows]
        modifications, edited = [], []
        if self.config.weights.composed or self.config.weights.composed_image:
            for place, caption in zip(places, chosen, strict=True):
                # What stands beside a picture in a folder is often of its kind, and makes a plausible edit.
                near = [*pool[max(0, place - _NEAR) : place], *pool[place + 1 : place + 1 + _NEAR]] or [pool[place]]
                other = random_.choice(self.captions[random_.choice(near)])
                result = edit(caption, other, random_)
                modifications.append(result.modification)
                edited.append(result.caption)
        return Batch(rows, chosen, modifications, edited)

    def find(self, batch: Batch, random_: random.Random) -> Found | None:
        """Pictures that carry the edited captions, drawn among all that do; None if there are fewer than two."""
        candidates = [self.rows_of.get(text, []) for text in batch.edited]
        places = [place for place, rows in enumerate(candidates) if rows]
        if len(places) < 2:
            return None
        rows = [random_.choice(candidates[place]) for place in places]
        said = [self.says[row] for row in [*rows, *batch.rows]]
        same = torch.tensor([[batch.edited[place] in other for other in said] for place in places])
        image = torch.from_numpy(np.asarray(self.features.image[rows])).to(self.encoder.device)
        return Found(places, image, same.to(self.encoder.device))

    def loop(self) -> None:
        """Train from the present step to the last; saved now and then."""
        config = self.config
        first, started, saved = self.step, time.monotonic(), time.monotonic()
        self.start_log()
        self.inversion.train()
        while self.step < self.total_steps:
            rate = config.learning_rate_at(self.step, self.steps_per_epoch)
            terms = self.take_step(rate)
            for name, value in {**terms, "steps": 1.0}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            ends_epoch = self.step % self.steps_per_epoch == 0
            if ends_epoch or self.step % 50 == 0:
                left = (time.monotonic() - started) / (self.step - first) * (self.total_steps - self.step)
                self.report(rate, self.validate() if ends_epoch else {}, left)
            if ends_epoch or time.monotonic() - saved > _SAVE_EVERY:
                self.save()
                saved = time.monotonic()

    def take_step(self, rate: float) -> dict[str, float]:
        """Learn from one batch; gives the step's figures. TrainingError if they are no longer numbers."""
        config = self.config
        _seed_torch(config.seed, 1 + self.step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.batch(self.step)
        image, local = self.features.take(batch.rows, self.encoder.device)
        found = None
        if config.weights.composed_image:
            found = self.find(batch, random.Random(f"{config.seed} {self.step} found"))
        with self.precision():
            terms, words = loss_terms(config, self.encoder, self.inversion, image, local, batch, found)
        total = config.weights.total(terms)
        self.optimizer.zero_grad()
        total.backward()
        # Without a limit, this only measures the norm.
        norm = torch.nn.utils.clip_grad_norm_(self.inversion.parameters(), config.clip_norm or math.inf)
        if not (torch.isfinite(total) and torch.isfinite(norm)):
            raise self.diverged(f"the loss is {total.item()} and its gradient's norm {norm.item()}")
        self.optimizer.step()
        self.step += 1
        self.update_average()
        figures = {**terms, "total": total, "attributes": words.counts.float().mean()}
        return {name: value.item() for name, value in figures.items()}

    def diverged(self, what: str) -> TrainingError:
        """The error for a training that cannot go on."""
        kept = "nothing was saved yet" if self.saved_step is None else f"the state of step {self.saved_step} is kept"
        return TrainingError(f"At step {self.step} {what}; {kept}. Try a smaller learning rate.")

    @contextlib.contextmanager
    def precision(self) -> Iterator[None]:
        """bfloat16 where the configuration wants it and the processor multiplies it in hardware."""
        device = self.encoder.device.type
        fast = self.config.bfloat16 and (
            torch.cuda.is_bf16_supported() if device == "cuda" else torch.ops.mkldnn._is_mkldnn_bf16_supported()
        )
        with torch.autocast(device, torch.bfloat16, enabled=bool(fast)):
            yield

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the averaged weights towards the present ones, faster in the first steps."""
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
        """Two retrieval rates among the pictures kept out; nothing if none are.

        `val_image_R@1`: the share of pseudo-sentences whose nearest picture is their own;
        `val_composed_R@1`: of composed sentences whose nearest caption is what the edit made of their own.
        """
        if not self.validation:
            return {}
        network = self.result()
        random_ = random.Random(f"{self.config.seed} validation")
        batch = self.make_batch(self.validation, range(len(self.validation)), random_)
        wholes, composed, pictures, edited, real = [], [], [], [], []
        for start in range(0, len(batch.rows), 64):
            part = slice(start, start + 64)
            image, local = self.features.take(batch.rows[part], self.encoder.device)
            words = network(image, local)
            pictures.append(image)
            wholes.append(encode_sentences(self.encoder, [pseudo_sentence(words)] * len(image), words))
            if batch.edited:
                asked = [pseudo_sentence(words, modification) for modification in batch.modifications[part]]
                composed.append(encode_sentences(self.encoder, asked, words))
                edited.append(encode_sentences(self.encoder, [(text,) for text in batch.edited[part]]))
                real.append(encode_sentences(self.encoder, [prompts.real(*parts) for parts in batch.captions[part]]))

        def nearest(queries: list[Tensor], keys: list[Tensor]) -> list[int]:
            scores = F.normalize(torch.cat(queries), dim=-1) @ F.normalize(torch.cat(keys), dim=-1).T
            found: list[int] = scores.argmax(dim=1).tolist()
            return found

        count = len(batch.rows)
        hits = sum(place == own for own, place in enumerate(nearest(wholes, pictures)))
        figures = {"val_image_R@1": hits / count}
        if batch.edited:
            said = [*batch.edited, *map(str, batch.captions)]  # several may say the same
            hits = sum(said[place] == said[own] for own, place in enumerate(nearest(composed, [*edited, *real])))
            figures["val_composed_R@1"] = hits / count
        return figures

    # -- the log
    @property
    def columns(self) -> list[str]:
        """Of the log."""
        losses_ = vars(self.config.weights)
        return ["step", "epoch", "learning_rate", "total", *losses_, "attributes", "val_image_R@1", "val_composed_R@1"]

    def start_log(self) -> None:
        """Begin the log, or drop its rows of steps that will be done again."""
        file = self.output / "log.csv"
        with _writing(self.output):
            rows = file.read_text(encoding="utf-8").splitlines(keepends=True)[1:] if file.exists() else []
            kept = [row for row in rows if row.endswith("\n") and int(row.partition(",")[0]) <= self.step]
            partial = file.with_suffix(".tmp")
            partial.write_text("".join([",".join(self.columns) + "\n", *kept]), encoding="utf-8")
            partial.replace(file)

    def report(self, rate: float, validation: dict[str, float], left: float) -> None:
        """One row of the log, with means since the last, and one line for people; `left` is in seconds."""
        steps = self.sums.pop("steps")
        figures = {name: value / steps for name, value in self.sums.items()} | validation
        self.sums = {}
        row = {"step": self.step, "epoch": self.step / self.steps_per_epoch, "learning_rate": rate, **figures}
        with _writing(self.output), open(self.output / "log.csv", "a", newline="", encoding="utf-8") as log:
            csv.DictWriter(log, self.columns, restval="", lineterminator="\n").writerow(row)
        shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        self.say(f"step {self.step} of {self.total_steps}: {shown}; about {left / 60:.0f} min left")

    # -- the checkpoint
    def save(self) -> None:
        """Write the checkpoint beside its final name, then move it there: at any moment there is a whole one."""
        if not all(torch.isfinite(value).all() for value in self.inversion.parameters()):
            raise self.diverged("the weights are no longer finite")
        state = {
            "config": asdict(self.config),
            "encoder": self.encoder.fingerprint,
            "data": self.data_key,
            "step": self.step,
            "inversion": self.inversion.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "sums": self.sums,
        }
        partial = self.output / "checkpoint.tmp"
        with _writing(self.output):
            try:
                with open(partial, "wb") as file:
                    try:
                        torch.save(state, file)
                    except RuntimeError as error:  # torch's writer hides what the system said
                        raise OSError(str(error)) from error
                    file.flush()
                    os.fsync(file.fileno())
                partial.replace(self.output / "checkpoint.pt")
            finally:
                partial.unlink(missing_ok=True)
        self.saved_step = self.step

    def restore(self, file: Path) -> None:
        """Take up a checkpoint. TrainingError if it is damaged or of another training."""
        try:
            state = torch.load(file, map_location=self.encoder.device, weights_only=True)
            theirs = state["config"]
        except Exception as error:  # of almost any class, as the damage will have it
            raise TrainingError(f"The checkpoint {file} cannot be read; delete it to begin anew.") from error
        for name, value in asdict(self.config).items():
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
        self.step = self.saved_step = state["step"]
        self.sums = state["sums"]
        self.say(f"going on from step {self.step} of {self.total_steps}")

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
