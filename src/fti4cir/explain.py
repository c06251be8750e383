"""What the model makes of a picture: its pseudo-words, the real words nearest to them, where each one looked."""

from __future__ import annotations

import base64
import html
import io
import math
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from .backbones.base import DualEncoder
from .errors import InputError
from .pictures import open_picture
from .preprocess import target_pad

if TYPE_CHECKING:
    from .model import Model, Picture

NEAREST = 5
"""How many real words are told for each pseudo-word."""
_SHORTEST_WORD = 3
_PICTURE_SIZE = 640
_HEAT_SIZE = 320


@dataclass(frozen=True)
class NearWord:
    """A real word and the cosine of its token embedding with a pseudo-word."""

    word: str
    similarity: float


@dataclass(frozen=True)
class Attribute:
    """An attribute-oriented pseudo-word that a picture got."""

    latent: int
    """Which of the K latent attributes it is."""
    relevance: float
    nearest: tuple[NearWord, ...]
    """By falling similarity."""
    heat: npt.NDArray[np.float32]
    """(g, g), where it looked: the shares of the image tower's g x g places, of what did not go to the class token."""


@dataclass(frozen=True)
class Explanation:
    """What a model makes of one picture."""

    model: str
    source: str
    """The picture's file name, or empty."""
    picture: Image.Image
    """Upright, in RGB."""
    subject: tuple[NearWord, ...]
    """The real words nearest to the subject-oriented pseudo-word, by falling similarity."""
    attributes: tuple[Attribute, ...]
    """In the order in which they stand in the sentence."""
    relevance: tuple[float, ...]
    """Of all K latent attributes, kept or not; they sum to one."""
    threshold: float | None
    """The least relevance of a kept attribute, as far as at least one and at most M are kept; None: M are."""

    def to_json(self) -> dict[str, Any]:
        """All but the picture, as JSON can say it."""

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
def explain(model: Model, image: Picture) -> Explanation:
    """Explain what a model makes of one picture.

    Raises:
        PictureError: if the picture cannot be read.
        ModelError: if the model has no inversion weights.

    """
    inversion = model.require_inversion()
    encoder = model.encoder
    picture = open_picture(image, at_least=_PICTURE_SIZE)
    features = model.features([image])
    local = features.local.to(encoder.device)
    words = inversion(features.image.to(encoder.device), local)
    count = int(words.counts[0])
    pseudo = torch.cat([words.subject, words.attributes[0, :count]])  # (1 + n, W)
    nearest = _nearest_words(encoder, pseudo)
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
        source="" if isinstance(image, Image.Image) else Path(image).name,
        picture=picture,
        subject=nearest[0],
        attributes=tuple(
            Attribute(latent, relevance[latent], near, place)
            for latent, near, place in zip(kept, nearest[1:], heat, strict=True)
        ),
        relevance=tuple(relevance),
        threshold=inversion.config.threshold,
    )


_WORDS: weakref.WeakKeyDictionary[DualEncoder, tuple[list[str], Tensor]] = weakref.WeakKeyDictionary()
"""For each encoder its whole words of at least three letters, and their token ids."""


def _words_of(encoder: DualEncoder) -> tuple[list[str], Tensor]:
    if encoder not in _WORDS:
        found = [(token, encoder.word_of(token)) for token in range(len(encoder.token_table()))]
        whole = [(token, word) for token, word in found if word is not None and len(word) >= _SHORTEST_WORD]
        _WORDS[encoder] = ([word for _, word in whole], torch.tensor([token for token, _ in whole], dtype=torch.long))
    return _WORDS[encoder]


def _nearest_words(encoder: DualEncoder, pseudo: Tensor) -> list[tuple[NearWord, ...]]:
    """The real words nearest to each of N pseudo-words (N, W), by the cosine of token embeddings."""
    words, ids = _words_of(encoder)
    table = F.normalize(encoder.token_table(), dim=-1)[ids.to(pseudo.device)]
    cosines = F.normalize(pseudo.float(), dim=-1) @ table.T  # (N, words)
    best = cosines.topk(min(NEAREST, len(words)), dim=-1)
    return [
        tuple(NearWord(words[place], value) for place, value in zip(places, values, strict=True))
        for places, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]


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
    """The square that `preprocess.square` shows the image tower: left, top, right, bottom in the picture's pixels.

    It reaches beyond the picture where that is padded, and leaves out of it what is cropped.
    """
    width, height = picture.size
    padded_width, padded_height = target_pad(picture).size
    side = min(padded_width, padded_height)
    left = (padded_width - side) / 2 - (padded_width - width) // 2
    top = (padded_height - side) / 2 - (padded_height - height) // 2
    return left, top, left + side, top + side


def heat_overlay(heat: npt.NDArray[np.float32], picture: Image.Image, size: int = _HEAT_SIZE) -> Image.Image:
    """A heat map (g, g) as an RGBA image to lay over the whole picture, its long side `size` pixels.

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
    cut = " The dark border was cut off before the model saw the picture." if cropped else ""
    style = _STYLE.replace("PICTURE", _data_uri(shown, "JPEG", quality=85)).replace(
        "RATIO", f"{shown.width} / {shown.height}"
    )
    attributes = "\n".join(_card(attribute, explanation) for attribute in explanation.attributes)
    maps = (
        f"""<input type="checkbox" id="heat" checked>
<div class="bar"><h2>Where each attribute looked</h2><label for="heat">heat maps</label></div>
<p class="note">Bright places gave the attribute most, dark ones least, each map on its own scale; the real words
below it are the nearest to its pseudo-word, and the percentage is its relevance.{cut}</p>
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
<div class="photo" role="img" aria-label="The picture"></div>
<div>
<p class="over">{html.escape(title)}</p>
<h1>{_sentence(explanation)}</h1>
<p>{html.escape(_summary(explanation))} Each coloured word stands for a pseudo-word, a vector that no dictionary
holds, and is the real word nearest to it.</p>
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
        return f"{explanation.model} makes one pseudo-word of the picture, for its subject."
    return (
        f"{explanation.model} makes {count + 1} pseudo-words of the picture: one for its subject, and "
        f"{count} for {'its most relevant attribute' if count == 1 else 'its most relevant attributes'} of {of}."
    )


def _listed(words: tuple[NearWord, ...]) -> str:
    return ", ".join(f"{near.word} {near.similarity:.2f}" for near in words) or "no real word"


def _sentence(explanation: Explanation) -> str:
    """The sentence that the model reads, each pseudo-word shown as the real word nearest to it."""

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
