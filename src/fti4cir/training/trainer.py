"""Training a method's network on captioned images without labels: one loop for every method that learns.

    config = registry.preset("composed")
    registry.train(config, "images/", "captions.jsonl", "mini", "my-model/")

The loop knows no method: it is given an objective, which `methods.registry` finds for a configuration.

The encoder is frozen, so its features of images and captions are computed once, into OUTPUT/features, and read
from there. OUTPUT/checkpoint.pt holds everything that a step depends on: a training that was killed, at whatever
moment, goes on from it and ends with the same weights, bit for bit on one machine's CPU, as one that was not.

Under `torchrun` each process takes its share of every batch; the losses are those of the whole batch.
"""

from __future__ import annotations

import contextlib
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from ..backbones.base import DualEncoder
from ..captions.table import load_captioned_images
from ..errors import CutWarning, TrainingError
from ..files import writing
from ..models import loading, saved
from ..progress import minutes_left
from .batches import Batches
from .config import TrainingConfig
from .data import TrainingData, image_features, prepare_data
from .distributed import World, world
from .log import Log
from .objective import Corpus, MakeObjective, Objective
from .state import Checkpoint, State
from .step import Stepper, precision
from .texts import CaptionFeatures, caption_features
from .validate import validate

_logger = logging.getLogger(__name__)

_SAVE_EVERY = 60.0
"""Seconds between checkpoints, besides those at the end of each epoch."""
_REPORT_EVERY = 50
"""Steps between reports, besides those at the end of each epoch."""


