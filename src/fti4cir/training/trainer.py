"""Training a method's network on captioned images that nobody labelled: one loop for every method that learns.

    config = registry.preset("composed")
    registry.train(config, "images/", "captions.jsonl", "mini", "my-model/")

The loop knows no method: it is handed an objective, which `methods.registry` finds for a configuration.

The encoder is frozen, so its features of every image and caption are computed once, into OUTPUT/features, and read
from there. OUTPUT/checkpoint.pt holds everything that a step depends on: a training that was killed, at whatever
moment, goes on from it and ends with the same weights, bit for bit on one machine's CPU, as one that was not.

Under `torchrun` each process takes its share of every batch; the losses are those of the whole batch.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import json
import math
import os
import random
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder
from ..captions.edit import edit
from ..captions.split import Rule, SplitCaption, split
from ..captions.table import CaptionedImages, load_captioned_images
from ..errors import CutWarning, NoRoomError, TrainingError
from ..features.cache import Features, Share, StreamedFeatures, compute, require_room
from ..features.matrix import compute_texts
from ..files import writing
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion
from ..models import loading, saved
from .config import TrainingConfig
from .distributed import World, world
from .objective import Batch, Choice, Corpus, Described, Found, MakeObjective

Say = Callable[[str], None]


def train(
    config: TrainingConfig,
    objective: MakeObjective,
    images: str | Path,
    captions: str | Path,
    backbone: str | Path,
    output: str | Path,
    *,
    resume: bool = False,
    say: Say = print,
    features: str | Path | None = None,
) -> Path:
    """Train a network and save it in `output`, which `fti4cir.load` then reads.

    Args:
        config: everything that decides what the training gives.
        objective: what the method that learns minimises.
        images: a folder or a tar file of images.
        captions: a CSV or JSON lines file, see `captions.table.load_captioned_images`.
        backbone: the encoder, by a name or folder that `fti4cir.load` knows.
        output: a folder; also gets `log.csv`, one row a report, and what a later `resume` needs.
        resume: go on from the checkpoint in `output`, or begin if there is none.
        say: gets a line of progress now and then.
        features: where the features are kept; None: in `output`. Trainings of the same encoder on the same
            images can share a folder, one after the other. Where the disk has too little room for them, the local
            ones are computed in every step instead.

    Returns:
        The output folder.

    Raises:
        TrainingError: if the output holds another training, the loss is no longer a finite number, or nothing
            can be written; the last checkpoint stays.
        InputError, ModelError, CacheError: as the data, the backbone and the features' folder demand.

    """
    with world() as world_, contextlib.ExitStack() as opened:
        if not world_.is_first:
            say = _silent
        output = Path(output)
        state_file = output / "checkpoint.pt"
        if state_file.exists() and not resume:
            raise TrainingError(
                f"{output} holds a training already; go on with it (--resume) or choose another folder."
            )
        saved.require_free(output)
        with writing(output, TrainingError):  # before hours of work, not after
            output.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=output).close()
        encoder = loading.load_encoder(backbone, world_.device)
        data = load_captioned_images(images, captions)
        if data.missing:
            say(f"captioned, but not in {images} and left out: {len(data.missing)}, such as {data.missing[0]}")
        split_captions = _split_all(data, config.caption_split, say)
        folder = Path(features) if features else output / "features"
        cache = _features(folder, encoder, data, world_, say, opened)
        for reason in cache.unreadable.values():
            say(f"left out: {reason}")
        usable = [row for row in range(len(data)) if row not in cache.unreadable and split_captions[row]]
        training, validation = _hold_out(usable, data, config.validation)
        if len(training) < 2:
            raise TrainingError(
                f"Only {len(training)} images with usable captions are left; training needs at least 2."
            )
        say(f"training on {len(training)} images, measuring on {len(validation)} others")
        run = _Run(
            config,
            objective,
            encoder,
            cache,
            data.names,
            split_captions,
            training,
            validation,
            output,
            folder,
            say,
            world_,
        )
        if state_file.exists():
            run.restore(state_file)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutWarning)  # told already, of all captions at once
            run.loop()
        if world_.is_first:
            description = run.describe(images, captions)
            saved.save_model(
                output,
                run.result(),
                encoder=encoder,
                trained=description,
                method=config.method,
                extra=run.objective.extra,
            )
        world_.wait()
        return output


def _silent(line: str) -> None:
    """Say nothing: of several processes only the first speaks."""


def _features(
    folder: Path, encoder: DualEncoder, data: CaptionedImages, world_: World, say: Say, opened: contextlib.ExitStack
) -> Features | StreamedFeatures:
    """The images' features, from a cache or, where it would be too large, partly from the images."""
    share = Share(world_.rank, world_.size, world_.wait)

    def lacking() -> str | None:
        try:
            require_room(folder, encoder, count=len(data))
        except NoRoomError as error:
            return str(error)
        return None

    reason = world_.first(lacking)
    if reason is None:
        return compute(folder, encoder, data, share=share)
    say(f"{reason} (--features.) Until then the local features are computed in every step, which is slower.")
    streamed = StreamedFeatures(compute(folder / "global", encoder, data, local=False, share=share), data, encoder)
    opened.callback(streamed.close)
    return streamed


