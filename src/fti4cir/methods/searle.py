"""SEARLE: one pseudo-word an image, found by optimisation, and a network that learns to find it at once.

Baldrati, Agnolucci, Bertini, Del Bimbo, "Zero-Shot Composed Image Retrieval with Textual Inversion", ICCV 2023.
There a language model writes the sentences that keep a pseudo-word near to real ones; here the captions of the
training set take its place. Concepts are what these sentences are about: the class names of Open Images, as published,
or the subjects of the captions, which is quick.
"""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder, VisionFeatures, image_fingerprint
from ..captions.split import SplitCaption
from ..errors import ModelError
from ..features.cache import compute_rows
from ..inversion.compose import encode_sentences
from ..inversion.network import FineGrainedInversion, NetworkConfig, PseudoWords
from ..inversion.prompts import Sentence, Slot, Template
from ..training import losses
from ..training.config import (
    Options,
    TrainingConfig,
    require_at_least_one,
    require_choices,
    require_shares,
)
from ..training.losses import LossWeights
from ..training.objective import Batch, Corpus, Needs
from .base import Learner, Model

_TEMPLATE = Template(modification="that {text}")
_VOCABULARY = Path(__file__).parent.parent / "concepts" / "open-images-v7.txt"
_MOST_CONCEPTS = 2000
_MOST_ATTRIBUTES = 20
_MOST_CAPTIONS = 32
"""Captions that are kept of each class of Open Images."""
_BLOCK = 128
_CONCEPT_BLOCK = 64
_AT_ONCE = 256
"""Sentences that pass the text tower together."""
_INVERSION_RATE = 2e-2
_INVERSION_DECAY = 0.01
_INVERSION_REGULARIZATION = 0.5
_INVERSION_DEVIATION = 0.02
_DISTILLATION_TEMPERATURE = 0.25


# -- concepts -------------------------------------------------------------------------------------------------
class Phrase(NamedTuple):
    """A sentence about a concept."""

    pseudo: Sentence
    """With the pseudo-word in the concept's place."""
    real: Sentence


@dataclass(frozen=True)
class Concepts:
    """What things are called, and what is said of each."""

    names: tuple[str, ...]
    said: tuple[tuple[str, ...], ...]
    """For each name, at least one text."""
    features: Tensor
    """(names, D) unit-length text features."""
    phrase: Callable[[str, str], Phrase]
    """A name and what is said of it, to a sentence."""

    @classmethod
    def of_captions(cls, encoder: DualEncoder, attributes: Mapping[str, Sequence[str]]) -> Concepts:
        """Subjects of captions with the attributes that they have there."""
        names = tuple(attributes)
        texts = [(f"{_TEMPLATE.opening} {name}",) for name in names]
        features = F.normalize(_encode(encoder, texts), dim=-1)
        return cls(names, tuple(tuple(attributes[name]) for name in names), features, _with_attribute)

    @classmethod
    def of_open_images(cls, features: Tensor, captions: Mapping[str, Sequence[str]]) -> Concepts:
        """The class names of Open Images, with captions that hold them; where none does, `a photo of {name}`.

        `features` are those of `class_features`, of all names.
        """
        names = class_names()
        said = tuple(tuple(captions.get(name, ())) or (f"{_TEMPLATE.opening} {name}",) for name in names)
        return cls(names, said, features, _replaced)

    def nearest(self, image: Tensor, count: int) -> list[list[int]]:
        """For each image (B, D) the places of the concepts that are nearest to it, best first."""
        similar = F.normalize(image, dim=-1) @ self.features.to(image.device).T
        places: list[list[int]] = similar.topk(min(count, len(self.names))).indices.tolist()
        return places

    def draw(self, nearest: Sequence[Sequence[int]], generators: Sequence[random.Random]) -> list[Phrase]:
        """For each image, by a generator of its own, a sentence about one of its nearest concepts."""
        drawn = []
        for places, random_ in zip(nearest, generators, strict=True):
            place = random_.choice(places)
            drawn.append(self.phrase(self.names[place], random_.choice(self.said[place])))
        return drawn


def _with_attribute(subject: str, attribute: str) -> Phrase:
    return Phrase(_TEMPLATE.pseudo_subject(attribute), (_TEMPLATE.real(subject, attribute),))


