"""Train the inversion weights that ship with `mini`, with the package's own trainer.

    python research/train_mini_inversion.py prepare --data DATA --work WORK   # images, captions, tables
    python research/train_mini_inversion.py train --work WORK                 # resumable
    python research/train_mini_inversion.py export --work WORK                # into the package

`prepare` unpacks the images that `mini_data` does not hold out into WORK/images, writes their captions to
WORK/captions.jsonl, and the held-out ones with tables for `fti4cir evaluate attributes` into WORK/held_out.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from pathlib import Path

from safetensors.torch import load_file, save_file

import mini_data
from fti4cir.backbones.mini import FOLDER
from fti4cir.methods import registry
from fti4cir.models import loading, saved
from mini_data import Picture, article


def split_captions(picture: Picture, random_: random.Random) -> list[tuple[str, str]]:
    """Subject and attribute parts for an image whose facts are known, in several wordings."""
    facts = picture.facts
    if picture.set == "caltech101":
        return [(article(facts["kind"]), "in a photo"), ("a photo", f"of {article(facts['kind'])}")]
    if picture.set == "art_domains":
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
    random_ = random.Random(0)
    pictures = mini_data.load(data)
    work.mkdir(parents=True, exist_ok=True)
    for held_out, folder in ((False, work / "pictures"), (True, work / "held_out")):
        for set_name in mini_data.HELD_OUT:
            names = {picture.name for picture in pictures if picture.set == set_name and picture.held_out == held_out}
            for name, content in mini_data.read_images(data, set_name, names):
                target = folder / name
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
    with open(work / "captions.jsonl", "w", encoding="utf-8") as file:
        for picture in pictures:
            if picture.held_out:
                continue
            for text in picture.captions:
                file.write(json.dumps({"image": picture.name, "caption": text.lower()}) + "\n")
            if not picture.captions:
                for subject, attribute in split_captions(picture, random_):
                    record = {"image": picture.name, "subject": subject, "attribute": attribute}
                    file.write(json.dumps(record) + "\n")
    for held_out, prefix in ((False, "train"), (True, "held_out")):
        of_set = [p for p in pictures if p.held_out == held_out]
        shop = {Path(p.name).stem: p.name for p in of_set if p.set == "fashion_products"}
        with (
            open(data / "fashion_products.csv", newline="", encoding="utf-8") as source,
            open(work / f"{prefix}_shop.csv", "w", newline="", encoding="utf-8") as target,
        ):
            reader = csv.DictReader(source)
            writer = csv.DictWriter(target, ["path", *(reader.fieldnames or [])])
            writer.writeheader()
            writer.writerows({"path": shop[row["id"]], **row} for row in reader if row["id"] in shop)
        with open(work / f"{prefix}_art.csv", "w", newline="", encoding="utf-8") as file:
            table = csv.writer(file)
            table.writerow(["path", "domain", "class"])
            table.writerows((p.name, p.facts["domain"], p.facts["kind"]) for p in of_set if p.set == "art_domains")


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=["prepare", "train", "export"])
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    options = parser.parse_args()
    if options.stage == "prepare":
        prepare(options.data, options.work)
    elif options.stage == "train":
        work = options.work
        registry.train(
            registry.preset("composed"), work / "pictures", work / "captions.jsonl", "mini", work / "model",
            resume=True, features=work / "features",
        )  # fmt: skip
    else:
        export(options.work)


if __name__ == "__main__":
    main()
