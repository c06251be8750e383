"""Models by name: what can be known of a model without loading it. Importing this module does not import torch."""

from __future__ import annotations

import re
from pathlib import Path

from ..backbones import hub, registry
from ..backbones.folder import FILES, is_complete, read_json
from ..errors import ModelError

FORMAT = "fti4cir"
"""The `format` in the config of a saved model."""

DEFAULT = "mini"
"""The bundled model."""
RELEASED = "vit-l-14"
"""CLIP ViT-L/14 with the authors' released weights."""

CLIP_REPOSITORY = "openai/clip-vit-large-patch14"
CLIP_REVISION = "32bd64288804d66eefd0ccbe215aa642df71cc41"
RELEASE_REPOSITORY = "iLearn-Lab/SIGIR24-FTI4CIR"
# A branch, because the full hash of the repository's commit is not known here (its main branch was at 4e3f9ca). The
# first download decides: the converted copy names its commit, and is used from then on without asking the hub again.
RELEASE_REVISION = "main"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OTHERWISE = (
    "set HF_HOME to a copy of the cache of a machine that has it, or name the folder of a copy, or use the bundled "
    "model, mini"
)

CAPTIONER = "Salesforce/blip-image-captioning-base"
"""The base captioner on the hub."""
_CAPTIONER_REVISION = "82a37760796d32b1411fe092ab5d4e227313294b"
CAPTIONER_FILES = ["config.json", "*processor_config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.txt"]
# The base captioner has only the second kind. That is a pickle, of which the unpickler reads nothing but tensors.
CAPTIONER_WEIGHTS = ["model*.safetensors*", "pytorch_model*.bin*"]


def check(name: str) -> None:
    """ModelError unless a model may have that name: a ready-made model, a folder with a config, or a hub name."""
    if name in ready_made():
        return
    folder = Path(name).expanduser()
    if name and folder.is_dir():
        read_json(folder / "config.json")
    elif folder.is_file():
        raise ModelError(
            f"{name} is a file, not a model's folder; a checkpoint of the authors' release is made into one with "
            f"`fti4cir convert {name} --backbone NAME_OR_DIR --output DIR`."
        )
    elif not _HUB_NAME.fullmatch(name):
        raise ModelError(
            f"There is no model {name!r}: it is not a folder, none of the ready-made models "
            f"({', '.join(ready_made())}), and not a name on the Hugging Face hub, such as "
            "openai/clip-vit-base-patch32."
        )


def ready_made() -> list[str]:
    """The names of models that are neither a folder nor on the hub."""
    return [*(name for name in registry.backbones() if registry.bundled_folder(name)), RELEASED]


def fetch(name: str) -> None:
    """Download what a model needs, if it is not there yet; ModelError if that fails, or as of `check`."""
    check(name)
    folder = saved_folder(name)
    if folder is not None:
        backbone = read_json(folder / "config.json").get("backbone")
        # A backbone's folder, which may also lie in that of the saved model, is looked for when it is loaded.
        if isinstance(backbone, str) and backbone != name and not (folder / Path(backbone).expanduser()).is_dir():
            fetch(backbone)
    elif name == RELEASED:
        fetch_backbone(CLIP_REPOSITORY, CLIP_REVISION)
        if not (released_folder() / "config.json").exists():
            fetch_release()
    elif registry.bundled_folder(name) is None and not Path(name).expanduser().is_dir():
        fetch_backbone(name)


def fetch_backbone(repository: str, revision: str | None = None) -> Path:
    """The folder of a dual encoder from the hub; ModelError if it cannot be downloaded."""
    return hub.snapshot(repository, revision, choices=[FILES], whole=is_complete, otherwise=_OTHERWISE)


def fetch_release() -> Path:
    """The folder of the authors' release from the hub; ModelError if it cannot be downloaded."""
    patterns = ["*.pth", "*.pt"]
    return hub.snapshot(
        RELEASE_REPOSITORY,
        RELEASE_REVISION,
        choices=[patterns],
        whole=lambda cached: bool(checkpoints(cached)),
        otherwise=_OTHERWISE,
    )


def fetch_captioner(name: str) -> Path:
    """The folder of a captioner, one of the user's or one in the hub's cache, which has one kind of weights.

    ModelError if there is no such captioner, or it cannot be downloaded.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_NAME.fullmatch(name):
        raise ModelError(
            f"There is no captioner {name!r}: it is not a folder, and not a name on the Hugging Face hub, such as "
            f"{CAPTIONER}."
        )
    return hub.snapshot(
        name,
        _CAPTIONER_REVISION if name == CAPTIONER else None,
        choices=[[*CAPTIONER_FILES, weights] for weights in CAPTIONER_WEIGHTS],
        whole=lambda found: any(any(found.glob(weights)) for weights in CAPTIONER_WEIGHTS),
        otherwise="set HF_HOME to a copy of the cache of a machine that has it, or give the folder of a copy with "
        "--model",
    )


def released_folder() -> Path:
    """Where the converted release of the authors is kept: in the hub's cache of assets."""
    from huggingface_hub import cached_assets_path

    return cached_assets_path("fti4cir", "vit-l-14", RELEASE_REVISION)


def may_have_made(name: str, model: str, *, fingerprint: str) -> bool:
    """Whether a model, by its name, may give the same image features as another model.

    Two models on one encoder do, such as `mini` and a model that was trained for it. Whether a CLIP is the same as
    another one cannot be seen before it is loaded. Then a folder counts as the same, and a name on the hub does not.

    Args:
        name: of the model in question.
        model: the name of the other model.
        fingerprint: of the other model.

    """
    if name == model:
        return True
    folder = saved_folder(name)
    if folder is not None:
        own = read_json(folder / "config.json").get("fingerprint")
        return weights_part(str(own)) == weights_part(fingerprint)
    if {name, model} == {RELEASED, CLIP_REPOSITORY}:
        return True
    return name != RELEASED and Path(name).expanduser().is_dir()


def weights_part(fingerprint: str) -> str:
    """The part of a fingerprint that names an encoder's weights.

    Left out are the precision they were loaded in, since trained weights fit all precisions, and how pixels are
    prepared, which only the fingerprints of stores and caches contain.
    """
    return re.split("[-.]", fingerprint, maxsplit=1)[0]


# -- folders --------------------------------------------------------------------------------------------------


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a saved model, rather than a backbone; ModelError if it holds neither."""
    return folder.is_dir() and read_json(folder / "config.json").get("format") == FORMAT


def saved_folder(name: str) -> Path | None:
    """The folder of a saved model; None if the name is of something else."""
    bundled = registry.bundled_folder(name)
    if bundled is not None:
        return bundled / "inversion"
    folder = Path(name).expanduser()
    return folder if name != RELEASED and is_saved(folder) else None


def checkpoints(folder: Path) -> list[Path]:
    """The PyTorch files in a folder: the release does not document its file's name, so all are listed."""
    return sorted(path for path in folder.rglob("*") if path.suffix in {".pth", ".pt"})
