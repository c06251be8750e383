"""Models by name: load them, save trained ones, convert the authors' released checkpoint.

A saved model is a folder of two files. `model.safetensors` holds the inversion network's parameters;
`config.json` says how it is built, which encoder it belongs to, and how it was made:

    {"format": "fti4cir", "version": 1,
     "backbone": "openai/clip-vit-large-patch14",   a name, or a folder (relative: to this file's folder)
     "fingerprint": "0f3c...",                      of that encoder
     "inversion": {"num_latent": 24, ...},          the fields of InversionConfig
     "trained": {...}}                              for people
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from safetensors.torch import save as serialize

from ..backbones.base import DualEncoder
from ..errors import ModelError
from ..inversion.network import FineGrainedInversion, InversionConfig
from . import names
from .authors_pickle import read_released
from .model import Model, require_one_encoder
from .names import CLIP_REPOSITORY, CLIP_REVISION, FORMAT, RELEASE_REPOSITORY

VERSION = 1

Precision = Literal["float32", "bfloat16"]


def load(
    name_or_dir: str | Path = "mini", device: str | torch.device | None = None, dtype: Precision = "float32"
) -> Model:
    """Load a model.

    Args:
        name_or_dir: `mini`, the bundled model; `vit-l-14`, CLIP ViT-L/14 with the authors' released weights,
            downloaded on first use; a folder that `save` or `convert` wrote; or any CLIP, by its folder or its
            name on the Hugging Face hub, which then has no inversion weights.
        device: where the towers run; None: a CUDA device if there is one, else the CPU.
        dtype: of CLIP's towers; the inversion network and all features are float32. `mini` chooses itself.

    Raises:
        ModelError: if there is no such model, it cannot be downloaded, is damaged, or its parts do not fit.

    """
    name, where = str(name_or_dir), _device(device)
    _require_precision(dtype)
    if name == "vit-l-14":
        return _load_released(where, dtype)
    folder = names.saved_folder(name)
    if folder is not None:
        return _load_saved(folder, name, where, dtype)
    return Model(_load_encoder(name, where, dtype), None, name)


def load_all(
    names_or_dirs: Sequence[str | Path],
    device: str | torch.device | None = None,
    dtype: Precision = "float32",
) -> list[Model]:
    """Load several models on one encoder, which they share, to compare what was trained for it.

    Arguments and errors as of `load`; ModelError also if their encoders differ.
    """
    models: list[Model] = []
    for name in map(str, names_or_dirs):
        folder = names.saved_folder(name) if models else None
        config = names.read_json(folder / "config.json") if folder else {}
        fingerprint = names.weights_part(str(config.get("fingerprint")))
        if folder and fingerprint == names.weights_part(models[0].encoder.fingerprint):
            models.append(_with_encoder(folder, config, name, models[0].encoder))
        else:
            models.append(load(name, device, dtype))
            require_one_encoder(models)
    return models


def load_encoder(
    name_or_dir: str | Path, device: str | torch.device | None = None, dtype: Precision = "float32"
) -> DualEncoder:
    """Load a model's dual encoder only, to train inversion weights for it; it need not have any yet.

    Arguments and errors as of `load`.
    """
    name, where = str(name_or_dir), _device(device)
    _require_precision(dtype)
    if name == "vit-l-14":
        return _load_released_encoder(dtype).to(where)
    folder = Path(name).expanduser()
    if name != "mini" and names.is_saved(folder):
        return _load_saved_encoder(folder, names.read_json(folder / "config.json"), where, dtype)
    return _load_encoder(name, where, dtype)


def save(
    directory: str | Path,
    inversion: FineGrainedInversion,
    encoder: DualEncoder,
    trained: Mapping[str, object],
    method: str = "fti4cir",
    extra: Mapping[str, object] | None = None,
) -> Path:
    """Save an inversion network as a folder that `load` reads; gives the folder back.

    Both files are written beside their final names first. An earlier model's config is then removed before
    its weights are replaced and written last, so that a folder with a config is always one whole model.

    Args:
        directory: made if missing; an earlier saved model in it is replaced.
        inversion: the network.
        encoder: the dual encoder it belongs to; its name must be one that `load` knows.
        trained: how the network was made, for people; anything that JSON can say.
        method: what it was trained as.
        extra: what the method needs besides the network, likewise.

    Raises:
        ModelError: if the folder holds a model of another kind, or cannot be written.

    """
    folder = Path(directory)
    require_free(folder)
    config_path, weights_path = folder / "config.json", folder / "model.safetensors"
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
    new_config, new_weights = (path.with_name(f".{path.name}.{os.getpid()}") for path in (config_path, weights_path))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            new_weights.write_bytes(serialize(state))  # `save_file` would hide the file from other users
            new_config.write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            config_path.unlink(missing_ok=True)
            new_weights.replace(weights_path)
            new_config.replace(config_path)
        finally:
            new_weights.unlink(missing_ok=True)
            new_config.unlink(missing_ok=True)
    except OSError as error:
        raise ModelError(f"The model cannot be saved in {folder}: {error}.") from error
    return folder


def require_free(folder: Path) -> None:
    """Refuse a folder that `save` must not write to: ModelError if it holds a model of another kind."""
    if (folder / "config.json").exists() and not names.is_saved(folder):
        raise ModelError(
            f"{folder} holds a model of another kind, which saving would overwrite; choose another folder."
        )


def convert(checkpoint: str | Path, backbone: str | Path, output: str | Path) -> Path:
    """Convert a checkpoint of the authors' release to a saved model; gives its folder back.

    Nothing in the checkpoint is run (see `released`). Every setting that the file holds is taken from it; the
    config's `trained` says which others were assumed.

    Args:
        checkpoint: the file that the release saved, such as `model_59.pth`.
        backbone: the CLIP it was trained on, a hub name or a folder.
        output: the folder to write.

    Raises:
        ModelError: if the checkpoint is unsafe, damaged or of another kind, or does not fit the backbone.

    """
    return _convert(Path(checkpoint), load_encoder(backbone, device="cpu"), Path(output), Path(checkpoint).name)


def _convert(checkpoint: Path, encoder: DualEncoder, output: Path, source: str) -> Path:
    released = read_released(checkpoint)
    inversion = _build(released.config, released.state, str(checkpoint))
    Model(encoder, inversion, str(checkpoint))  # refuses widths that do not fit
    trained = {
        "by": "the authors' release",
        "converted_from": source,
        "settings": released.recorded,
        "assumed": released.assumed,
    }
    return save(output, inversion, encoder, trained)


# -- saved models ---------------------------------------------------------------------------------------------


def _load_saved(folder: Path, name: str, device: torch.device, dtype: Precision) -> Model:
    config = names.read_json(folder / "config.json")
    return _with_encoder(folder, config, name, _load_saved_encoder(folder, config, device, dtype))


def _with_encoder(folder: Path, config: Mapping[str, Any], name: str, encoder: DualEncoder) -> Model:
    inversion = _load_inversion(folder, config, encoder)
    return Model(encoder, inversion, name, config.get("method", "fti4cir"), config.get("extra"))


def _load_saved_encoder(folder: Path, config: Mapping[str, Any], device: torch.device, dtype: Precision) -> DualEncoder:
    backbone = config.get("backbone")
    if not isinstance(backbone, str):
        raise ModelError(f"{folder / 'config.json'} does not name a backbone.")
    beside = folder / Path(backbone).expanduser()  # an absolute path stays what it is
    return _load_encoder(str(beside) if beside.is_dir() else backbone, device, dtype)


def _load_inversion(folder: Path, config: Mapping[str, Any], encoder: DualEncoder) -> FineGrainedInversion:
    """The network of a saved model, once it is certain that it belongs to the encoder."""
    version = config.get("version")
    if version != VERSION:
        raise ModelError(
            f"{folder} is in version {version} of the format of saved models, but this fti4cir reads version "
            f"{VERSION}; another version of fti4cir wrote it."
        )
    if names.weights_part(str(config.get("fingerprint"))) != names.weights_part(encoder.fingerprint):
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
    return _build(inversion_config, state, str(path))


def _build(config: InversionConfig, state: Mapping[str, torch.Tensor], source: str) -> FineGrainedInversion:
    """The network with these parameters, float32; ModelError if they are not the ones it has."""
    with torch.device("meta"):  # no memory, and no random numbers only to overwrite them
        inversion = FineGrainedInversion(config)
    try:
        inversion.load_state_dict({name: tensor.float() for name, tensor in state.items()}, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise ModelError(f"The weights in {source} do not fit their configuration ({reason}).") from error
    return inversion.eval()


def _backbone_reference(name: str, folder: Path) -> str:
    """How a config in `folder` names a backbone: a folder inside it relatively, another absolutely, else by name."""
    path = Path(name).expanduser()
    if name == "mini" or not path.is_dir():
        return name
    path, inside = path.resolve(), folder.resolve()
    return path.relative_to(inside).as_posix() if path.is_relative_to(inside) else path.as_posix()


# -- the preset -----------------------------------------------------------------------------------------------


def _load_released(device: torch.device, dtype: Precision) -> Model:
    """CLIP ViT-L/14 and the authors' release, converted on first use and kept in the hub's cache of assets."""
    encoder = _load_released_encoder(dtype)
    folder = names.released_folder()
    if not (folder / "config.json").exists():
        snapshot = names.fetch_release()
        checkpoints = names.checkpoints(snapshot)
        if len(checkpoints) != 1:
            found = ", ".join(path.name for path in checkpoints)
            raise ModelError(
                f"One checkpoint was expected in {RELEASE_REPOSITORY}, but found were: {found}; choose one and convert "
                f"it with `fti4cir convert {snapshot}/FILE --backbone {CLIP_REPOSITORY} --output DIR`."
            )
        _convert(checkpoints[0], encoder, folder, f"{RELEASE_REPOSITORY}@{snapshot.name}: {checkpoints[0].name}")
    inversion = _load_inversion(folder, names.read_json(folder / "config.json"), encoder)
    return Model(encoder.to(device), inversion, "vit-l-14")


def _load_released_encoder(dtype: Precision) -> DualEncoder:
    """CLIP ViT-L/14, on the CPU."""
    return _load_clip(names.fetch_clip(CLIP_REPOSITORY, CLIP_REVISION), CLIP_REPOSITORY, dtype)


def _require_precision(dtype: str) -> None:
    if dtype not in ("float32", "bfloat16"):
        raise ModelError(f"The dtype is {dtype!r}, but must be float32 or bfloat16.")


def _device(wanted: str | torch.device | None) -> torch.device:
    if wanted is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(wanted)
    except RuntimeError as error:
        raise ModelError(f"There is no device called {str(wanted)!r}; try cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ModelError(f"The device {device} was asked for, but torch finds no CUDA device here; use cpu.")
    return device


# -- encoders -------------------------------------------------------------------------------------------------


def _load_encoder(name: str, device: torch.device, dtype: Precision) -> DualEncoder:
    """`mini`, or a CLIP by its folder or its name on the hub."""
    if name == "mini":
        from ..backbones.mini import load_mini

        return load_mini(device)
    names.check(name)
    folder = Path(name).expanduser()
    if not folder.is_dir():
        folder = names.fetch_clip(name)
    return _load_clip(folder, name, dtype).to(device)


def _load_clip(folder: Path, name: str, dtype: Precision) -> DualEncoder:
    """A CLIP from a folder as transformers saves it, on the CPU."""
    kind = names.read_json(folder / "config.json").get("model_type")
    if kind != "clip":
        raise ModelError(f"{name} is not a CLIP that transformers reads: its config.json says {kind!r}, not 'clip'.")
    if not any(folder.glob("model*.safetensors")):
        raise ModelError(f"{name} has no weights as safetensors; others, such as pytorch_model.bin, are not read.")
    processor = names.read_json(folder / "preprocessor_config.json")
    if not all(
        isinstance(processor.get(key), list) and len(processor[key]) == 3 for key in ("image_mean", "image_std")
    ):
        raise ModelError(f"The preprocessor_config.json of {name} lacks image_mean and image_std.")
    if not (folder / "tokenizer.json").exists() and not names.has_vocabulary(folder):
        raise ModelError(f"{name} has no tokeniser (tokenizer.json, or vocab.json and merges.txt).")
    # Imported here, for transformers takes seconds and `mini` can do without it.
    from transformers import CLIPModel, CLIPTokenizer

    from ..backbones.clip import ClipEncoder

    try:
        with quiet_transformers():
            model, info = CLIPModel.from_pretrained(
                folder,
                dtype=getattr(torch, dtype),
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
            )
            tokenizer = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # transformers, tokenizers and safetensors raise bare Exceptions, KeyErrors and RuntimeErrors alike for
        # a folder with damaged files; which it was, the message says.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ModelError(f"The CLIP in {folder} cannot be loaded, its files may be damaged ({reason}).") from error
    # transformers fills what is missing with random numbers.
    if info["missing_keys"] or info["mismatched_keys"]:
        raise ModelError(f"The weights of {name} are not complete: {sorted(info['missing_keys'])[:3]} ... are missing.")
    return ClipEncoder(model, tokenizer, processor, name)


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """No progress bar and no advice on stderr while a model loads."""
    from transformers.utils import logging

    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