def _replaced(name: str, text: str) -> Phrase:
    """The text, and the same with the pseudo-word for the first place where it holds the name."""
    found = _whole(name).search(text)
    if found is None:
        raise ValueError(f"{text!r} does not hold {name!r}")
    pieces = (text[: found.start()].strip(), Slot.SUBJECT, text[found.end() :].strip())
    return Phrase(tuple(piece for piece in pieces if piece), (text,))


@cache
def _whole(name: str) -> re.Pattern[str]:
    """What finds a name that is no part of a longer word."""
    return re.compile(rf"(?<!\w){re.escape(name)}(?!\w)", re.IGNORECASE)


def collect(captions: Sequence[Sequence[SplitCaption]]) -> dict[str, list[str]]:
    """The most frequent subjects of captions, each with some of the attributes that it has there."""
    counts = Counter(caption.subject for group in captions for caption in group)
    kept = [subject for subject, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:_MOST_CONCEPTS]]
    attributes: dict[str, dict[str, None]] = {subject: {} for subject in kept}
    for group in captions:
        for caption in group:
            seen = attributes.get(caption.subject)
            if seen is not None and len(seen) < _MOST_ATTRIBUTES:
                seen[caption.attribute] = None
    return {subject: list(seen) for subject, seen in attributes.items()}


@cache
def class_names() -> tuple[str, ...]:
    """The class names of Open Images V7, of Google LLC under CC BY 4.0."""
    return tuple(_VOCABULARY.read_text(encoding="utf-8").splitlines())


def captions_of_classes(captions: Iterable[str]) -> dict[str, list[str]]:
    """The class names of Open Images that captions hold as whole words, each with the first captions that do."""
    by_words: dict[tuple[str, ...], list[str]] = {}
    for name in class_names():
        by_words.setdefault(_words(name), []).append(name)
    by_words.pop((), None)
    lengths = sorted({len(words) for words in by_words})
    found: dict[str, dict[str, None]] = {}
    for caption in captions:
        words = _words(caption)
        runs = {words[start : start + length] for length in lengths for start in range(len(words) - length + 1)}
        for name in (name for run in runs for name in by_words.get(run, ())):
            kept = found.setdefault(name, {})
            if len(kept) < _MOST_CAPTIONS and _whole(name).search(caption):
                kept[caption] = None
    return {name: list(found[name]) for name in class_names() if found.get(name)}


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def templates() -> list[Sentence]:
    """The 24 sentences with one pseudo-word of PALAVRA (Cohen et al., 2022), which SEARLE uses, as they spell them."""
    kinds = ("photo", "illustration", "sketch", "diagram")
    texts: list[str] = []
    for kind in kinds:
        article, noun = ("An", "illustrations") if kind == "illustration" else ("A", kind)
        of_what = "an" if kind == "illustration" else "a"
        texts += [f"This is {of_what} {kind} of a {{}}", f"This {kind} contains a {{}}", f"{article} {noun} of a {{}}"]
    texts += ["A {}", "We see a {}", "{}"]
    shown = ("photo", "image", "illustration")
    texts += [f"We see a {{}} in this {kind}" for kind in shown]
    texts += [f"We see a {{}} {kind}" for kind in shown]
    texts += [f"{{}} {kind}" for kind in shown]
    return [_slotted(text) for text in texts]


def _slotted(text: str) -> Sentence:
    before, after = (part.strip() for part in text.split("{}"))
    return tuple(piece for piece in (before, Slot.SUBJECT, after) if piece)


def class_features(encoder: DualEncoder, start: int, stop: int) -> Tensor:
    """Unit-length features (stop - start, D) of class names: the mean of those of all templates with the name."""
    sentences: list[Sentence] = [
        (" ".join(name if isinstance(piece, Slot) else piece for piece in template),)
        for name in class_names()[start:stop]
        for template in templates()
    ]
    features = F.normalize(_encode(encoder, sentences), dim=-1).unflatten(0, (-1, len(templates())))
    return F.normalize(features.mean(dim=1), dim=-1)


@torch.no_grad()
def _encode(encoder: DualEncoder, sentences: Sequence[Sentence]) -> Tensor:
    """Features (S, D) of sentences without pseudo-words, in blocks."""
    blocks = range(0, len(sentences), _AT_ONCE)
    return torch.cat([encode_sentences(encoder, sentences[start : start + _AT_ONCE]) for start in blocks])


