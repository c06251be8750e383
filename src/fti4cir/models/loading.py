"""A model's name to the loaded model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from ..backbones import registry
from ..backbones.base import DualEncoder, Precision
from ..errors import ModelError
from . import names, saved
from .conversion import convert_checkpoint
from .model import Model, require_one_encoder
from .names import CLIP_REPOSITORY, CLIP_REVISION, DEFAULT, RELEASE_REPOSITORY, RELEASED


def load(
    name_or_dir: str | Path = DEFAULT, device: str | torch.device | None = None, *, dtype: Precision = "float32"
) -> Model:
    """Load a model.

    Args:
        name_or_dir: `mini`, the bundled model; `vit-l-14`, CLIP ViT-L/14 with the authors' released weights,
            downloaded on first use; a folder that `train` or `convert` wrote; or any CLIP, by its folder or its
            name on the Hugging Face hub, which then has no inversion weights.
        device: where the towers run; None: a CUDA device if there is one, else the CPU.
        dtype: of CLIP's towers; the inversion network and all features are float32. `mini` chooses its own.

    Raises:
        ModelError: if there is no such model, it cannot be downloaded, is damaged, or its parts do not fit.

    """
    name, where = str(name_or_dir), _device(device)
    _require_precision(dtype)
    if name == RELEASED:
        return _load_released(where, dtype)
    folder = names.saved_folder(name)
    if folder is None:
        return Model(_load_backbone(name, where, dtype), None, name)
    config = saved.read_config(folder)
    encoder = _load_backbone(saved.backbone_name(folder, config), where, dtype)
    return saved.read_model(folder, config, name=name, encoder=encoder)


def load_all(
    names_or_dirs: Sequence[str | Path],
    device: str | torch.device | None = None,
    *,
    dtype: Precision = "float32",
) -> list[Model]:
    """Load several models on one encoder, which they share, to compare what was trained for it.

    Arguments and errors as of `load`; ModelError also if their encoders differ.
    """
    models: list[Model] = []
    for name in map(str, names_or_dirs):
        folder = names.saved_folder(name) if models else None
        config = saved.read_config(folder) if folder else {}
        if folder and saved.fits_encoder(config, models[0].encoder):
            models.append(saved.read_model(folder, config, name=name, encoder=models[0].encoder))
        else:
            models.append(load(name, device, dtype=dtype))
            require_one_encoder(models)
    return models


def load_encoder(
    name_or_dir: str | Path, device: str | torch.device | None = None, *, dtype: Precision = "float32"
) -> DualEncoder:
    """Load a model's dual encoder only, to train inversion weights for it. The model may have none yet.

    Arguments and errors as of `load`.
    """
    name, where = str(name_or_dir), _device(device)
    _require_precision(dtype)
    if name == RELEASED:
        return _load_released_encoder(dtype).to(where)
    # A bundled model's name is that of its encoder, too.
    folder = None if registry.bundled_folder(name) else names.saved_folder(name)
    if folder is not None:
        name = saved.backbone_name(folder, saved.read_config(folder))
    return _load_backbone(name, where, dtype)


def convert(checkpoint: str | Path, backbone: str | Path, *, output: str | Path) -> Path:
    """Convert a checkpoint of the authors' release to a saved model; returns its folder.

    Nothing in the checkpoint is run (see `authors_pickle`). Every setting that the file holds is taken from it. The
    config's `trained` says which others were assumed.

    Args:
        checkpoint: the file that the release saved, such as `model_59.pth`.
        backbone: the CLIP it was trained on, a hub name or a folder.
        output: the folder to write.

    Raises:
        ModelError: if the checkpoint is unsafe, damaged or of another kind, or does not fit the backbone.

    """
    encoder = load_encoder(backbone, "cpu")
    return convert_checkpoint(Path(checkpoint), encoder, output=Path(output), source=Path(checkpoint).name)


# -- the authors' released model ------------------------------------------------------------------------------


def _load_released(device: torch.device, dtype: Precision) -> Model:
    """CLIP ViT-L/14 and the authors' release, which is converted on first use and kept in the hub's cache of assets."""
    encoder = _load_released_encoder(dtype)
    folder = names.released_folder()
    if not (folder / "config.json").exists():
        _convert_release(encoder, folder)
    return saved.read_model(folder, saved.read_config(folder), name=RELEASED, encoder=encoder.to(device))


def _load_released_encoder(dtype: Precision) -> DualEncoder:
    """CLIP ViT-L/14, on the CPU."""
    return _read_backbone(names.fetch_backbone(CLIP_REPOSITORY, CLIP_REVISION), CLIP_REPOSITORY, dtype)


def _convert_release(encoder: DualEncoder, folder: Path) -> None:
    snapshot = names.fetch_release()
    checkpoints = names.checkpoints(snapshot)
    if len(checkpoints) != 1:
        found = ", ".join(path.name for path in checkpoints)
        raise ModelError(
            f"One checkpoint was expected in {RELEASE_REPOSITORY}, but found were: {found}; choose one and convert "
            f"it with `fti4cir convert {snapshot}/FILE --backbone {CLIP_REPOSITORY} --output DIR`."
        )
    source = f"{RELEASE_REPOSITORY}@{snapshot.name}: {checkpoints[0].name}"
    convert_checkpoint(checkpoints[0], encoder, output=folder, source=source)


# -- encoders -------------------------------------------------------------------------------------------------


def _load_backbone(name: str, device: torch.device, dtype: Precision) -> DualEncoder:
    """An encoder by its name: a bundled one, a folder, or a name on the hub."""
    bundled = registry.bundled_folder(name)
    if bundled is not None:
        encoder: DualEncoder = registry.import_module(name).load_encoder(bundled, name, dtype)
        return encoder.to(device)
    names.check(name)
    folder = Path(name).expanduser()
    return _read_backbone(folder if folder.is_dir() else names.fetch_backbone(name), name, dtype).to(device)


def _read_backbone(folder: Path, name: str, dtype: Precision) -> DualEncoder:
    """An encoder from a folder, on the CPU, read by the backbone that knows the `model_type` of its config."""
    model_type = saved.read_config(folder).get("model_type")
    encoder: DualEncoder = registry.module_of(model_type, name).load_encoder(folder, name, dtype)
    return encoder


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
