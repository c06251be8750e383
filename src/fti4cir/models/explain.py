"""What the model makes of an image: its pseudo-words, the real words most like them, where each one looked."""

from __future__ import annotations

import base64
import html
import io
import math
import tempfile
import weakref
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialize
from torch import Tensor
from torch.nn import functional as F

from ..backbones.base import DualEncoder
from ..errors import InputError
from ..files import user_cache
from ..images.decode import ImageSource, open_image
from ..images.preprocess import padding
from ..inversion.compose import encode_sentences
from ..inversion.network import PseudoWords
from ..inversion.prompts import Sentence, Slot

if TYPE_CHECKING:
    from .model import Model

NEAREST = 5
"""How many real words are told for each pseudo-word."""
_MOST_WORDS = 4000
"""How many of the vocabulary's words are compared with."""
_SHORTEST_WORD = 3
_FUNCTION_WORDS = """
about after again against all along already also although always among and another any are aren around because
been before being between both but can cannot could couldn despite did didn does doesn doing don done during
each either else etc even ever every few for from had hadn has hasn have haven having her here hers herself him
himself his how however instead into isn its itself just least less many may maybe might mine more most much
must myself neither never none nor not nothing now off often once one ones only onto other others our ours out
over own perhaps quite rather really same shall she should shouldn since some someone something soon still such
than that the their theirs them themselves then there therefore these they this those though through throughout
thus till too toward towards under unless until upon use used very via was wasn well were weren what whatever
when whenever where whereas wherever whether which while who whom whose why will with within without won would
wouldn yet you your yours yourself
"""
"""Words that describe nothing, so no pseudo-word is told by them."""
_BATCH = 256
_PICTURE_SIZE = 640
_HEAT_SIZE = 320


@dataclass(frozen=True)
class NearWord:
    """A real word and how like a pseudo-word the text tower reads it.

    The similarity is the cosine of the features of two sentences, one with the real word and one with the pseudo-word
    in its place, both less the mean feature of all real words' sentences.
    """

    word: str
    similarity: float


@dataclass(frozen=True)
class Attribute:
    """An attribute-oriented pseudo-word that an image got."""

    latent: int
    """Which of the K latent attributes it is."""
    relevance: float
    nearest: tuple[NearWord, ...]
    """The real words that the text tower reads most like it, by falling similarity."""
    heat: npt.NDArray[np.float32]
    """(g, g), where it looked: the shares of the image tower's g x g places, of what did not go to the class token."""


@dataclass(frozen=True)
class Explanation:
    """What a model makes of one image."""

    model: str
    source: str
    """The image's file name, or empty."""
    picture: Image.Image
    """Upright, in RGB."""
    subject: tuple[NearWord, ...]
    """The real words that the text tower reads most like the subject-oriented pseudo-word, by falling similarity."""
    attributes: tuple[Attribute, ...]
    """In the order in which they stand in the sentence."""
    relevance: tuple[float, ...]
    """Of all K latent attributes, kept or not; they sum to one."""
    threshold: float | None
    """The least relevance of a kept attribute, as far as at least one and at most M are kept; None: M are."""

    def to_json(self) -> dict[str, Any]:
        """All but the image, as JSON can say it."""

        def nearest(words: tuple[NearWord, ...]) -> list[dict[str, Any]]:
            return [{"word": near.word, "similarity": round(near.similarity, 4)} for near in words]

        return {
            "model": self.model,
            "source": self.source,
            "subject": {"nearest": nearest(self.subject)},
            "attributes": [
                {
                    "latent": attribute.latent,
                    "relevance": round(attribute.relevance, 4),
                    "nearest": nearest(attribute.nearest),
                    "heat": [[round(float(value), 5) for value in row] for row in attribute.heat],
                }
                for attribute in self.attributes
            ],
            "relevance": [round(value, 4) for value in self.relevance],
            "threshold": self.threshold,
        }

    def __str__(self) -> str:
        lines = [_summary(self), f"  subject       near {_listed(self.subject)}"]
        lines += [
            f"  attribute {one.latent:>2}  near {_listed(one.nearest)}  (relevance {one.relevance:.2f})"
            for one in self.attributes
        ]
        return "\n".join(lines)


