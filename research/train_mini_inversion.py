"""Train the inversion weights that ship with `mini`, with the package's own trainer.

    python research/train_mini_inversion.py prepare --data DATA --work WORK   # images, captions, tables
    python research/train_mini_inversion.py train --work WORK                 # resumable
    python research/train_mini_inversion.py export --work WORK                # into the package

`prepare` unpacks the images that `mini_data` does not hold out into WORK/images, writes their captions to
WORK/captions.jsonl, and the held-out ones with tables for `fti4cir evaluate attributes` into WORK/held_out.
"""

from __future__ import annotations

import csv
import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import load_file, save_file

import mini_data
import script
from fti4cir.backbones.mini import FOLDER
from fti4cir.methods import registry
from fti4cir.models import loading, saved
from mini_data import LabelledImage, article


def split_captions(image: LabelledImage, random_: random.Random) -> list[tuple[str, str]]:
    """Subject and attribute parts for an image whose facts are known, in several wordings."""
    facts = image.facts
    if image.set == "caltech101":
        return [(article(facts["kind"]), "in a photo"), ("a photo", f"of {article(facts['kind'])}")]
    if image.set == "art_domains":
        domain, kind = article(facts["domain"]), article(facts["kind"])
        return [
            (kind, f"as {domain}"),
            (domain, f"of {kind}"),
            (kind, f"in the style of {domain}"),
            (domain, f"showing {kind}"),
        ]
    kind, colour, audience, usage = facts["kind"], facts["colour"], facts["audience"], facts["usage"]
    tail = random_.choice(["", "", " on a white background"])
    result = [
        (article(f"{colour} {kind}".strip()), f"for {audience}{tail}"),
        (article(f"{usage} {colour} {kind}".replace("  ", " ").strip()), f"for {audience}"),
    ]
    if colour:
        result += [
            (article(kind), f"in {colour} for {audience}"),
            (article(f"{colour} {kind}"), f"made for {audience}"),
            (f"a photo of {article(f'{colour} {kind}')}", f"for {audience}"),
        ]
    return result


def prepare(data: Path, work: Path) -> None:
    """Lay out what `train` reads and what the held-out figures are measured on."""
    images = mini_data.load(data)
    work.mkdir(parents=True, exist_ok=True)
    for held_out, folder, prefix in ((False, "images", "train"), (True, "held_out", "held_out")):
        part = [image for image in images if image.held_out == held_out]
        _unpack(data, part, work / folder)
        _write_shop(data / "fashion_products.csv", part, work / f"{prefix}_shop.csv")
        _write_art(part, work / f"{prefix}_art.csv")
    _write_captions([image for image in images if not image.held_out], work / "captions.jsonl")


def _unpack(data: Path, images: Sequence[LabelledImage], folder: Path) -> None:
    for set_name in mini_data.HELD_OUT:
        names = {image.name for image in images if image.set == set_name}
        for name, content in mini_data.read_images(data, set_name, names=names):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)


def _write_captions(images: Sequence[LabelledImage], target: Path) -> None:
    random_ = random.Random(0)
    with open(target, "w", encoding="utf-8") as file:
        for image in images:
            records = [{"caption": text.lower()} for text in image.captions] or [
                {"subject": subject, "attribute": attribute} for subject, attribute in split_captions(image, random_)
            ]
            file.writelines(json.dumps({"image": image.name, **record}) + "\n" for record in records)


def _write_shop(table: Path, images: Sequence[LabelledImage], target: Path) -> None:
    """The rows of the products in `images`, with their paths."""
    name_of = {Path(image.name).stem: image.name for image in images if image.set == "fashion_products"}
    with (
        open(table, newline="", encoding="utf-8") as source,
        open(target, "w", newline="", encoding="utf-8") as file,
    ):
        reader = csv.DictReader(source)
        writer = csv.DictWriter(file, ["path", *(reader.fieldnames or [])])
        writer.writeheader()
        writer.writerows({"path": name_of[row["id"]], **row} for row in reader if row["id"] in name_of)


def _write_art(images: Sequence[LabelledImage], target: Path) -> None:
    with open(target, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "domain", "class"])
        writer.writerows(
            (image.name, image.facts["domain"], image.facts["kind"]) for image in images if image.set == "art_domains"
        )


def train(work: Path) -> None:
    """Train with the preset `composed`; resumable."""
    registry.train(
        registry.preset("composed"), work / "images", work / "captions.jsonl", "mini", work / "model",
        resume=True, features=work / "features",
    )  # fmt: skip


def export(work: Path) -> None:
    """Copy the trained network into the package, in half precision."""
    target = FOLDER / "inversion"
    model = loading.load(str(work / "model"))
    config = json.loads((work / "model" / "config.json").read_text(encoding="utf-8"))
    saved.save_model(target, model.require_inversion(), encoder=model.encoder, trained=config["trained"])
    weights = target / "model.safetensors"
    save_file({name: value.half() for name, value in load_file(weights).items()}, weights)


def main() -> None:
    """Run one stage."""
    parser = script.parser(__doc__)
    stages = parser.add_subparsers(dest="stage", required=True, metavar="prepare | train | export")
    preparing = stages.add_parser("prepare", help="unpack the images, write their captions and tables")
    script.add_data(preparing)
    script.add_work(preparing, prepared=False)
    script.add_work(stages.add_parser("train", help="train the network"))
    script.add_work(stages.add_parser("export", help="copy the trained network into the package"))
    options = parser.parse_args()
    script.log_progress()
    if options.stage == "prepare":
        prepare(options.data, options.work)
    elif options.stage == "train":
        train(options.work)
    elif not (options.work / "model").is_dir():
        sys.exit(f"'{options.work}' has no trained network: run `python research/train_mini_inversion.py train` first.")
    else:
        export(options.work)


if __name__ == "__main__":
    main()
