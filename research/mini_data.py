"""The images and captions that `mini` is trained on, and those that are kept out of it.

Reads the four sets (Flickr8k, fashion products, Caltech-101, art domains) from one folder of tar files
and gives one list of records. Only a hash of an image's name decides whether it is held out, so that every
script agrees on it.
"""

from __future__ import annotations

import csv
import hashlib
import random
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

HELD_OUT = {"flickr8k": 1000, "fashion_products": 1500, "caltech101": 700, "art_domains": 900}

_TYPES = {
    "tshirts": "t-shirt", "shirts": "shirt", "tops": "top", "kurtas": "kurta", "kurtis": "kurti",
    "watches": "watch", "handbags": "handbag", "sweaters": "sweater", "wallets": "wallet", "belts": "belt",
    "sweatshirts": "sweatshirt", "jackets": "jacket", "backpacks": "backpack", "caps": "cap", "ties": "tie",
    "mufflers": "muffler", "clutches": "clutch", "dresses": "dress", "skirts": "skirt", "scarves": "scarf",
    "tunics": "tunic", "innerwear vests": "innerwear vest", "umbrellas": "umbrella", "free gifts": "free gift",
    "tracksuits": "tracksuit", "nightdress": "nightdress",
}  # fmt: skip
_PAIRS = {"casual shoes", "sports shoes", "formal shoes", "flip flops", "heels", "sandals", "flats", "socks",
          "sports sandals", "gloves", "cufflinks"}  # fmt: skip
_DOMAINS = {"photo": "photo", "art_painting": "painting", "cartoon": "cartoon", "sketch": "sketch"}


@dataclass(frozen=True)
class LabelledImage:
    """One image: `facts` are what a caption may mention (empty for Flickr8k, which has `captions`)."""

    set: str
    name: str  # the member's path inside the tar
    held_out: bool
    captions: tuple[str, ...] = ()
    facts: dict[str, str] = field(default_factory=dict)


def _shop_facts(row: dict[str, str]) -> dict[str, str]:
    kind = row["articleType"].strip().lower()
    colour = row["baseColour"].strip().lower()
    return {
        "kind": f"pair of {kind}" if kind in _PAIRS else _TYPES.get(kind, kind),
        "colour": "" if colour in {"na", ""} else colour,
        "audience": row["gender"].strip().lower(),
        "usage": "" if row["usage"] in {"NA", ""} else row["usage"].strip().lower(),
        "name": row["productDisplayName"].strip(),
    }


def _clean(caption: str) -> str:
    return re.sub(r"\s+([.,!?])", r"\1", caption.strip()).rstrip(" .").strip()


def load(folder: Path) -> list[LabelledImage]:
    """Every image of the four sets, in a fixed order."""
    captions, products = _read_captions(folder), _read_products(folder)
    images = []
    for set_name, count in HELD_OUT.items():
        with tarfile.open(folder / f"{set_name}.tar") as tar:
            names = sorted(member.name for member in tar if member.isfile())
        by_hash = sorted(names, key=lambda name: hashlib.sha256(Path(name).name.encode() + set_name.encode()).digest())
        held_out = set(by_hash[:count])
        for name in names:
            path = Path(name)
            if set_name == "flickr8k":
                texts = tuple(text for text in captions[path.name] if text)
                images.append(LabelledImage(set_name, name, name in held_out, captions=texts))
                continue
            facts = products[path.stem] if set_name == "fashion_products" else _folder_facts(set_name, path)
            if facts is not None:
                images.append(LabelledImage(set_name, name, name in held_out, facts=facts))
    return images


def _read_captions(folder: Path) -> dict[str, list[str]]:
    """The captions of Flickr8k, by file name."""
    captions: dict[str, list[str]] = defaultdict(list)
    with open(folder / "flickr8k_captions.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            captions[row["image"]].append(_clean(row["caption"]))
    return captions


def _read_products(folder: Path) -> dict[str, dict[str, str]]:
    """The facts of the products, by number."""
    with open(folder / "fashion_products.csv", newline="", encoding="utf-8") as file:
        return {row["id"]: _shop_facts(row) for row in csv.DictReader(file)}


def _folder_facts(set_name: str, path: Path) -> dict[str, str] | None:
    """What the folders of an image state; None for Caltech's backgrounds, which show no one thing."""
    if set_name == "art_domains":
        return {"kind": path.parts[-2].lower(), "domain": _DOMAINS[path.parts[-3]]}
    kind = path.parts[-2].lower().replace("_", " ")
    return None if kind == "background google" else {"kind": {"faces": "face", "faces easy": "face"}.get(kind, kind)}


def article(phrase: str) -> str:
    """The phrase after its indefinite article."""
    return ("an " if phrase[:1] in "aeiou" else "a ") + phrase


def write_caption(image: LabelledImage, random_: random.Random) -> tuple[str, frozenset[str]]:
    """A caption, and the names of the facts it mentions; it is true of every image with the same values of those."""
    facts = image.facts
    if image.set == "flickr8k":
        return random_.choice(image.captions), frozenset({"itself"})
    if image.set == "caltech101":
        form = random_.choice(["a photo of {}", "{}", "a picture of {}", "{} in a photo", "a close-up of {}"])
        return form.format(article(facts["kind"])), frozenset({"kind"})
    if image.set == "art_domains":
        domain, kind = facts["domain"], facts["kind"]
        if random_.random() < 0.15:
            return random_.choice(["a picture of {}", "{}", "an image of {}"]).format(article(kind)), frozenset(
                {"kind"}
            )
        form = random_.choice([
            "{domain} of {kind}", "{domain} of {kind}", "{kind} as {domain}", "{kind} in the style of {domain}",
            "{domain} showing {kind}",
        ])  # fmt: skip
        return form.format(domain=article(domain), kind=article(kind)), frozenset({"kind", "domain"})
    return _shop_caption(facts, random_)


def _shop_caption(facts: dict[str, str], random_: random.Random) -> tuple[str, frozenset[str]]:
    if random_.random() < 0.2:
        return facts["name"].lower(), frozenset({"kind", "colour", "audience", "name"})
    kind, colour, audience, usage = facts["kind"], facts["colour"], facts["audience"], facts["usage"]
    mentioned = {"kind"}
    words = kind
    after = ""
    roll = random_.random()
    if colour and roll < 0.85:
        mentioned.add("colour")
        if random_.random() < 0.8:
            words = f"{colour} {kind}"
        else:
            after += f" in {colour}"
    if usage and random_.random() < 0.15:
        mentioned.add("usage")
        words = f"{usage} {words}"
    if random_.random() < 0.65:
        mentioned.add("audience")
        style = random_.random()
        if style < 0.6:
            after = f" for {audience}" + after
        elif style < 0.85:
            words = f"{audience}'s {words}" if audience in {"men", "women"} else f"{audience} {words}"
        else:
            words = f"{audience} {words}"
    phrase = article(words) + after
    form = random_.choice(
        ["{}", "{}", "a photo of {}", "a photo of {}", "a product photo of {}", "{} on a white background"]
    )
    return form.format(phrase), frozenset(mentioned)


def read_images(folder: Path, set_name: str, *, names: set[str]) -> Iterator[tuple[str, bytes]]:
    """(name, JPEG bytes) of the named members of one set's tar, in the tar's order."""
    with tarfile.open(folder / f"{set_name}.tar") as tar:
        for member in tar:
            if member.name in names:
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name, file.read()