def _pseudo_and_real(encoder: DualEncoder, words: PseudoWords, phrases: Sequence[Phrase]) -> tuple[Tensor, Tensor]:
    """Features (B, D) of sentences with the pseudo-word in them, and of the same with real words, without gradient."""
    pseudo = encode_sentences(encoder, [phrase.pseudo for phrase in phrases], words)
    with torch.no_grad():
        real = encode_sentences(encoder, [phrase.real for phrase in phrases])
    return pseudo, real


# -- words by optimisation ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Optimization:
    """How the word of an image is found."""

    steps: int = 60
    concepts: int = 5
    """Each step draws a sentence about one of this number of concepts nearest to the image."""
    average: float = 0.0
    """Decay of the exponential moving average of the word, which then is the result; 0: the last word."""
    start: Literal["mean", "random"] = "mean"
    """What a word begins as: the mean of all token embeddings, or Gaussian noise of deviation 0.02."""
    templates: Literal[1, 24] = 1
    """The number of sentences of which each step draws one."""

    @property
    def sentences(self) -> list[Sentence]:
        """In which the text tower shall see the image."""
        return [_TEMPLATE.pseudo(with_attributes=False)] if self.templates == 1 else templates()


def invert(
    encoder: DualEncoder,
    image: Tensor,
    concepts: Concepts,
    optimization: Optimization,
    seeds: Sequence[Sequence[int]] | None = None,
) -> Tensor:
    """Optimisation-based textual inversion: the word of each image in whose sentence the text tower sees it.

    An image's word depends on the image and its seed alone, not on the others beside it.

    Args:
        encoder: the frozen dual encoder.
        image: (B, D) image features.
        concepts: what keeps the words near to real ones.
        optimization: how.
        seeds: of the random choices of each image, numbers that are not negative; None: all make the same ones.

    Returns:
        (B, W) token embeddings.

    """
    # Evaluation composes in inference mode, in which nothing can be optimised, not even by leave of `enable_grad`.
    with torch.inference_mode(False), torch.enable_grad():
        image = image.clone()  # else one that was made in inference mode
        tokens = _start(encoder, optimization, seeds or [(0,)] * len(image)).to(image.device).requires_grad_()
        average = tokens.detach().clone()
        optimizer = torch.optim.AdamW([tokens], lr=_INVERSION_RATE, weight_decay=_INVERSION_DECAY)
        sentences = optimization.sentences
        nearest = concepts.nearest(image, optimization.concepts)
        for step in range(optimization.steps):
            generators = [random.Random(f"{list(seed)} {step}") for seed in seeds] if seeds else _alike(step, image)
            words = PseudoWords.of_subjects(tokens)
            chosen = [sentences[0] if len(sentences) == 1 else random_.choice(sentences) for random_ in generators]
            seen = encode_sentences(encoder, chosen, words)
            pseudo, real = _pseudo_and_real(encoder, words, concepts.draw(nearest, generators))
            loss = losses.regularization(seen, image)
            loss = loss + _INVERSION_REGULARIZATION * losses.regularization(pseudo, real)
            optimizer.zero_grad()
            # Of the mean over the batch, so that an image's word does not depend on how many others there are.
            (loss * len(image)).backward()
            optimizer.step()
            average.lerp_(tokens.detach(), 1 - optimization.average)
    return average


def _alike(step: int, image: Tensor) -> list[random.Random]:
    return [random.Random(step) for _ in range(len(image))]


def _start(encoder: DualEncoder, optimization: Optimization, seeds: Sequence[Sequence[int]]) -> Tensor:
    """What the words (B, W) begin as, float32 whatever the tower is in."""
    if optimization.start == "random":
        drawn = [np.random.default_rng(list(seed)).normal(size=encoder.token_width) for seed in seeds]
        return torch.tensor(np.stack(drawn) * _INVERSION_DEVIATION, dtype=torch.float32)
    # From the middle of all words, which is as near to one as to another.
    middle = encoder.token_table().float().mean(dim=0).detach()
    return middle.expand(len(seeds), -1).clone()