@torch.no_grad()
def explain(model: Model, image: ImageSource) -> Explanation:
    """Explain what a model makes of one image.

    Raises:
        ImageError: if the image cannot be read.
        ModelError: if the model has no inversion weights.

    """
    inversion = model.require_inversion()
    encoder = model.encoder
    picture = open_image(image, at_least=_PICTURE_SIZE)
    features = model.features([image])
    local = features.local.to(encoder.device)
    words = inversion(features.image.to(encoder.device), local)
    count = int(words.counts[0])
    subject, attributes = _nearest_words(encoder, words)
    kept = words.indices[0, :count].tolist()
    heat = np.zeros((0, 0, 0), dtype=np.float32)
    if inversion.latent is not None:
        places = inversion.latent.attention(local)[0, kept, 1:]  # (n, g * g), without the class token
        places = places / places.sum(dim=-1, keepdim=True)
        side = math.isqrt(places.shape[1])
        heat = places.view(-1, side, side).float().cpu().numpy()  # (n, g, g)
    relevance: list[float] = words.relevance[0].tolist()
    return Explanation(
        model=model.name,
        source=Path(image).name if isinstance(image, str | Path) else "",
        picture=picture,
        subject=subject,
        attributes=tuple(
            Attribute(latent, relevance[latent], near, place)
            for latent, near, place in zip(kept, attributes, heat, strict=True)
        ),
        relevance=tuple(relevance),
        threshold=inversion.config.threshold,
    )


# -- real words ---------------------------------------------------------------------------------------------

_SUBJECT_TEXT = "a photo of"
_ATTRIBUTE_TEXT = "a photo with"


@dataclass(frozen=True)
class _RealWords:
    """The real words that pseudo-words are compared with, and the features of their sentences, on the CPU."""

    words: list[str]
    subject: Tensor
    """(words, D) float16, of `a photo of {word}`."""
    attribute: Tensor
    """(words, D) float16, of `a photo with {word}`."""


_WORDS: weakref.WeakKeyDictionary[DualEncoder, _RealWords] = weakref.WeakKeyDictionary()
"""What `_real_words` gave for each encoder."""


def _nearest_words(
    encoder: DualEncoder, pseudo: PseudoWords
) -> tuple[tuple[NearWord, ...], list[tuple[NearWord, ...]]]:
    """The real words that the text tower reads most like one image's subject word and each of its n attributes."""
    real = _real_words(encoder)
    count = int(pseudo.counts[0])
    subject = encode_sentences(encoder, [(_SUBJECT_TEXT, Slot.SUBJECT)], pseudo)  # (1, D)
    nearest_subject = _nearest(subject, real.subject, real.words)[0]
    if not count:
        return nearest_subject, []
    # As if each attribute were the only one of an image of its own.
    single = replace(
        pseudo,
        subject=pseudo.subject.expand(count, -1),
        attributes=pseudo.attributes[0, :count, None],
        counts=torch.ones(count, dtype=pseudo.counts.dtype),
    )
    attributes = encode_sentences(encoder, [(_ATTRIBUTE_TEXT, Slot.ATTRIBUTES)] * count, single)  # (n, D)
    return nearest_subject, _nearest(attributes, real.attribute, real.words)