def _split_all(data: CaptionedImages, rule: Rule, say: Say) -> list[list[SplitCaption]]:
    """For each image its captions that can be split."""
    flat = [caption for group in data.captions for caption in group]
    plain = [caption.text for caption in flat if caption.parts is None]
    parts = iter(split(plain, rule) if plain else [])
    result: list[list[SplitCaption]] = []
    dropped = 0
    for group in data.captions:
        found = [SplitCaption(*caption.parts) if caption.parts else next(parts) for caption in group]
        kept = [part for part in found if part is not None]
        dropped += len(found) - len(kept)
        result.append(kept)
    if dropped:
        say(f"{dropped} of {len(flat)} captions are too short or cannot be split, and are left out")
    return result


def _hold_out(usable: list[int], data: CaptionedImages, most: int) -> tuple[list[int], list[int]]:
    """Rows for training and for validation, decided by a hash of the image's name."""
    count = min(most, len(usable) // 10)
    by_hash = sorted(usable, key=lambda row: hashlib.sha256(data.names[row].encode()).digest())
    return sorted(by_hash[count:]), sorted(by_hash[:count])


_SAVE_EVERY = 60.0
"""Seconds between checkpoints, besides those at the end of each epoch."""
_DIVERGED = 5.0
"""How many times the loss of the first step is too much."""
_NEAR = 200
"""How far away, in the order of names, the image may be whose caption lends a part to an edit."""


def _seed_torch(*numbers: int) -> None:
    """Set PyTorch's random numbers to the stream of these numbers."""
    torch.manual_seed(int(np.random.SeedSequence(numbers).generate_state(1)[0]))


def _equal(texts: Sequence[str], others: Sequence[str]) -> NDArray[np.bool_]:
    """Which of the others each text equals: (len(texts), len(others))."""
    numbers = {text: number for number, text in enumerate(dict.fromkeys([*texts, *others]))}
    rows, columns = (np.array([numbers[text] for text in group]) for group in (texts, others))
    return rows[:, None] == columns


def _alike(
    image: NDArray[np.float32], rows: Sequence[int], size: int, random_: np.random.Generator
) -> NDArray[np.int64]:
    """An order of places in `rows` in which groups of `size` images are each nearest to one random image."""
    pivots = image[random_.choice(rows, size=max(1, math.isqrt(len(rows))), replace=False)]
    # Else a long pivot would be the nearest of most.
    pivots = (pivots / np.linalg.norm(pivots, axis=1, keepdims=True)).T  # (D, pivots)
    nearest = np.concatenate(
        [np.argmax(image[rows[start : start + 4096]] @ pivots, axis=1) for start in range(0, len(rows), 4096)]
    )
    shuffled = random_.permutation(len(rows))
    by_pivot = shuffled[np.argsort(nearest[shuffled], kind="stable")]
    groups = [by_pivot[start : start + size] for start in range(0, len(rows), size)]
    return np.concatenate([groups[number] for number in random_.permutation(len(groups))])


def _optimizer(config: TrainingConfig, network: torch.nn.Module) -> torch.optim.Optimizer:
    # Fused: one pass over the weights instead of a dozen.
    settings: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay, "fused": True}
    groups: list[dict[str, Any]] = [{"params": list(network.parameters())}]
    if not config.decay_biases:
        matrices = [value for value in network.parameters() if value.dim() > 1]
        vectors = [value for value in network.parameters() if value.dim() <= 1]
        groups = [{"params": matrices}, {"params": vectors, "weight_decay": 0.0}]
    if config.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=0.9, **settings)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(groups, betas=(0.9, config.beta2), eps=config.epsilon, **settings)


