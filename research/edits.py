"""Modifications of Flickr8k captions by rules written by hand, none of which training uses.

Training (`fti4cir.captions.edit`) exchanges colours, audiences, styles, kinds, numbers and places. These rules
exchange actions, clothes, ages and sizes, and the weather.
"""

from __future__ import annotations

import random
import re
from typing import NamedTuple


class Edited(NamedTuple):
    """What a user would type, and the caption that is then true."""

    modification: str
    caption: str


_ACTIONS = ("running", "jumping", "sitting", "standing", "walking", "sleeping", "swimming", "climbing", "eating",
            "dancing", "smiling", "crawling", "reading", "fighting")  # fmt: skip
_CLOTHES = ("helmet", "swimsuit", "uniform", "life jacket", "wetsuit", "apron", "raincoat", "costume", "mask")
_AGES = (("young", "old"), ("old", "young"), ("little", "grown up"), ("small", "large"), ("large", "small"),
         ("big", "tiny"))  # fmt: skip
_WEATHER = ("in the rain", "in thick fog", "in bright sunlight", "during a storm", "at sunset")


def edit(caption: str, random_: random.Random) -> Edited | None:
    """One edit by a rule drawn among those that apply; the weather always does."""
    rules = [_action, _clothes, _age, _weather]
    weights = [4, 4, 3, 1]
    while rules:
        place = random_.choices(range(len(rules)), weights)[0]
        found = rules.pop(place)(caption, random_)
        weights.pop(place)
        if found is not None:
            return found
    return None


def _exchange(caption: str, words: tuple[str, ...], form: str, random_: random.Random) -> Edited | None:
    found = re.search(rf"\b({'|'.join(words)})\b", caption)
    if not found:
        return None
    new = random_.choice([word for word in words if word != found[1]])
    return Edited(form.format(new), caption[: found.start()] + new + caption[found.end() :])


def _action(caption: str, random_: random.Random) -> Edited | None:
    return _exchange(caption, _ACTIONS, random_.choice(("is {}", "{} instead")), random_)


def _clothes(caption: str, random_: random.Random) -> Edited | None:
    return _exchange(caption, _CLOTHES, random_.choice(("wearing a {}", "has a {} on")), random_)


def _age(caption: str, random_: random.Random) -> Edited | None:
    for old, new in _AGES:
        if re.search(rf"\b{old}\b", caption):
            return Edited(random_.choice(("is {}", "{}, not " + old)).format(new), re.sub(rf"\b{old}\b", new, caption))
    return None


def _weather(caption: str, random_: random.Random) -> Edited | None:
    if any(word in caption for word in ("rain", "fog", "sun", "storm")):
        return None
    new = random_.choice(_WEATHER)
    return Edited(new, f"{caption} {new}")
