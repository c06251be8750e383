"""A saved model: a folder with the weights of an inversion network.

`model.safetensors` holds the network's parameters. `config.json` says how the network is built, which encoder it
belongs to, and how it was made:

    {"format": "fti4cir", "version": 1,
     "backbone": "openai/clip-vit-large-patch14",   a name, or a folder (relative: to this file's folder)
     "fingerprint": "0f3c...",                      of that encoder
     "method": "fti4cir",                           what the network was trained as
     "inversion": {"num_latent": 24, ...},          the fields of InversionConfig
     "trained": {...},                              for people
     "extra": {...}}                                what the method needs besides
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from ..backbones import registry
from ..backbones.base import DualEncoder
from ..backbones.folder import read_json
from ..errors import ModelError
from ..files import replacing
from ..inversion.network import FineGrainedInversion, InversionConfig
from .model import Model
from .names import FORMAT, is_saved, weights_part

VERSION = 1


def save_model(
    directory: str | Path,
    inversion: FineGrainedInversion,
    *,
    encoder: DualEncoder,
    trained: Mapping[str, object],
    method: str = "fti4cir",
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Save an inversion network as a folder that `fti4cir.load` reads; returns the folder.

    Both files are first written beside their final names. Then the config of an earlier model is removed, the weights
    are replaced, and the new config is put in place last. So a folder with a config always holds one whole model.

    Args:
        directory: made if missing; an earlier saved model in it is replaced.
        inversion: the network.
        encoder: the dual encoder it belongs to; its name must be one that `fti4cir.load` knows.
        trained: how the network was made, for people; anything that JSON can say.
        method: what the network was trained as.
        extra: what the method needs besides the network; anything that JSON can say.

    Raises:
        ModelError: if the folder holds a model of another kind, or cannot be written.

    """
    folder = Path(directory)
    require_free(folder)
    config = {
        "format": FORMAT,
        "version": VERSION,
        "backbone": _backbone_reference(encoder.name, folder),
        "fingerprint": encoder.fingerprint,
        "method": method,
        "inversion": asdict(inversion.config),
        "trained": dict(trained),
        "extra": dict(extra or {}),
    }
    state = {name: tensor.detach().cpu().contiguous() for name, tensor in inversion.state_dict().items()}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(folder, json.dumps(config, indent=2, ensure_ascii=False) + "\n", serialize(state))
    except OSError as error:
        raise ModelError(f"The model cannot be saved in {folder}: {error}.") from error
    return folder


def require_free(folder: Path) -> None:
    """Refuse a folder that `save_model` must not write to: ModelError if it holds a model of another kind."""
    if (folder / "config.json").exists() and not is_saved(folder):
        raise ModelError(
            f"{folder} holds a model of another kind, which saving would overwrite; choose another folder."
        )


def read_config(folder: Path) -> dict[str, Any]:
    """The config of a saved model; ModelError if it cannot be read."""
    return read_json(folder / "config.json")


def backbone_name(folder: Path, config: Mapping[str, Any]) -> str:
    """The name or the folder of the encoder that a saved model belongs to; ModelError if its config has none."""
    backbone = config.get("backbone")
    if not isinstance(backbone, str):
        raise ModelError(f"{folder / 'config.json'} does not name a backbone.")
    beside = folder / Path(backbone).expanduser()  # an absolute path stays what it is
    return str(beside) if beside.is_dir() else backbone


def fits_encoder(config: Mapping[str, Any], encoder: DualEncoder) -> bool:
    """Whether a saved model was trained with the weights of this encoder, in any precision."""
    return weights_part(str(config.get("fingerprint"))) == weights_part(encoder.fingerprint)


def read_model(folder: Path, config: Mapping[str, Any], *, name: str, encoder: DualEncoder) -> Model:
    """A saved model on its encoder, which is loaded already.

    Args:
        folder: of the saved model.
        config: what `read_config` gives for it.
        name: what a person calls the model.
        encoder: the one that `backbone_name` names.

    Raises:
        ModelError: if the weights are missing, damaged, or belong to another encoder.

    """
    inversion = _read_inversion(folder, config, encoder)
    return Model(encoder, inversion, name, method=config.get("method", "fti4cir"), extra=config.get("extra"))


def build_inversion(config: InversionConfig, state: Mapping[str, torch.Tensor], *, source: str) -> FineGrainedInversion:
    """The network with these parameters, float32; ModelError if they are not the parameters that it has.

    `source` names the file of the parameters in the error.
    """
    with torch.device("meta"):  # no memory, and no random numbers that would be overwritten
        inversion = FineGrainedInversion(config)
    try:
        inversion.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"The weights in {source} do not fit their configuration ({reason}).") from error
    return inversion.eval()


def _write(folder: Path, config: str, weights: bytes) -> None:
    """Replace the two files of a saved model so that there is never a config beside weights of another model."""
    path = folder / "config.json"
    # The inner block ends first: the weights are in place before the config.
    with replacing(path) as new_config, replacing(folder / "model.safetensors") as new_weights:
        new_config.write(config.encode())
        new_weights.write(weights)
        # A full disk shows here, while the earlier model is still whole.
        new_config.flush()
        new_weights.flush()
        path.unlink(missing_ok=True)


def _read_inversion(folder: Path, config: Mapping[str, Any], encoder: DualEncoder) -> FineGrainedInversion:
    version = config.get("version")
    if version != VERSION:
        raise ModelError(
            f"{folder} is in version {version} of the format of saved models, but this fti4cir reads version "
            f"{VERSION}; another version of fti4cir wrote it."
        )
    if not fits_encoder(config, encoder):
        raise ModelError(
            f"The inversion weights in {folder} were trained with another encoder than {encoder.name} as it is now "
            f"(fingerprint {config.get('fingerprint')}, not {encoder.fingerprint}); train them again with "
            f"`fti4cir train --backbone {encoder.name}`."
        )
    try:
        inversion_config = InversionConfig.from_json(config["inversion"])
    except (KeyError, TypeError) as error:
        raise ModelError(f"The entry 'inversion' in {folder / 'config.json'} is not complete: {error}.") from error
    path = folder / "model.safetensors"
    try:
        state = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"The weights {path} are missing or damaged ({error}); copy or make the model again."
        ) from error
    return build_inversion(inversion_config, state, source=str(path))


def _backbone_reference(name: str, folder: Path) -> str:
    """How a config in `folder` names a backbone: a folder inside it relatively, another absolutely, else by name."""
    path = Path(name).expanduser()
    if registry.bundled_folder(name) is not None or not path.is_dir():
        return name
    path, inside = path.resolve(), folder.resolve()
    return path.relative_to(inside).as_posix() if path.is_relative_to(inside) else path.as_posix()
