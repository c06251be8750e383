"""A network of the classes of the authors' release, as their checkpoints pickle it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn

from fti4cir.inversion.network import FineGrainedInversion
from fti4cir.models.authors_pickle import our_name

SETTINGS = {"num_latent": 6, "max_attributes": 4, "threshold": 0.1, "heads": 2, "layers": 2, "dropout": 0.25}


def released_name(parameter: str, layers: int = 9) -> str:
    """The release's name of one of our parameters."""
    inner = [f"layers.{i}.{kind}" for i in (0, 3, 6) for kind in ("weight", "bias")]
    parts = ["norm1", "norm2", "attn.to_queries", "attn.to_keys_values", "attn.project", "mlp.fc1", "mlp.fc2"]
    names = ["templates", "local_atte_fc.0.weight", "local_atte_fc.0.bias"]
    names += [f"{phi}.{name}" for phi in ("phi_s", "phi_a") for name in inner]
    names += [
        f"transformer.layers.{layer}.{part}.{kind}"
        for layer in range(layers)
        for part in parts
        for kind in ("weight", "bias")
    ]
    (name,) = (name for name in names if our_name(name) == parameter)
    return name


def importable(monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """Make the release's classes importable until `monkeypatch` is undone.

    Returns a function that makes a network of them with the parameters of ours. Its keywords change attributes, with
    two underscores between the names of a path: `transformer__enc_dec=True`.
    """
    names = {"i2t_model": ("IMG2TEXT", "Phi")}
    names["MHTransformer"] = ("Transformer", "TransformerLayer", "MultiHeadAttention", "MlpTransformer")
    classes = {}
    for module, members in names.items():
        monkeypatch.setitem(sys.modules, module, ModuleType(module))
        for name in members:
            classes[name] = type(name, (nn.Module,), {"__module__": module, "__qualname__": name})
            setattr(sys.modules[module], name, classes[name])

    def make(source: FineGrainedInversion, **changes: Any) -> nn.Module:
        config = source.config
        network = classes["IMG2TEXT"]()
        network.num_k, network.topk, network.epsilon = config.num_latent, config.max_attributes, config.threshold
        network.hy_regLoss, network.temperature = 1.4, 0.2
        network.criterion_target = torch.as_tensor([1])
        network.cosine_criterion, network.ortho_loss = nn.CosineEmbeddingLoss(), nn.MSELoss()
        wide, vision = 4 * config.joint_width, config.vision_width
        for phi in ("phi_s", "phi_a"):
            module = classes["Phi"]()
            module.layers = nn.Sequential(
                nn.Linear(config.joint_width, wide),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(wide, wide),
                nn.GELU(),
                nn.Dropout(config.dropout),
                nn.Linear(wide, config.token_width),
            )
            setattr(network, phi, module)
        network.local_atte_fc = nn.Sequential(nn.Linear(vision, config.joint_width), nn.Sigmoid())
        network.transformer = classes["Transformer"]()
        network.transformer.enc_dec = False
        network.transformer.layers = nn.ModuleList()
        for _ in range(config.layers):
            layer = classes["TransformerLayer"]()
            layer.norm1, layer.norm2 = nn.LayerNorm(vision), nn.LayerNorm(vision)
            layer.attn = classes["MultiHeadAttention"]()
            layer.attn.num_heads, layer.attn.scale = config.heads, (vision // config.heads) ** -0.5
            layer.attn.to_queries = nn.Linear(vision, vision, bias=False)
            layer.attn.to_keys_values = nn.Linear(vision, 2 * vision, bias=False)
            layer.attn.project = nn.Linear(vision, vision)
            layer.mlp = classes["MlpTransformer"]()
            layer.mlp.fc1, layer.mlp.fc2 = nn.Linear(vision, 2 * vision), nn.Linear(2 * vision, vision)
            layer.mlp.act = nn.functional.relu
            network.transformer.layers.append(layer)
        network.templates = nn.Parameter(torch.zeros(1, config.num_latent, vision))
        network.load_state_dict({released_name(name): value for name, value in source.state_dict().items()})
        for name, value in changes.items():
            target: Any = network
            *path, last = name.split("__")
            for part in path:
                target = getattr(target, part) if not part.isdigit() else target[int(part)]
            setattr(target, last, value)
        return network

    return make