def _nearest(pseudo: Tensor, real: Tensor, words: list[str]) -> list[tuple[NearWord, ...]]:
    """For each of N sentences (N, D) the words whose sentences (words, D) are most like it, less their mean."""
    if not words:
        return [()] * len(pseudo)
    real = real.float()
    mean = real.mean(dim=0)
    cosines = F.normalize(pseudo.cpu() - mean, dim=-1) @ F.normalize(real - mean, dim=-1).T  # (N, words)
    best = cosines.topk(min(NEAREST, len(words)), dim=-1)
    return [
        tuple(NearWord(words[place], value) for place, value in zip(places, values, strict=True))
        for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


def _real_words(encoder: DualEncoder) -> _RealWords:
    """From this process, else from the user's cache, else encoded, which takes some seconds, and put into both."""
    if encoder not in _WORDS:
        words = _common_words(encoder)
        path = _cache_file(encoder)
        real = _read_words(path, words, encoder.joint_width)
        if real is None:
            real = _RealWords(words, *(_encode(encoder, words, text) for text in (_SUBJECT_TEXT, _ATTRIBUTE_TEXT)))
            _write_words(path, real)
        _WORDS[encoder] = real
    return _WORDS[encoder]


def _common_words(encoder: DualEncoder) -> list[str]:
    """The vocabulary's first whole words that describe something; vocabularies are ordered by frequency.

    Only ASCII: vocabularies of bytes spell all else, emoji too, in letters that are not its own.
    """
    function_words = set(_FUNCTION_WORDS.split())
    found = (encoder.word_of(token) for token in range(len(encoder.token_table())))
    telling = (
        word
        for word in found
        if word is not None and word.isascii() and len(word) >= _SHORTEST_WORD and word not in function_words
    )
    return list(islice(telling, _MOST_WORDS))


def _encode(encoder: DualEncoder, words: list[str], text: str) -> Tensor:
    """(words, D) float16: the features of the text followed by each word."""
    sentences: list[Sentence] = [(f"{text} {word}",) for word in words]
    fast = encoder.device.type == "cpu" and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    features = torch.empty(len(words), encoder.joint_width, dtype=torch.float16)
    with torch.autocast("cpu", torch.bfloat16, enabled=fast):
        for start in range(0, len(words), _BATCH):
            features[start : start + _BATCH] = encode_sentences(encoder, sentences[start : start + _BATCH])
    return features


def _cache_file(encoder: DualEncoder) -> Path | None:
    """Where the features of an encoder's real words are kept: in the user's cache; None for a user without home."""
    try:
        return user_cache() / "words" / f"{encoder.fingerprint}.safetensors"
    except RuntimeError:
        return None


def _read_words(path: Path | None, words: list[str], width: int) -> _RealWords | None:
    """What the file holds, or None if it is missing, damaged or of other words."""
    if path is None:
        return None
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata() or {}
            subject, attribute = file.get_tensor("subject"), file.get_tensor("attribute")
    except (OSError, SafetensorError):
        return None
    fits = about.get("words") == " ".join(words) and subject.shape == attribute.shape == (len(words), width)
    return _RealWords(words, subject, attribute) if fits else None


def _write_words(path: Path | None, real: _RealWords) -> None:
    """Write the file as a whole or, if that cannot be done, not at all: it only saves time."""
    if path is None:
        return
    data = serialize({"subject": real.subject, "attribute": real.attribute}, {"words": " ".join(real.words)})
    partial: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".tmp", delete=False) as file:
            partial = Path(file.name)
            file.write(data)
        partial.replace(path)
    except OSError:
        if partial is not None:
            partial.unlink(missing_ok=True)


# -- heat maps ----------------------------------------------------------------------------------------------

# Inferno (van der Walt and Smith, 2015), perceptually uniform, at nine equal steps.
_INFERNO = np.array(
    [
        (0, 0, 4),
        (31, 12, 72),
        (85, 15, 109),
        (136, 34, 106),
        (186, 54, 85),
        (227, 89, 51),
        (249, 140, 10),
        (249, 201, 50),
        (252, 255, 164),
    ],
    dtype=np.float32,
)