class OptimizedInversion:
    """SEARLE-OTI: the optimisation itself for each reference, slow and without a network.

    It is done as the model's training did it by the published recipe; for a model of another recipe by 60 steps.

    Raises:
        ModelError: if the model was not trained as `searle`, whose concepts this needs.
    """

    name = "searle-oti"

    def __init__(self, model: Model, steps: int | None = None, say: Callable[[str], object] | None = None) -> None:
        said = model.extra.get("concepts")
        if not isinstance(said, dict):
            raise ModelError(
                f"{model.name} holds no concepts for searle-oti; train them with `fti4cir train --method searle "
                f"--backbone {model.encoder.name} --images FOLDER --captions FILE --output DIR` and give --model DIR."
            )
        self._encoder = model.encoder
        try:
            optimization = Optimization(**model.extra.get("optimization", {}))
        except TypeError as error:
            raise ModelError(
                f"{model.name} says how it was optimised in a way that this version does not know: {error}."
            ) from error
        self._optimization = optimization if steps is None else replace(optimization, steps=steps)
        self._said, self._vocabulary = said, model.extra.get("vocabulary", "captions")
        self._made: Concepts | None = None
        self._say = say or (lambda line: None)

    def _concepts(self) -> Concepts:
        """Made when first needed: the many sentences about Open Images' classes take minutes."""
        if self._made is None:
            if self._vocabulary == "captions":
                self._made = Concepts.of_captions(self._encoder, self._said)
            else:
                self._made = Concepts.of_open_images(self._class_features(), self._said)
        return self._made

    def _class_features(self) -> Tensor:
        blocks, told = [], time.monotonic()
        for start in range(0, len(class_names()), _CONCEPT_BLOCK):
            blocks.append(class_features(self._encoder, start, start + _CONCEPT_BLOCK))
            if time.monotonic() - told > 10:
                told = time.monotonic()
                self._say(f"features of concepts for {self.name}: {start} of {len(class_names())}")
        return torch.cat(blocks)

    def compose(
        self,
        features: VisionFeatures,
        texts: Sequence[str],
        owner: Sequence[int] | None = None,
        pictures: Sequence[Path] = (),
    ) -> Tensor:
        """Features of R images and B modifications, each of the image `owner` says, to (B, D)."""
        image = features.image.to(self._encoder.device)
        tokens = invert(self._encoder, image, self._concepts(), self._optimization)
        rows = torch.arange(len(texts)) if owner is None else torch.tensor(list(owner))
        sentences = [_TEMPLATE.pseudo(text, with_attributes=False) for text in texts]
        with torch.no_grad():
            return F.normalize(
                encode_sentences(self._encoder, sentences, PseudoWords.of_subjects(tokens), rows), dim=-1
            ).cpu()


# -- the network ----------------------------------------------------------------------------------------------
@dataclass(frozen=True, kw_only=True)
class SearleWeights(LossWeights):
    """The weights of SEARLE's losses."""

    distillation: float = 1.0
    regularization_subject: float = 0.75
    """Towards a real sentence about a concept."""


@dataclass(frozen=True, kw_only=True)
class SearleOptions(Options):
    """The settings of `SearleObjective`."""

    weights: SearleWeights = field(default_factory=SearleWeights)
    vocabulary: Literal["captions", "open-images"] = "captions"
    """Where the concepts are from: subjects of the training captions, or the 20,931 class names of Open Images."""
    concepts: int = 5
    """How many of the concepts nearest to an image the network's training draws from."""
    inversion: Optimization = field(default_factory=Optimization)
    """The optimisation that finds the word of each training image."""

    def __post_init__(self) -> None:
        require_choices(self, {"vocabulary": ("captions", "open-images")})
        require_at_least_one(self, "concepts")
        require_at_least_one(self.inversion, "steps", "concepts")
        require_shares(self.inversion, "average")
        require_choices(self.inversion, {"start": ("mean", "random"), "templates": (1, 24)})


