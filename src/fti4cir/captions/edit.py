"""Captions edited by rules: what "this image, but ..." means, learned from captions alone.

An edit changes one thing of a caption (a colour, a number, who or what is shown, for whom it is made, the
place, the style, or a whole part of it) and says so in the words that a user might type. Training pulls
`[pseudo-words] but {modification}` towards the edited caption, so that the network learns which of its
words have to yield. Nobody labels anything for it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .split import SplitCaption


class Edit(NamedTuple):
    """A modification as a user would type it, and the caption that then holds."""

    modification: str
    caption: str


COLOURS = (
    "black", "white", "grey", "blue", "navy blue", "red", "green", "brown", "purple", "pink", "beige", "maroon",
    "yellow", "olive", "silver", "steel", "orange", "cream", "gold", "tan", "charcoal", "khaki", "off white",
    "magenta", "lavender", "copper", "peach", "teal",
)  # fmt: skip
NUMBERS = ("one", "two", "three", "four", "five", "several", "many")
AUDIENCES = ("men", "women", "boys", "girls", "unisex")
STYLES = ("photo", "painting", "cartoon", "sketch", "drawing", "product photo")
PLACES = (
    "on the beach", "in the snow", "in the grass", "in the water", "on the street", "in a field", "in the woods",
    "on a sidewalk", "in a park", "on a road", "in a pool", "on a couch", "in the mountains", "in a room",
    "in the sand", "in the air", "at night", "on a hill", "in the city", "on a rock", "in a stadium", "in a crowd",
)  # fmt: skip
KINDS = (
    ("man", "woman", "boy", "girl", "child", "baby", "lady", "person", "toddler"),
    ("men", "women", "boys", "girls", "children", "people", "kids"),
    ("dog", "cat", "horse", "elephant", "giraffe", "bird", "cow", "sheep", "lion", "bear", "guitar", "house"),
    ("dogs", "horses", "birds", "cows"),
    ("t-shirt", "shirt", "top", "kurta", "sweater", "sweatshirt", "jacket", "dress", "skirt", "trousers", "jeans",
     "shorts", "track pants", "tunic", "vest", "coat"),
    ("casual shoes", "sports shoes", "formal shoes", "heels", "sandals", "flats", "flip flops", "boots"),
    ("handbag", "backpack", "wallet", "belt", "watch", "sunglasses", "cap", "tie", "scarf", "socks", "hat"),
    ("ball", "frisbee", "bike", "skateboard", "surfboard", "car", "boat", "stick"),
)  # fmt: skip

_IN_COLOUR = ("in {}", "in {}", "is {}", "{}", "make it {}", "in {} colour", "of {} colour", "{} instead of {old}")
_FOR_AUDIENCE = ("for {}", "for {}", "is for {}", "made for {}", "the {}'s version", "for {} instead of {old}")
_AS_STYLE = ("as {a}", "as {a}", "is {a}", "in the style of {a}", "shown as {a}", "{a} of it", "turn it into {a}")
_KIND = (
    "{a}",
    "is {a}",
    "with {a}",
    "{a} instead of {old_a}",
    "shows {a}",
    "{a} instead",
    "replace the {old} with {a}",
)
_NUMBER = ("with {}", "{} of them", "there are {}", "{} instead of {old}")


def article(phrase: str) -> str:
    """The phrase with "a" or "an" in front, unless it is a plural or a mass noun in `-s`."""
    if phrase.endswith("s") and not phrase.endswith("ss"):
        return phrase
    return ("an " if phrase[:1].lower() in "aeiou" else "a ") + phrase


def _finder(words: Sequence[str]) -> re.Pattern[str]:
    longest_first = sorted(words, key=len, reverse=True)
    return re.compile(r"\b(" + "|".join(map(re.escape, longest_first)) + r")\b", re.IGNORECASE)


_FIND_COLOUR, _FIND_NUMBER, _FIND_PLACE = _finder(COLOURS), _finder(NUMBERS[1:]), _finder(PLACES)
_FIND_KIND = [_finder(kinds) for kinds in KINDS]
_FIND_AUDIENCE = re.compile(r"\b(?:for )(men|women|boys|girls|unisex)\b", re.IGNORECASE)
_STYLE = "(" + "|".join(sorted(STYLES, key=len, reverse=True)) + ")"
_STYLE_FIRST = re.compile(rf"^(?:an? )?{_STYLE} (?:of|showing) ", re.IGNORECASE)
_STYLE_LATER = re.compile(rf"\b(?:as|in the style of) an? {_STYLE}\b", re.IGNORECASE)


def _other(words: Sequence[str], old: str, random_: random.Random) -> str:
    return random_.choice([word for word in words if word != old])


def _fix_articles(caption: str) -> str:
    """ "a orange shirt" to "an orange shirt" and back, after a word was exchanged."""
    caption = re.sub(r"\ba (?=[aeiou])", "an ", caption)
    return re.sub(r"\ban (?=[bcdfghjklmnpqrstvwxyz])", "a ", caption)


def _exchange(found: re.Match[str], caption: str, new: str) -> str:
    start, end = found.span(1)
    return _fix_articles(caption[:start] + new + caption[end:])


def edit_colour(caption: SplitCaption, random_: random.Random) -> Edit | None:
    """Exchange a colour; where there is none, give the subject one."""
    text = str(caption)
    found = _FIND_COLOUR.search(text)
    form = random_.choice(_IN_COLOUR)
    if found:
        old = found[1].lower()
        new = _other(COLOURS, old, random_)
        return Edit(form.format(new, old=old), _exchange(found, text, new))
    match = re.match(r"(?:a photo of )?(an?|the|two|three|some) (.+)", text, re.IGNORECASE)
    if not match:
        return None
    new = random_.choice(COLOURS)
    start = match.start(2)
    return Edit(form.partition(" instead")[0].format(new), _fix_articles(f"{text[:start]}{new} {text[start:]}"))


def edit_audience(caption: SplitCaption, random_: random.Random) -> Edit | None:
    """Exchange for whom a thing is made."""
    text = str(caption)
    found = _FIND_AUDIENCE.search(text)
    if not found:
        return None
    old = found[1].lower()
    new = _other(AUDIENCES, old, random_)
    return Edit(random_.choice(_FOR_AUDIENCE).format(new, old=old), _exchange(found, text, new))


def edit_style(caption: SplitCaption, random_: random.Random) -> Edit | None:
    """Exchange the style of the image; a caption that names none is given one."""
    text = str(caption)
    first, later = _STYLE_FIRST.search(text), _STYLE_LATER.search(text)
    found = first or later
    new = _other(STYLES, found[1].lower() if found else "photo", random_)
    modification = random_.choice(_AS_STYLE).format(a=article(new))
    if later and not first:
        return Edit(modification, _exchange(later, text, new))
    rest = text[first.end() :] if first else text
    return Edit(modification, f"{article(new)} of {rest}")


def edit_kind(caption: SplitCaption, random_: random.Random) -> Edit | None:
    """Exchange who or what is shown for something of its kind."""
    text = str(caption)
    hits = [(found, kinds) for kinds, finder in zip(KINDS, _FIND_KIND, strict=True) if (found := finder.search(text))]
    if not hits:
        return None
    found, kinds = random_.choice(hits)
    old = found[1].lower()
    new = _other(kinds, old, random_)
    modification = random_.choice(_KIND).format(new, a=article(new), old=old, old_a=article(old))
    return Edit(modification, _exchange(found, text, new))


def edit_number(caption: SplitCaption, random_: random.Random) -> Edit | None:
    """Exchange a number word."""
    text = str(caption)
    found = _FIND_NUMBER.search(text)
    if not found:
        return None
    old = found[1].lower()
    new = _other(NUMBERS[1:], old, random_)
    return Edit(random_.choice(_NUMBER).format(new, old=old), _exchange(found, text, new))


def edit_place(caption: SplitCaption, random_: random.Random) -> Edit | None:
    """Exchange the place, or add one at the end."""
    text = str(caption)
    found = _FIND_PLACE.search(text)
    old = found[1].lower() if found else ""
    new = _other(PLACES, old, random_)
    modification = random_.choice(("{}", "is {}", "now {}")).format(new)
    return Edit(modification, _exchange(found, text, new) if found else f"{text} {new}")


_RULES: tuple[tuple[float, Callable[[SplitCaption, random.Random], Edit | None]], ...] = (
    (3.0, edit_colour),
    (3.0, edit_audience),
    (1.0, edit_style),
    (2.0, edit_kind),
    (1.0, edit_number),
    (0.7, edit_place),
)


def edit(caption: SplitCaption, other: SplitCaption, random_: random.Random, words: float = 0.65) -> Edit:
    """One edit of a caption, by a rule drawn among those that apply.

    `other`, the caption of another image, lends its subject or its attribute where a whole part is
    exchanged, which always applies. `words` is the share of edits that, where one can be made, exchange a word of
    the lists above instead.
    """
    if random_.random() < words:
        rules = list(_RULES)
        while rules:
            index = random_.choices(range(len(rules)), [weight for weight, _ in rules])[0]
            result = rules.pop(index)[1](caption, random_)
            if result is not None:
                return result
    if random_.random() < 0.4:
        form = random_.choice(("{}", "{} instead", "shows {}", "is {}", "with {}", "{} instead of {old}"))
        return Edit(form.format(other.subject, old=caption.subject), f"{other.subject} {caption.attribute}")
    form = random_.choice(("{}", "{}", "is {}", "{} instead", "{old_subject} is {}"))
    return Edit(form.format(other.attribute, old_subject=caption.subject), f"{caption.subject} {other.attribute}")