def seen_box(picture: Image.Image) -> tuple[float, float, float, float]:
    """What `images.preprocess.square` shows the image tower: left, top, right, bottom in the image's pixels.

    It reaches beyond the image where that is padded, and leaves out of it what is cropped.
    """
    width, height = picture.size
    across, down = padding(width, height)
    side = min(width + 2 * across, height + 2 * down)
    left = (width - side) / 2
    top = (height - side) / 2
    return left, top, left + side, top + side


def heat_overlay(heat: npt.NDArray[np.float32], picture: Image.Image, size: int = _HEAT_SIZE) -> Image.Image:
    """A heat map (g, g) as an RGBA image to lay over the whole image, its long side `size` pixels.

    Each map has its own scale, from its coldest place to its hottest. What the network did not see is darkened.
    """
    scale = size / max(picture.size)
    width, height = (max(1, round(side * scale)) for side in picture.size)
    left, top, right, bottom = (round(edge * scale) for edge in seen_box(picture))
    spread = float(heat.max() - heat.min())
    even = (heat - heat.min()) / spread if spread > 0 else np.zeros_like(heat)
    smooth = Image.fromarray(even).resize((right - left, bottom - top), Image.Resampling.BICUBIC)
    values = np.asarray(smooth).clip(0, 1)
    position = values * (len(_INFERNO) - 1)
    lower = position.astype(np.int64).clip(0, len(_INFERNO) - 2)
    part = (position - lower)[..., None]
    colour = _INFERNO[lower] * (1 - part) + _INFERNO[lower + 1] * part
    alpha = 255 * (0.25 + 0.5 * values)[..., None]
    seen = Image.fromarray(np.concatenate([colour, alpha], axis=-1).round().astype(np.uint8), "RGBA")
    overlay = Image.new("RGBA", (width, height), (0, 0, 0, 190))
    overlay.paste(seen, (left, top))
    return overlay


# -- the page -----------------------------------------------------------------------------------------------


def write_html(explanation: Explanation, path: str | Path) -> None:
    """Write an explanation as one HTML file that needs nothing else, neither network nor JavaScript.

    Raises:
        InputError: if the file cannot be written.

    """
    try:
        Path(path).write_text(_page(explanation), encoding="utf-8")
    except OSError as error:
        raise InputError(f"The page {path} cannot be written: {error.strerror or error}.") from error