class SearleObjective:
    """Distillation of the optimised words into the network, with the other images' words as negatives."""

    needs = Needs()

    def __init__(self, config: TrainingConfig, corpus: Corpus) -> None:
        options = config.options_as(SearleOptions)
        self.weights = options.weights
        self._encoder, self._count = corpus.encoder, options.concepts
        encoder, rows, optimization = corpus.encoder, list(corpus.rows), options.inversion
        captions = [corpus.captions[row] for row in rows]
        made_of: list[Any] = [image_fingerprint(encoder), rows]
        seeds: list[tuple[int, int]] | None = None
        self.extra: Mapping[str, Any]
        if options.vocabulary == "captions":
            said = collect(captions)
            self.extra = {"concepts": said}
            self._concepts = Concepts.of_captions(encoder, said)
            made_of += [said, optimization.steps]
            if optimization != Optimization(optimization.steps):
                self.extra = {**self.extra, "optimization": asdict(optimization)}
                made_of.append(asdict(optimization))
        else:
            said = captions_of_classes(str(caption) for group in captions for caption in group)
            self.extra = {"concepts": said, "vocabulary": options.vocabulary, "optimization": asdict(optimization)}
            self._concepts = Concepts.of_open_images(_class_features(corpus), said)
            seeds = [(config.seed, row) for row in rows]
            made_of += [said, asdict(optimization), config.seed]

        def make(start: int, stop: int) -> Tensor:
            image = torch.from_numpy(corpus.image[rows[start:stop]]).to(encoder.device)
            return invert(encoder, image, self._concepts, optimization, seeds and seeds[start:stop])

        shape = (len(rows), encoder.token_width)
        label = "words by optimisation"
        self._tokens = compute_rows(corpus.cache, "inverted", made_of, shape, _BLOCK, make, corpus.say, label)
        self._place = {row: place for place, row in enumerate(rows)}

    def outputs(self, network: FineGrainedInversion, batch: Batch) -> dict[str, Tensor]:
        """The network's words (B, W), and features (B, D) of a sentence with each and of the same in real words."""
        words = network(batch.image, batch.image.new_zeros(len(batch.rows), 0, 0))
        # From PyTorch's random numbers, as the dropout: the trainer has set them for this step.
        generators = [random.Random(seed) for seed in torch.randint(2**31, (len(batch.rows),)).tolist()]
        phrases = self._concepts.draw(self._concepts.nearest(batch.image, self._count), generators)
        pseudo, real = _pseudo_and_real(self._encoder, words, phrases)
        return {"token": words.subject.float(), "subject": pseudo, "real": real}

    def terms(self, outputs: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
        """The contrastive distillation, and the regularisation towards real words."""
        tokens = torch.from_numpy(self._tokens[[self._place[row] for row in batch.rows]]).to(batch.image.device)
        return {
            "distillation": losses.contrastive(tokens, outputs["token"], _DISTILLATION_TEMPERATURE),
            "regularization_subject": losses.regularization(outputs["subject"], outputs["real"]),
        }


def _class_features(corpus: Corpus) -> Tensor:
    """The features of Open Images' class names, kept with the corpus."""
    encoder, count = corpus.encoder, len(class_names())

    def make(start: int, stop: int) -> Tensor:
        return class_features(encoder, start, stop)

    made_of = [encoder.fingerprint, list(class_names()), [list(map(str, template)) for template in templates()]]
    shape, label = (count, encoder.joint_width), "features of concepts"
    rows = compute_rows(corpus.cache, "concepts", made_of, shape, _CONCEPT_BLOCK, make, corpus.say, label)
    return torch.from_numpy(np.array(rows)).to(encoder.device)


SEARLE = Learner(
    presets={
        "searle": TrainingConfig(
            method="searle",
            epochs=100,
            batch_size=256,
            learning_rate=1e-4,
            weight_decay=0.01,
            schedule="constant",
            bfloat16=True,
            network=NetworkConfig(max_attributes=0, dropout=0.5, template=_TEMPLATE),
            options=SearleOptions(
                vocabulary="open-images",
                concepts=150,
                inversion=Optimization(steps=350, concepts=15, average=0.99, start="random", templates=24),
            ),
        ),
        "searle-quick": TrainingConfig(
            method="searle",
            epochs=5,
            batch_size=128,
            learning_rate=1e-4,
            schedule="constant",
            bfloat16=True,
            network=NetworkConfig(max_attributes=0, dropout=0.5, template=_TEMPLATE),
            options=SearleOptions(inversion=Optimization(steps=20)),
        ),
    },
    default="searle",
    objective=SearleObjective,
)
"""`searle`: as published. `searle-quick`: ours, for small encoders and few images, which takes minutes. Figures that
are published with it hold only as long as it stays as it is."""
