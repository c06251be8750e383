"""Pic2Word: one pseudo-word an image, from contrastive learning alone.

Saito, Sohn, Zhang, Li, Lee, Saenko, Pfister, "Pic2Word: Mapping Images to Words for Zero-shot Composed Image
Retrieval", CVPR 2023.
"""

from __future__ import annotations

from ..inversion.network import NetworkConfig
from ..inversion.prompts import Template
from ..training.config import TrainingConfig
from .base import Entry, Learner
from .fti4cir import Inversion, InversionObjective, InversionOptions, InversionWeights

_TEMPLATE = Template(modification=", {text}")

PIC2WORD = Learner(
    presets={
        "pic2word": TrainingConfig(
            method="pic2word",
            epochs=30,
            batch_size=128,
            learning_rate=1e-4,
            weight_decay=0.1,
            decay_biases=False,
            beta2=0.98,
            epsilon=1e-6,
            schedule="warmup-cosine",
            warmup_steps=10_000,
            bfloat16=True,
            network=NetworkConfig(
                max_attributes=0, hidden_width=512, activation="relu", dropout=0.1, template=_TEMPLATE
            ),
            options=InversionOptions(weights=InversionWeights.contrastive_only(), contrast="across", temperature=None),
        ),
        "pic2word-quick": TrainingConfig(
            method="pic2word",
            epochs=5,
            batch_size=128,
            learning_rate=1e-4,
            weight_decay=0.1,
            schedule="cosine",
            warmup_steps=50,
            bfloat16=True,
            network=NetworkConfig(max_attributes=0, dropout=0.1, template=_TEMPLATE),
            options=InversionOptions(weights=InversionWeights.contrastive_only(), temperature=0.05),
        ),
    },
    default="pic2word",
    objective=InversionObjective,
)
"""`pic2word`: as published. `pic2word-quick`: ours, for small encoders and few images, which takes minutes. Figures
that are published with it hold only as long as it stays as it is."""

METHOD = Entry(create=lambda model, options: Inversion("pic2word", model), learner=PIC2WORD)
