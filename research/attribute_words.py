"""How much the attribute-oriented pseudo-words of a model say. Prints JSON.

    python research/attribute_words.py --folder IMAGES [--model mini] [--count 300]

Two figures, over COUNT images drawn from the folder. The mean cosine of each latent attribute to its own mean over the
images is 1 if the attribute is the same for all of them. R@1 is the share of pseudo-sentences whose nearest image is
their own: with the image's own words, without attribute words, and with the attribute words or the subject word of
another image.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

import fti4cir
import script
from fti4cir.images.decode import find_images
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import PseudoWords


@torch.no_grad()
def measure(model: fti4cir.Model, images: list[Path]) -> dict[str, Any]:
    """All figures of a model on some images."""
    features = model.features(images)
    inversion = model.require_inversion()
    words = inversion(features.image, features.local)
    sentence = inversion.config.sentence()
    gallery = F.normalize(features.image, dim=-1)

    def recall(changed: PseudoWords) -> float:
        sentences = F.normalize(encode_sentences(model.encoder, [sentence] * len(images), changed), dim=-1)
        return ((sentences @ gallery.T).argmax(dim=1) == torch.arange(len(images))).float().mean().item()

    other = torch.arange(len(images)).roll(1)
    latent = F.normalize(words.latent, dim=-1)  # (B, K, D)
    cosines = (latent * F.normalize(latent.mean(dim=0), dim=-1)).sum(dim=-1)
    others_attributes = replace(words, attributes=words.attributes[other], counts=words.counts[other])
    return {
        "images": len(images),
        "attribute words per image": words.counts.float().mean().item(),
        "cosine of a latent attribute to its mean": cosines.mean().item(),
        "R@1": recall(words),
        "R@1 without attribute words": recall(replace(words, counts=torch.zeros_like(words.counts))),
        "R@1 with another's attribute words": recall(others_attributes),
        "R@1 with another's subject word": recall(replace(words, subject=words.subject[other])),
    }


def main() -> None:
    """Measure and print."""
    parser = script.parser(__doc__)
    parser.add_argument("--folder", type=script.existing_folder, required=True, help="images to draw from")
    parser.add_argument("--model", default="mini", help="name or folder (default %(default)s)")
    parser.add_argument("--count", type=int, default=300, help="images to draw (default %(default)s)")
    options = parser.parse_args()
    model = script.load_model(options.model)
    images = find_images(options.folder)
    if not images:
        sys.exit(f"There is no image in '{options.folder}'.")
    drawn = np.random.default_rng(0).permutation(len(images))[: options.count]
    print(json.dumps(measure(model, [images[index] for index in drawn]), indent=1))


if __name__ == "__main__":
    main()
