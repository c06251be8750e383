"""Sentences and pseudo-words to text features: the one place where pseudo-words enter a sentence.

They enter by position. Sentences are encoded at their real length: those of a batch are padded to its
longest, not to the encoder's context.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..backbones.base import DualEncoder
from .network import PseudoWords
from .prompts import Sentence, Slot


class CutWarning(UserWarning):
    """A text was longer than the encoder reads and was cut at a word."""


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
        words: the pseudo-words of B pictures; may be None if no sentence has a slot.
        owner: (S,) which picture fills each sentence; None: sentence i is filled by picture i.

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
    ids, source = [encoder.start_token], [-1]
    room = encoder.context_length - 1  # the end token
    for place, piece in enumerate(sentence):
        if isinstance(piece, Slot):
            if count is None:
                raise ValueError("a sentence with slots needs pseudo-words")
            fill = [0] if piece is Slot.SUBJECT else list(range(1, count + 1))
            ids += [0] * len(fill)
            source += fill
        else:
            if piece not in plain:
                plain[piece] = encoder.tokenize(piece)
            tokens = plain[piece]
            rest = sum(
                1 if later is Slot.SUBJECT else (count or 0)
                for later in sentence[place + 1 :]
                if isinstance(later, Slot)
            )
            if len(ids) + len(tokens) + rest > room:
                tokens = _cut(encoder, piece, room - len(ids) - rest)
            ids += tokens
            source += [-1] * len(tokens)
    # Only a network with nearly as many attributes as the context has places comes this far.
    if len(ids) > room:
        ids, source = ids[:room], source[:room]
    return _Tokens([*ids, encoder.end_token], [*source, -1])


def _cut(encoder: DualEncoder, text: str, room: int) -> list[int]:
    """The tokens of as many whole words of the text as fit, with a warning that says so."""
    room = max(0, room)
    words = text.split()
    low, high = 0, len(words)
    while low < high:  # token counts grow with the words: search by halves
        middle = (low + high + 1) // 2
        if len(encoder.tokenize(" ".join(words[:middle]))) <= room:
            low = middle
        else:
            high = middle - 1
    if low == 0:  # not even one word, such as a script without spaces: cut inside it
        tokens = encoder.tokenize(words[0])[:room]
        shown = "the first part of one very long word"
    else:
        tokens = encoder.tokenize(" ".join(words[:low]))
        shown = f"the first {low} of {len(words)} words"
    warnings.warn(
        f"The text is longer than the {encoder.context_length} tokens that {encoder.name} reads; "
        f"{shown} were used, the rest was left out.",
        CutWarning,
        stacklevel=2,
    )
    return tokens