def _page(explanation: Explanation) -> str:
    shown = explanation.picture.copy()
    shown.thumbnail((_PICTURE_SIZE, _PICTURE_SIZE), Image.Resampling.LANCZOS)
    title = f"What {explanation.model} sees" + (f" in {explanation.source}" if explanation.source else "")
    left, top, right, bottom = seen_box(explanation.picture)
    width, height = explanation.picture.size
    cropped = left > 0.5 or top > 0.5 or right < width - 0.5 or bottom < height - 0.5
    cut = " The dark border was cut off before the model saw the image." if cropped else ""
    style = _STYLE.replace("PICTURE", _data_uri(shown, "JPEG", quality=85)).replace(
        "RATIO", f"{shown.width} / {shown.height}"
    )
    attributes = "\n".join(_card(attribute, explanation) for attribute in explanation.attributes)
    maps = (
        f"""<input type="checkbox" id="heat" checked>
<div class="bar"><h2>Where each attribute looked</h2><label for="heat">heat maps</label></div>
<p class="note">Bright places gave the attribute most, dark ones least, each map on its own scale; below it
are the real words that the text tower reads most like its pseudo-word, and the percentage is its relevance.{cut}</p>
<section class="cards">
{attributes}
</section>
<h2>How relevant each latent attribute is</h2>
{_chart(explanation)}"""
        if explanation.attributes
        else ""
    )
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{html.escape(title)}</title>
<style>{style}</style>
</head>
<body>
<main>
<header>
<div class="photo" role="img" aria-label="The image"></div>
<div>
<p class="over">{html.escape(title)}</p>
<h1>{_sentence(explanation)}</h1>
<p>{html.escape(_summary(explanation))} Each coloured word stands for a pseudo-word, a vector that no dictionary
holds, and is the real word that the text tower reads most like it.</p>
<p class="near"><b>Subject</b> {_chips(explanation.subject)}</p>
</div>
</header>
{maps}
</main>
</body>
</html>
"""


def _summary(explanation: Explanation) -> str:
    count, of = len(explanation.attributes), len(explanation.relevance)
    if not of:
        return f"{explanation.model} makes one pseudo-word of the image, for its subject."
    return (
        f"{explanation.model} makes {count + 1} pseudo-words of the image: one for its subject, and "
        f"{count} for {'its most relevant attribute' if count == 1 else 'its most relevant attributes'} of {of}."
    )


def _listed(words: tuple[NearWord, ...]) -> str:
    return ", ".join(f"{near.word} {near.similarity:.2f}" for near in words) or "no real word"


def _sentence(explanation: Explanation) -> str:
    """The sentence that the model reads, each pseudo-word shown as the real word that is read most like it."""

    def word(near: tuple[NearWord, ...], kind: str) -> str:
        return f'<span class="{kind}">{html.escape(near[0].word if near else "?")}</span>'

    text = f"a photo of {word(explanation.subject, 'subject')}"
    if explanation.attributes:
        text += " with " + " ".join(word(attribute.nearest, "attribute") for attribute in explanation.attributes)
    return text


def _chips(words: tuple[NearWord, ...]) -> str:
    return " ".join(
        f'<span class="chip">{html.escape(near.word)} <small>{near.similarity:.2f}</small></span>' for near in words
    )


def _card(attribute: Attribute, explanation: Explanation) -> str:
    overlay = _data_uri(heat_overlay(attribute.heat, explanation.picture), "WEBP", quality=80)
    share = 100 * attribute.relevance / max(explanation.relevance)
    return f"""<figure>
<div class="photo"><img src="{overlay}" alt="Heat map of attribute {attribute.latent}"></div>
<figcaption>
<div class="bar"><b>Attribute {attribute.latent}</b><span>{_percent(attribute.relevance)}</span></div>
<div class="meter"><i style="width:{share:.1f}%"></i></div>
<p class="near">{_chips(attribute.nearest)}</p>
</figcaption>
</figure>"""


def _chart(explanation: Explanation) -> str:
    """One bar for each latent attribute, those that became words coloured, and a line for the threshold."""
    highest = max(explanation.relevance)
    kept = {attribute.latent for attribute in explanation.attributes}
    bars = "".join(
        f'<span title="attribute {index}: {_percent(value)}"{" class=kept" if index in kept else ""}>'
        f'<i style="height:{100 * value / highest:.1f}%"></i><small>{index}</small></span>'
        for index, value in enumerate(explanation.relevance)
    )
    line, words = "", "Those in colour became words."
    if explanation.threshold is not None:
        words = (
            f"Those in colour became words: the ones above {_percent(explanation.threshold)}, but at least one and "
            "at most as many as the model allows."
        )
        if explanation.threshold < highest:
            line = f'<hr style="bottom:{100 * explanation.threshold / highest:.1f}%">'
    return f"""<p class="note">{words}</p>
