"""Sentences and pseudo-words to text features: the one place where pseudo-words enter a sentence.

They enter by position. Sentences are encoded at their real length: those of a batch are padded to its
longest, not to the encoder's context.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import regex
import torch
from torch import Tensor

from ..backbones.base import DualEncoder
from ..errors import CutWarning
from .network import PseudoWords
from .prompts import Framed, Sentence, Slot


@dataclass(frozen=True)
class _Tokens:
    """A tokenised sentence: ids of its real tokens (0 where a pseudo-word stands), and what stands where."""

    ids: list[int]
    source: list[int]
    """For every token: -1 a real one, 0 the subject word, j >= 1 the j-th attribute word."""


def encode_sentences(
    encoder: DualEncoder, sentences: Sequence[Sentence], words: PseudoWords | None = None, owner: Tensor | None = None
) -> Tensor:
    """Encode sentences, their slots filled with pseudo-words.

    Args:
        encoder: the dual encoder whose text tower reads them.
        sentences: S sentences.
        words: the pseudo-words of B images; may be None if no sentence has a slot.
        owner: (S,) which image fills each sentence; None: sentence i is filled by image i.

    Returns:
        (S, D) text features, not normalised, with gradient to the pseudo-words.

    """
    rows = list(range(len(sentences))) if owner is None else owner.tolist()
    counts = [] if words is None else words.counts.tolist()
    plain: dict[str, list[int]] = {}  # equal pieces are tokenised once a call
    tokenised = [
        _tokenise(encoder, sentence, counts[row] if counts else None, plain)
        for sentence, row in zip(sentences, rows, strict=True)
    ]
    length = max((len(tokens.ids) for tokens in tokenised), default=1)
    device = encoder.device
    ids = torch.full((len(tokenised), length), encoder.end_token)
    source = torch.full((len(tokenised), length), -1)
    for index, tokens in enumerate(tokenised):
        ids[index, : len(tokens.ids)] = torch.tensor(tokens.ids)
        source[index, : len(tokens.ids)] = torch.tensor(tokens.source)
    lengths = torch.tensor([len(tokens.ids) for tokens in tokenised], device=device)
    embeddings = encoder.embed_tokens(ids.to(device))  # (S, T, W)
    if words is not None:
        sentence_index, position = (source >= 0).nonzero(as_tuple=True)
        slots = torch.cat([words.subject[:, None], words.attributes], dim=1)  # (B, 1 + M, W)
        picture = torch.tensor(rows)[sentence_index]
        filled = slots[picture.to(device), source[sentence_index, position].to(device)]
        embeddings = embeddings.index_put((sentence_index.to(device), position.to(device)), filled.to(embeddings.dtype))
    return encoder.encode_embeddings(embeddings, lengths)


def _tokenise(encoder: DualEncoder, sentence: Sentence, count: int | None, plain: dict[str, list[int]]) -> _Tokens:
    for piece in sentence:
        if isinstance(piece, Slot):
            if count is None:
                raise ValueError("a sentence with slots needs pseudo-words")
        elif piece not in plain:
            plain[piece] = encoder.tokenize(piece)
    if count is not None and Slot.ATTRIBUTES in sentence:
        count = _attributes_that_fit(encoder, sentence, count, plain)
    ids, source = [encoder.start_token], [-1]
    room = encoder.context_length - 1  # the end token
    for place, piece in enumerate(sentence):
        if isinstance(piece, Slot):
            fill = [0] if piece is Slot.SUBJECT else list(range(1, (count or 0) + 1))
            ids += [0] * len(fill)
            source += fill
        else:
            tokens = plain[piece]
            rest = sum(
                1 if later is Slot.SUBJECT else (count or 0)
                for later in sentence[place + 1 :]
                if isinstance(later, Slot)
            )
            if len(ids) + len(tokens) + rest > room:
                tokens = _cut(encoder, piece, max(0, room - len(ids) - rest))
            ids += tokens
            source += [-1] * len(tokens)
    # Only a sentence with nearly as many slots as the context has places comes this far.
    if len(ids) > room:
        ids, source = ids[:room], source[:room]
    return _Tokens([*ids, encoder.end_token], [*source, -1])


def _attributes_that_fit(encoder: DualEncoder, sentence: Sentence, count: int, plain: dict[str, list[int]]) -> int:
    """How many attribute words a sentence gets: all, unless they would leave its text less than half of the room.

    The template's words come first, so a network with very many attributes cannot push a modification out.
    """
    words = text = 0
    for piece in sentence:
        if isinstance(piece, Framed):
            frame = len(encoder.tokenize(piece.before)) + len(encoder.tokenize(piece.after))
            words += frame
            text += max(0, len(plain[piece]) - frame)
        else:
            words += (piece is Slot.SUBJECT) if isinstance(piece, Slot) else len(plain[piece])
    room = max(0, encoder.context_length - 2 - words)  # without the start and the end token
    kept = min(count, max(room - text, room // 2))
    if kept < count:
        _warn(encoder, f"{kept} of the image's {count} attribute words were used")
    return kept


_LONG_WORD = 8
"""A word of more tokens is cut inside, so that a short one in front of it is not all that is left of a text."""


def _cut(encoder: DualEncoder, piece: str, room: int) -> list[int]:
    """The tokens of as much of a text as fits, with a warning that says how much; a template's words around it stay.

    It is cut between words, or, where the next word is a long one, as in scripts without spaces, between characters.
    """
    framed = piece if isinstance(piece, Framed) else Framed("", piece)
    text = framed.text

    def tokens(end: int) -> list[int]:
        return encoder.tokenize(framed.before + text[:end] + framed.after)

    def most(ends: list[int], least: int = 0) -> int:
        """Of the places where the text may end, the last one with which it fits; `least` if there is none."""
        found = _last(lambda place: len(tokens(ends[place])) <= room, len(ends))
        return least if found is None else ends[found]

    words = [found.span() for found in re.finditer(r"\S+", text)]
    end = most([end for _, end in words])
    kept = sum(word_end <= end for _, word_end in words)
    shown = f"the first {kept} of {len(words)} words were used"
    if kept < len(words):
        start, stop = words[kept]
        if kept == 0 or len(encoder.tokenize(text[start:stop])) > _LONG_WORD:
            inside = most([start + found.end() for found in regex.finditer(r"\X", text[start:stop])], end)
            if inside == 0:  # not even one character with all its marks
                inside = most(list(range(start + 1, stop)))
            if inside > end:
                end = inside
                shown = f"the first {end} of {len(text)} characters were used"
    _warn(encoder, shown)
    return tokens(end)[:room]


def _last(fits: Callable[[int], bool], count: int) -> int | None:
    """The last of `count` places that fits, where all in front of it fit; None if the first does not.

    It goes on in growing steps, then back by halves: a text may be a thousand times longer than what fits.
    """
    low, step = -1, 1
    while low + step < count and fits(low + step):
        low, step = low + step, 2 * step
    high = min(count, low + step) - 1
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return None if low < 0 else low


def _warn(encoder: DualEncoder, what: str) -> None:
    warnings.warn(
        f"The text is longer than the {encoder.context_length} tokens that {encoder.name} reads; "
        f"{what}, the rest was left out.",
        CutWarning,
        stacklevel=2,
    )