class _Texts:
    """The frozen encoder's features of texts, by text."""

    def __init__(self, cache: Path, encoder: DualEncoder, texts: Iterable[str], say: Say, label: str) -> None:
        ordered = sorted(set(texts))
        self._rows = {text: row for row, text in enumerate(ordered)}
        self._features = compute_texts(cache, encoder, ordered, label=label)

    def take(self, texts: Iterable[str]) -> NDArray[np.float32]:
        """Their features, (N, D), not normalised."""
        rows: NDArray[np.float32] = np.asarray(self._features[[self._rows[text] for text in texts]])
        return rows


class _Run:
    """The state of one training, and its loop.

    What a step sees, its dropout included, depends on the seed and the step's number alone, never on the steps
    before it: so nothing random has to be kept in a checkpoint.
    """

    def __init__(
        self,
        config: TrainingConfig,
        make_objective: MakeObjective,
        encoder: DualEncoder,
        features: Features | StreamedFeatures,
        names: Sequence[str],
        captions: list[list[SplitCaption]],
        training: list[int],
        validation: list[int],
        output: Path,
        cache: Path,
        say: Say,
        world_: World,
    ) -> None:
        self.config, self.encoder, self.features, self.captions = config, encoder, features, captions
        self.training, self.validation, self.output, self.say = training, validation, output, say
        self.world = world_
        used = [caption for row in (*training, *validation) for caption in captions[row]]
        real = [config.template.real(*caption) for caption in used]
        corpus = Corpus(encoder, features.image, captions, training, cache, say)
        self.plain: _Texts | None = None
        # In the first process, for the others to read.
        for turn in (world_.is_first, not world_.is_first):
            if turn:
                with warnings.catch_warnings(record=True) as caught:
                    warnings.simplefilter("always", CutWarning)
                    self.real: _Texts = _Texts(cache, encoder, real, say, "features of captions in the template")
                if caught:
                    say(f"{len(caught)} captions are longer than {encoder.name} reads; their ends are left out")
                if config.weights.composed or config.weights.description:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore", CutWarning)  # told already
                        self.plain = _Texts(cache, encoder, map(str, used), say, "features of captions as written")
                with self.precision():
                    self.objective = make_objective(config, corpus)
            world_.wait()
        _seed_torch(config.seed, 0)
        self.inversion = FineGrainedInversion(config.network(encoder)).to(encoder.device)
        if self.inversion.latent is not None:
            with torch.no_grad():
                self.inversion.latent.project.weight.mul_(config.attribute_gain)
        self.optimizer = _optimizer(config, self.inversion)
        self.average = {name: value.detach().clone() for name, value in self.inversion.named_parameters()}
        batch_size = min(config.batch_size, len(training))
        if batch_size < world_.size:
            raise TrainingError(f"A batch of {batch_size} is too small for {world_.size} processes.")
        self.batch_size = batch_size // world_.size * world_.size
        self.steps_per_epoch = len(training) // self.batch_size
        self.total_steps = config.total_steps(self.steps_per_epoch)
        if config.schedule == "warmup-cosine" and config.warmup_steps >= self.total_steps:
            say(
                f"the recipe's learning rate rises over {config.warmup_steps} steps, but this training has only "
                f"{self.total_steps}; a quick preset or a smaller warmup_steps suits few images better"
            )
        self.ordered: tuple[int, NDArray[np.int64]] | None = None
        self.step = 0
        self.saved_step: int | None = None
        self.first_total = math.inf
        """The first step's loss."""
        self.sums: dict[str, float] = {}
        """Of each figure, over the steps since the last report; and their number."""
        self.rows_of: dict[str, list[int]] = {}
        for row in training:
            for text in sorted(set(map(str, captions[row]))):
                self.rows_of.setdefault(text, []).append(row)
        learnt = [[names[row], captions[row]] for row in training]
        self.data_key = hashlib.sha256(json.dumps(learnt).encode()).hexdigest()

    def batch(self, step: int) -> Batch:
        """What a step, counted from 0, learns from, over all processes; without the local features."""
        epoch, within = divmod(step, self.steps_per_epoch)
        order = self.order(epoch)
        places = order[within * self.batch_size : (within + 1) * self.batch_size].tolist()
        batch = self.make_batch(self.training, places, random.Random(f"{self.config.seed} {step}"))
        weights = self.config.weights
        if weights.composed or weights.composed_image or weights.description:
            random_ = random.Random(f"{self.config.seed} {step} more")
            more = random_.sample(self.training, min(self.config.negatives, len(self.training)))
            if self.plain is not None:
                drawn = [str(random_.choice(self.captions[row])) for row in more]
                if weights.composed:
                    batch = replace(batch, choice=self.choose(batch.edited, [*map(str, batch.captions), *drawn]))
                if weights.description:
                    batch = replace(batch, described=self.describe_own(batch, more, drawn))
            if weights.composed_image:
                batch = replace(batch, found=self.find(batch, more, random_))
        return batch

    def order(self, epoch: int) -> NDArray[np.int64]:
        """The places in `training` in the order of an epoch."""
        if self.ordered is None or self.ordered[0] != epoch:
            random_ = np.random.default_rng([self.config.seed, epoch])
            if self.config.alike == 1:
                order = random_.permutation(len(self.training))
            else:
                order = _alike(self.features.image, self.training, self.config.alike, random_)
            self.ordered = (epoch, order)
        return self.ordered[1]

    def make_batch(self, pool: list[int], places: Sequence[int], random_: random.Random) -> Batch:
        """The images at some places of `pool`, which lends the edits their other captions, too."""
        rows = [pool[place] for place in places]
        chosen = [random_.choice(self.captions[row]) for row in rows]
        modifications, edited = [], []
        if self.config.weights.composed or self.config.weights.composed_image:
            for place, caption in zip(places, chosen, strict=True):
                # What stands beside an image in a folder is often of its kind, and makes a plausible edit.
                near = [*pool[max(0, place - _NEAR) : place], *pool[place + 1 : place + 1 + _NEAR]] or [pool[place]]
                other = random_.choice(self.captions[random_.choice(near)])
                result = edit(caption, other, random_, self.config.word_edits)
                modifications.append(result.modification)
                edited.append(result.caption)
        real = [self.config.template.real(*caption) for caption in chosen]
        return Batch(
            rows=rows,
            captions=chosen,
            image=self.tensor(self.features.image[rows]),
            local=None,
            real=self.tensor(self.real.take(real)),
            modifications=modifications,
            edited=edited,
        )

    def tensor(self, values: NDArray[Any]) -> Tensor:
        """Rows of a mapped file on the encoder's device."""
        return torch.from_numpy(np.asarray(values)).to(self.encoder.device)

    def choose(self, wanted: Sequence[str], others: Sequence[str]) -> Choice:
        """Captions that a batch's wanted ones have to be told from, besides each other.

        Without a template, as the edited ones are: else a query could tell them by that.
        """
        assert self.plain is not None
        return Choice(self.tensor(self.plain.take(others)), self.tensor(_equal(wanted, [*wanted, *others])))

    def describe_own(self, batch: Batch, more: Sequence[int], drawn: Sequence[str]) -> Described:
        """A batch's own captions, to be told from those drawn of `more` images.

        Another caption of the same image is as right as its own.
        """
        assert self.plain is not None
        own = list(map(str, batch.captions))
        choice = self.choose(own, drawn)
        others = self.tensor(np.equal.outer(batch.rows, more))  # (B, N)
        same = choice.same | F.pad(others, (len(own), 0))
        return Described(self.tensor(self.plain.take(own)), replace(choice, same=same))

    def find(self, batch: Batch, more: Sequence[int], random_: random.Random) -> Found | None:
        """Images that carry the edited captions, drawn among all that do; None if there are fewer than two.

        They have to be told from the batch's own images and from `more`.
        """
        candidates = [self.rows_of.get(text, []) for text in batch.edited]
        places = [place for place, rows in enumerate(candidates) if rows]
        if len(places) < 2:
            return None
        rows = [random_.choice(candidates[place]) for place in places]
        others = [*batch.rows, *more]
        columns = np.array([*rows, *others])
        same = np.stack([np.isin(columns, candidates[place]) for place in places])
        choice = Choice(self.tensor(self.features.image[others]), self.tensor(same))
        return Found(places, self.tensor(self.features.image[rows]), choice)

    def loop(self) -> None:
        """Train from the present step to the last; saved now and then."""
        config = self.config
        first, started, saved = self.step, time.monotonic(), time.monotonic()
        if self.world.is_first:
            self.start_log()
        self.inversion.train()
        while self.step < self.total_steps:
            rate = config.learning_rate_at(self.step, self.steps_per_epoch)
            terms = self.take_step(rate)
            for name, value in {**terms, "steps": 1.0}.items():
                self.sums[name] = self.sums.get(name, 0.0) + value
            ends_epoch = self.step % self.steps_per_epoch == 0 or self.step == self.total_steps
            if self.world.is_first and (ends_epoch or self.step % 50 == 0):
                left = (time.monotonic() - started) / (self.step - first) * (self.total_steps - self.step)
                self.report(rate, self.validate() if ends_epoch else {}, left)
            if self.world.is_first and (ends_epoch or time.monotonic() - saved > _SAVE_EVERY):
                self.save()
                saved = time.monotonic()

    def take_step(self, rate: float) -> dict[str, float]:
        """Learn from one batch; gives the step's figures. TrainingError if they are no longer numbers."""
        config = self.config
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        batch = self.batch(self.step)
        self.optimizer.zero_grad()
        terms, count = self.backward(batch)
        total = config.weights.total(terms)
        gradients = [value.grad for value in self.inversion.parameters() if value.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if config.clip_norm is not None:
            torch.nn.utils.clip_grads_with_norm_(self.inversion.parameters(), config.clip_norm, norm)
        if not (torch.isfinite(total) and torch.isfinite(norm)):
            raise self.diverged(f"the loss is {total.item()} and its gradient's norm {norm.item()}")
        if self.step == 0:
            self.first_total = total.item()
        # The losses are bounded or logarithms: a network that knows nothing starts near the worst of them.
        elif total.item() > _DIVERGED * self.first_total:
            raise self.diverged(f"the loss is {total.item():.3g}, where it began with {self.first_total:.3g}")
        self.optimizer.step()
        self.step += 1
        self.update_average()
        figures = {**terms, "total": total, "attributes": count}
        return {name: value.item() for name, value in figures.items()}

    def backward(self, batch: Batch) -> tuple[dict[str, Tensor], Tensor]:
        """The gradient of a batch's loss; gives the losses by name, and the mean number of attribute words.

        Where the batch passes in chunks, the gradient of each output is computed first, from all of them, and then
        handed to the network chunk by chunk.
        """
        share = len(batch.rows) // self.world.size
        own = batch.part(self.world.rank * share, (self.world.rank + 1) * share)
        own = replace(own, local=self.features.take(own.rows, self.encoder.device).local)
        size = self.config.chunk_size or share
        chunks = [own.part(start, min(start + size, share)) for start in range(0, share, size)]
        first_chunk = self.world.rank * math.ceil(share / size)

        def outputs(number: int) -> dict[str, Tensor]:
            _seed_torch(self.config.seed, 1 + self.step, first_chunk + number)
            with self.precision():
                return self.objective.outputs(self.inversion, chunks[number])

        if len(chunks) == 1:
            own_outputs = outputs(0)
        else:
            with torch.no_grad():
                parts = [outputs(number) for number in range(len(chunks))]
            own_outputs = {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in parts[0]}
        everything = {name: self.world.gather(values) for name, values in own_outputs.items()}
        terms = self.objective.terms(everything, batch)
        self.config.weights.total(terms).backward()
        if len(chunks) > 1:
            for number in range(len(chunks)):
                again = outputs(number)
                start = number * size
                wanted = {
                    name: gradient[start : start + size]
                    for name, values in own_outputs.items()
                    if (gradient := values.grad) is not None and again[name].requires_grad
                }
                torch.autograd.backward([again[name] for name in wanted], list(wanted.values()))
        self.world.add_gradients(self.inversion.parameters())
        words = everything.get("count")
        return terms, torch.zeros(()) if words is None else words.detach().mean()

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
        """Two retrieval rates among the images kept out; nothing if none are.

        `val_image_R@1`: the share of pseudo-sentences whose nearest image is their own;
        `val_composed_R@1`: of composed sentences whose nearest caption is what the edit made of their own.
        """
        if not self.validation:
            return {}
        network = self.result()
        random_ = random.Random(f"{self.config.seed} validation")
        batch = self.make_batch(self.validation, range(len(self.validation)), random_)
        wholes, composed, edited, before = [], [], [], []
        for start in range(0, len(batch.rows), 64):
            part = slice(start, start + 64)
            image, local = self.features.take(batch.rows[part], self.encoder.device)
            words = network(image, local)
            wholes.append(encode_sentences(self.encoder, [network.config.sentence()] * len(image), words))
            if batch.edited:
                asked = [network.config.sentence(modification) for modification in batch.modifications[part]]
                composed.append(encode_sentences(self.encoder, asked, words))
                edited.append(encode_sentences(self.encoder, [(text,) for text in batch.edited[part]]))
                before.append(encode_sentences(self.encoder, [(str(caption),) for caption in batch.captions[part]]))

        def nearest(queries: list[Tensor], keys: list[Tensor]) -> list[int]:
            scores = F.normalize(torch.cat(queries), dim=-1) @ F.normalize(torch.cat(keys), dim=-1).T
            found: list[int] = scores.argmax(dim=1).tolist()
            return found

        count = len(batch.rows)
        hits = sum(place == own for own, place in enumerate(nearest(wholes, [batch.image])))
        figures = {"val_image_R@1": hits / count}
        if batch.edited:
            said = [*batch.edited, *map(str, batch.captions)]  # several may say the same
            hits = sum(said[place] == said[own] for own, place in enumerate(nearest(composed, [*edited, *before])))
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
        with writing(self.output, TrainingError):
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
        with (
            writing(self.output, TrainingError),
            open(self.output / "log.csv", "a", newline="", encoding="utf-8") as log,
        ):
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
            "batch_size": self.batch_size,
            "step": self.step,
            "inversion": self.inversion.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "sums": self.sums,
            "first_total": self.first_total,
        }
        partial = self.output / "checkpoint.tmp"
        with writing(self.output, TrainingError):
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
            raise TrainingError(f"The checkpoint {file} cannot be read; delete it to start again.") from error
        # An older version's checkpoint lacks settings that came later; their defaults are what it did.
        theirs = {**asdict(TrainingConfig()), **theirs}
        for name, value in asdict(self.config).items():
            if theirs[name] != value:
                raise TrainingError(
                    f"The training in {self.output} was begun with {name} = {theirs[name]}, not {value}; "
                    "resume it with the same settings or choose another folder."
                )
        if state["encoder"] != self.encoder.fingerprint or state["data"] != self.data_key:
            raise TrainingError(
                f"The training in {self.output} was begun with another backbone or other images and captions; "
                "resume it with the same or choose another folder."
            )
        if state["batch_size"] != self.batch_size:
            raise TrainingError(
                f"The training in {self.output} was begun with {state['batch_size']} images a step, which "
                f"{self.world.size} processes cannot share evenly; resume it with as many processes as before."
            )
        self.inversion.load_state_dict(state["inversion"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = self.saved_step = state["step"]
        self.sums, self.first_total = state["sums"], state["first_total"]
        self.say(f"going on from step {self.step} of {self.total_steps}")

    def describe(self, images: str | Path, captions: str | Path) -> dict[str, object]:
        """How the network was made, for the saved model's config."""
        return {
            "method": self.config.method,
            "pictures": len(self.training),
            "images": Path(images).name,
            "captions": Path(captions).name,
            "steps": self.step,
            "config": asdict(self.config),
        }