<div class="chart" role="img" aria-label="Relevance of all latent attributes">
<div class="plot">{line}</div>{bars}
</div>"""


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"


def _data_uri(image: Image.Image, kind: str, quality: int) -> str:
    buffer = io.BytesIO()
    image.save(buffer, kind, quality=quality)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


_STYLE = """
:root { color-scheme: light dark; --page: #f7f6f3; --card: #fff; --ink: #1d1b1a; --soft: #6d6863; --line: #e3dfd9;
  --subject: #7a3cc4; --attribute: #bb4a08; --chip: #f1eee9; }
@media (prefers-color-scheme: dark) { :root { --page: #141312; --card: #1e1c1b; --ink: #f0ece7; --soft: #a39c94;
  --line: #34302d; --subject: #c79bff; --attribute: #ffa05c; --chip: #2b2826; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1120px; margin: 0 auto; padding: clamp(20px, 4vw, 56px); }
header { display: grid; grid-template-columns: minmax(220px, 5fr) 7fr; gap: clamp(20px, 4vw, 48px); }
header > * { align-self: center; }
@media (max-width: 700px) { header { grid-template-columns: 1fr; } }
h1 { font: 500 clamp(1.5rem, 3vw, 2.3rem)/1.35 Georgia, serif; margin: .3em 0 .6em; text-wrap: pretty; }
h2 { font: 500 1.35rem/1.3 Georgia, serif; margin: 0; }
p { margin: 0 0 .8em; text-wrap: pretty; }
.over { color: var(--soft); font-size: .85rem; letter-spacing: .02em; margin: 0; overflow-wrap: anywhere; }
.note { color: var(--soft); max-width: 68ch; margin: .4em 0 1.2em; }
.subject, .attribute { border-bottom: 3px solid currentColor; white-space: nowrap; }
.subject { color: var(--subject); }
.attribute { color: var(--attribute); }
.photo { background: url(PICTURE) center / 100% 100%; aspect-ratio: RATIO; border-radius: 10px; overflow: hidden;
  width: min(100%, calc(480px * RATIO)); justify-self: center; }
.photo img { display: block; width: 100%; height: 100%; transition: opacity .25s; }
.photo:hover img, #heat:not(:checked) ~ .cards img { opacity: 0; }
#heat { position: absolute; opacity: 0; }
#heat ~ h2, #heat + .bar { margin-top: 56px; }
.bar b { white-space: nowrap; }
.bar { display: flex; justify-content: space-between; align-items: baseline; gap: 1em; }
label { cursor: pointer; color: var(--soft); font-size: .9rem; white-space: nowrap; }
label::before { content: ""; display: inline-block; width: 28px; height: 16px; margin-right: .5em; vertical-align: -3px;
  border-radius: 8px; background: radial-gradient(circle at 8px 8px, #fff 5px, transparent 6px), var(--soft); }
#heat:checked + .bar label::before { background: radial-gradient(circle at 20px 8px, #fff 5px, transparent 6px),
  #d4580f; }
#heat:focus-visible + .bar label { outline: 2px solid; outline-offset: 4px; border-radius: 4px; }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(230px, 1fr)); gap: 20px; align-items: start; }
figure { margin: 0; background: var(--card); border: 1px solid var(--line); border-radius: 14px; overflow: hidden; }
figure .photo { border-radius: 0; width: min(100%, calc(300px * RATIO)); margin: 0 auto; }
figcaption { padding: 14px 16px 10px; }
figcaption .bar span { color: var(--soft); font-size: .85rem; }
.meter { height: 4px; border-radius: 2px; background: var(--chip); margin: 8px 0 12px; }
.meter i { display: block; height: 100%; border-radius: 2px; background: var(--attribute); }
.near { display: flex; flex-wrap: wrap; gap: 6px; align-items: center; margin: 0; }
.near b { margin-right: 4px; }
.chip { background: var(--chip); border-radius: 6px; padding: 2px 8px; font-size: .9rem; }
.chip small { color: var(--soft); font-variant-numeric: tabular-nums; }
.chart { position: relative; display: flex; gap: 4px; height: 180px; }
.chart span { flex: 1; display: flex; flex-direction: column; justify-content: flex-end; z-index: 1; }
.chart i { background: var(--soft); opacity: .35; border-radius: 3px 3px 0 0; min-height: 2px; }
.chart .kept i { background: var(--attribute); opacity: 1; }
.chart small { height: 22px; flex: none; text-align: center; color: var(--soft); font-size: .7rem; padding-top: 4px; }
.plot { position: absolute; inset: 0 0 22px; border-bottom: 1px solid var(--line); }
.plot hr { position: absolute; width: 100%; margin: 0; border: 0; border-top: 1px dashed var(--soft); }
"""
