"""How much the attribute-oriented pseudo-words of a model say. Prints JSON.

    python research/attribute_words.py --folder IMAGES [--model mini] [--count 300]

Over COUNT images drawn from the folder: the mean cosine of each latent attribute to its own mean over the images
(1: it is the same for all), and the share of pseudo-sentences whose nearest image is their own (R@1), with the
image's own words, without attribute words, and with the attribute words or the subject word of another image.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

import fti4cir
from fti4cir.images.decode import find_images
from fti4cir.inversion.compose import encode_sentences
from fti4cir.inversion.network import PseudoWords


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--model", default="mini")
    parser.add_argument("--count", type=int, default=300)
    options = parser.parse_args()
    model = fti4cir.load(options.model)
    pictures = find_images(options.folder)
    drawn = np.random.default_rng(0).permutation(len(pictures))[: options.count]
    features = model.features([pictures[index] for index in drawn])
    inversion = model.require_inversion()
    words = inversion(features.image, features.local)
    sentence = inversion.config.sentence()
    gallery = F.normalize(features.image, dim=-1)

    def recall(changed: PseudoWords) -> float:
        sentences = F.normalize(encode_sentences(model.encoder, [sentence] * len(drawn), changed), dim=-1)
        return ((sentences @ gallery.T).argmax(dim=1) == torch.arange(len(drawn))).float().mean().item()

    other = torch.arange(len(drawn)).roll(1)
    latent = F.normalize(words.latent, dim=-1)  # (B, K, D)
    cosines = (latent * F.normalize(latent.mean(dim=0), dim=-1)).sum(dim=-1)
    report = {
        "pictures": len(drawn),
        "attribute words an image": words.counts.float().mean().item(),
        "cosine of a latent attribute to its mean": cosines.mean().item(),
        "R@1": recall(words),
        "R@1 without attribute words": recall(replace(words, counts=torch.zeros_like(words.counts))),
        "R@1 with another's attribute words": recall(
            replace(words, attributes=words.attributes[other], counts=words.counts[other])
        ),
        "R@1 with another's subject word": recall(replace(words, subject=words.subject[other])),
    }
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
