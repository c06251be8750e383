"""Models by name: what is known of one before it is loaded, which takes seconds, or downloaded, which takes minutes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from ..backbones import hub
from ..errors import ModelError

FORMAT = "fti4cir"
"""What the config of a saved model says it is."""

DEFAULT = "mini"
"""The bundled model."""
RELEASED = "vit-l-14"
"""CLIP ViT-L/14 with the authors' released weights."""

CLIP_REPOSITORY = "openai/clip-vit-large-patch14"
CLIP_REVISION = "32bd64288804d66eefd0ccbe215aa642df71cc41"
RELEASE_REPOSITORY = "iLearn-Lab/SIGIR24-FTI4CIR"
# Not a commit: the hub takes only full hashes, and when this was written the repository's could not be
# looked up (its main branch was then at 4e3f9ca). So the first download decides: the converted copy names
# the commit it came from, and is used from then on without asking the hub again.
RELEASE_REVISION = "main"

# What a CLIP consists of. Weights only as safetensors: pickled ones (pytorch_model.bin) are never read.
_CLIP_FILES = [
    "config.json",
    "preprocessor_config.json",
    "model*.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "vocab.json",
    "merges.txt",
]
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_OTHERWISE = (
    "set HF_HOME to a copy of the cache of a machine that has it, or name the folder of a copy, or use the bundled "
    "model, mini"
)


CAPTIONER = "Salesforce/blip-image-captioning-base"
"""The base captioner on the hub."""
_CAPTIONER_REVISION = "82a37760796d32b1411fe092ab5d4e227313294b"
CAPTIONER_FILES = ["config.json", "*processor_config.json", "tokenizer*.json", "special_tokens_map.json", "vocab.txt"]
# The base captioner has only the second kind. It is a pickle, but the unpickler reads nothing but tensors.
CAPTIONER_WEIGHTS = ["model*.safetensors*", "pytorch_model*.bin*"]


def check(name: str) -> None:
    """ModelError unless a model may have that name: a ready-made one, a folder with a config, a hub name."""
    if name in (DEFAULT, RELEASED):
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
            f"There is no model {name!r}: it is no folder, none of the ready-made models (mini, vit-l-14), and no "
            "name on the Hugging Face hub, such as openai/clip-vit-base-patch32."
        )


def fetch(name: str) -> None:
    """Download what a model needs, if it is not there yet; ModelError if that cannot be done, or by `check`."""
    check(name)
    folder = saved_folder(name)
    if folder is not None:
        backbone = read_json(folder / "config.json").get("backbone")
        # A folder is looked for when it is loaded: beside the saved model, too.
        if isinstance(backbone, str) and backbone != name and not (folder / Path(backbone).expanduser()).is_dir():
            fetch(backbone)
    elif name == RELEASED:
        fetch_clip(CLIP_REPOSITORY, CLIP_REVISION)
        if not (released_folder() / "config.json").exists():
            fetch_release()
    elif name != DEFAULT and not Path(name).expanduser().is_dir():
        fetch_clip(name)


def fetch_clip(repository: str, revision: str | None = None) -> Path:
    """The folder of a CLIP from the hub; ModelError if it cannot be had."""
    return hub.snapshot(repository, revision, [_CLIP_FILES], _is_whole_clip, _OTHERWISE)


def fetch_release() -> Path:
    """The folder of the authors' release from the hub; ModelError if it cannot be had."""
    patterns = ["*.pth", "*.pt"]
    return hub.snapshot(
        RELEASE_REPOSITORY, RELEASE_REVISION, [patterns], lambda cached: bool(checkpoints(cached)), _OTHERWISE
    )


def fetch_captioner(name: str) -> Path:
    """The folder of a captioner, its own or in the hub's cache; ModelError if it cannot be had.

    From the hub it has one kind of weights.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if folder.exists() or not _HUB_NAME.fullmatch(name):
        raise ModelError(
            f"There is no captioner {name!r}: it is no folder, and no name on the Hugging Face hub, such as "
            f"{CAPTIONER}."
        )
    return hub.snapshot(
        name,
        _CAPTIONER_REVISION if name == CAPTIONER else None,
        [[*CAPTIONER_FILES, weights] for weights in CAPTIONER_WEIGHTS],
        lambda found: any(any(found.glob(weights)) for weights in CAPTIONER_WEIGHTS),
        "set HF_HOME to a copy of the cache of a machine that has it, or give the folder of a copy with --model",
    )


def released_folder() -> Path:
    """Where the authors' release is kept once it is converted: in the hub's cache of assets."""
    from huggingface_hub import cached_assets_path

    return cached_assets_path("fti4cir", "vit-l-14", RELEASE_REVISION)


def may_have_made(name: str, model: str, fingerprint: str) -> bool:
    """Whether the named model may give the features of another one, whose name and fingerprint are given.

    Two models on one encoder do: `mini` and one that was trained for it. Whether a CLIP is the same as another one
    cannot be seen before it is loaded; then a folder may be, and what has to be downloaded is not.
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

    What is left out: the precision that they were loaded in, since trained weights fit each in any precision, and how
    pixels are brought to them, which only the fingerprints of stores and caches tell.
    """
    return re.split("[-.]", fingerprint, maxsplit=1)[0]


# -- folders --------------------------------------------------------------------------------------------------


def is_saved(folder: Path) -> bool:
    """Whether a folder holds a model that `save` wrote, rather than a CLIP; ModelError if it holds neither."""
    return folder.is_dir() and read_json(folder / "config.json").get("format") == FORMAT


def saved_folder(name: str) -> Path | None:
    """The folder of a model that `save` wrote; None if the name is of something else."""
    if name == DEFAULT:
        return Path(__file__).parent.parent / "weights" / name / "inversion"
    folder = Path(name).expanduser()
    return folder if name != RELEASED and is_saved(folder) else None


def has_vocabulary(folder: Path) -> bool:
    """Whether a folder holds a tokeniser's two files of the older kind."""
    return (folder / "vocab.json").exists() and (folder / "merges.txt").exists()


def _is_whole_clip(folder: Path) -> bool:
    """Whether there is a config, preprocessing, weights as safetensors and a tokeniser."""
    return (
        (folder / "config.json").exists()
        and (folder / "preprocessor_config.json").exists()
        and any(folder.glob("model*.safetensors"))
        and ((folder / "tokenizer.json").exists() or has_vocabulary(folder))
    )


def checkpoints(folder: Path) -> list[Path]:
    """The PyTorch files in a folder: the release does not document its file's name, so it is found by its kind."""
    return sorted(path for path in folder.rglob("*") if path.suffix in {".pth", ".pt"})


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; ModelError if there is none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}); the folder is not a model's.") from error
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error}); copy or make the model again.") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} does not hold a JSON object; copy or make the model again.")
    return value