def train(
    config: TrainingConfig,
    objective: MakeObjective,
    images: str | Path,
    captions: str | Path,
    backbone: str | Path,
    output: str | Path,
    *,
    resume: bool = False,
    features: str | Path | None = None,
) -> Path:
    """Train a network and save it in `output`, which `fti4cir.load` then reads.

    Args:
        config: everything that decides the result of the training.
        objective: what the method that learns minimises.
        images: a folder or a tar file of images.
        captions: a CSV or JSON lines file, see `captions.table.load_captioned_images`.
        backbone: the encoder, by a name or folder that `fti4cir.load` knows.
        output: a folder; also gets `log.csv`, one row a report, and what a later `resume` needs.
        resume: go on from the checkpoint in `output`, or begin if there is none.
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
    with world() as processes, _only_first_logs(processes), contextlib.ExitStack() as opened:
        output = Path(output)
        _require_output(output, resume=resume)
        encoder = loading.load_encoder(backbone, processes.device)
        captioned = load_captioned_images(images, captions)
        if captioned.missing:
            count, first = len(captioned.missing), captioned.missing[0]
            _logger.warning(f"captioned, but not in {images} and left out: {count}, such as {first}")
        cache = Path(features) if features else output / "features"
        cached = image_features(cache, encoder, data=captioned, world=processes, opened=opened)
        data = prepare_data(captioned, cached, rule=config.caption_split, validation=config.validation)
        run = Training(config, objective, encoder=encoder, data=data, output=output, cache=cache, world=processes)
        if run.checkpoint.file.exists():
            run.checkpoint.restore(run.state)
            _logger.info(f"going on from step {run.state.step} of {run.total_steps}")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CutWarning)  # reported before, for all captions at once
            run.loop()
        if processes.is_first:
            made = {
                "method": config.method,
                "pictures": len(data.training),
                "images": Path(images).name,
                "captions": Path(captions).name,
                "steps": run.state.step,
                "config": asdict(config),
            }
            saved.save_model(
                output,
                run.state.result(),
                encoder=encoder,
                trained=made,
                method=config.method,
                extra=run.objective.extra,
            )
        processes.wait()
        return output


class Training:
    """The parts of one training, and its loop."""

    def __init__(
        self,
        config: TrainingConfig,
        make_objective: MakeObjective,
        *,
        encoder: DualEncoder,
        data: TrainingData,
        output: Path,
        cache: Path,
        world: World,
    ) -> None:
        self.config, self.world = config, world
        self._encoder, self._features = encoder, data.features
        self.objective, texts = _prepare(config, make_objective, encoder, data, cache, world)
        size = batch_size(config, len(data.training), processes=world.size)
        self.batches = Batches(config, data, needs=self.objective.needs, texts=texts, size=size, device=encoder.device)
        self.total_steps = config.total_steps(self.batches.per_epoch)
        if config.schedule == "warmup-cosine" and config.warmup_steps >= self.total_steps:
            _logger.warning(
                f"the recipe's learning rate rises over {config.warmup_steps} steps, but this training has only "
                f"{self.total_steps}; a quick preset or a smaller warmup_steps suits few images better"
            )
        self.state = State.initial(config, encoder)
        self.stepper = Stepper(config, self.objective, encoder=encoder, features=data.features, world=world)
        self.checkpoint = Checkpoint(
            folder=output, encoder=encoder, data_key=data.key, batch_size=size, processes=world.size
        )
        self._log = Log(output, vars(self.objective.weights))

    def loop(self) -> None:
        """Train from the present step to the last; saved now and then."""
        state, per_epoch, first = self.state, self.batches.per_epoch, self.state.step
        started = saved = time.monotonic()
        if self.world.is_first:
            self._log.start(state.step)
        state.network.train()
        while state.step < self.total_steps:
            rate = self.config.learning_rate_at(state.step, per_epoch)
            state.add(self.stepper.take(state, self.batches.batch(state.step), rate=rate))
            ends_epoch = state.step % per_epoch == 0 or state.step == self.total_steps
            if not self.world.is_first:
                continue
            if ends_epoch or state.step % _REPORT_EVERY == 0:
                left = (time.monotonic() - started) / (state.step - first) * (self.total_steps - state.step)
                self._report(rate, measure=ends_epoch, left=left)
            if ends_epoch or time.monotonic() - saved > _SAVE_EVERY:
                self.checkpoint.save(state)
                saved = time.monotonic()

    def _report(self, rate: float, *, measure: bool, left: float) -> None:
        """One row of the log, with means since the last, and one line for people; `left` is in seconds."""
        step, figures = self.state.step, self.state.take_means()
        if measure:
            held_out = self.batches.validation()
            figures |= validate(self.state.result(), held_out, encoder=self._encoder, features=self._features)
        self._log.append({"step": step, "epoch": step / self.batches.per_epoch, "learning_rate": rate, **figures})
        shown = ", ".join(f"{name} {value:.3f}" for name, value in figures.items())
        _logger.info(f"step {step} of {self.total_steps}: {shown}; {minutes_left(left)}")


def batch_size(config: TrainingConfig, images: int, *, processes: int) -> int:
    """Images a step that the processes share evenly. TrainingError if there are too few for them."""
    most = min(config.batch_size, images)
    if most < processes:
        raise TrainingError(f"A batch of {most} is too small for {processes} processes.")
    return most // processes * processes


@contextlib.contextmanager
def _only_first_logs(processes: World) -> Iterator[None]:
    """Keep the lines of progress of the other processes out of the log: they are the same."""
    logger = logging.getLogger("fti4cir")
    level = logger.level
    if not processes.is_first:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _require_output(output: Path, *, resume: bool) -> None:
    """Make the folder. TrainingError if it cannot be written to or holds a training that is not to be resumed."""
    if (output / "checkpoint.pt").exists() and not resume:
        raise TrainingError(f"{output} holds a training already; go on with it (--resume) or choose another folder.")
    saved.require_free(output)
    with writing(output, TrainingError):  # before hours of work, not after
        output.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=output).close()
        for name in ("checkpoint.pt", "log.csv", "model.safetensors", "config.json"):
            for partial in output.glob(f".{name}.*.tmp"):
                partial.unlink(missing_ok=True)  # left by a training that was killed while it wrote


def _prepare(
    config: TrainingConfig,
    make_objective: MakeObjective,
    encoder: DualEncoder,
    data: TrainingData,
    cache: Path,
    world: World,
) -> tuple[Objective, CaptionFeatures]:
    """The objective, and the captions' features that it needs: computed by the first process, read by the others."""
    corpus = Corpus(encoder, data.features.image, data.captions, data.training, cache)
    for turn in (world.is_first, not world.is_first):
        if turn:
            with precision(config, encoder.device):
                objective = make_objective(config, corpus)
            texts = caption_features(cache, encoder, data=data, needs=objective.needs, template=config.network.template)
        world.wait()
    return objective, texts
