"""What the scripts of this folder share: checked arguments, and progress on stderr."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable
from pathlib import Path

import fti4cir
from fti4cir.errors import FtiError, InputError
from fti4cir.files import require_folder

_DATA_FILES = (
    "art_domains.tar", "caltech101.tar", "fashion_products.csv", "fashion_products.tar", "flickr8k.tar",
    "flickr8k_captions.csv",
)  # fmt: skip
_PREPARED = ("images", "held_out", "captions.jsonl")
progress = logging.getLogger("fti4cir.research")


def log_progress() -> None:
    """Show on stderr what the package and these scripts log, one plain line each."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("fti4cir").setLevel(logging.INFO)


def parser(description: str | None) -> argparse.ArgumentParser:
    """A parser that shows a script's docstring as it is."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


def add_data(to: argparse.ArgumentParser) -> None:
    """The option --data."""
    to.add_argument("--data", type=data_folder, required=True, help="folder with the four sets' tar and CSV files")


def add_work(to: argparse.ArgumentParser, *, prepared: bool = True) -> None:
    """The option --work; `prepared`: it must hold what `train_mini_inversion.py prepare` writes."""
    if prepared:
        to.add_argument(
            "--work", type=prepared_folder, required=True, help="folder that `train_mini_inversion.py prepare` filled"
        )
    else:
        to.add_argument("--work", type=Path, required=True, help="folder for everything that is made; made if missing")


def existing_folder(text: str) -> Path:
    """The type of an argument that must be a folder; ends the script with one sentence if it is not."""
    try:
        require_folder(text)
    except InputError as error:
        sys.exit(str(error))
    return Path(text)


def data_folder(text: str) -> Path:
    """The type of --data."""
    return _with(text, _DATA_FILES, "it must hold the images and captions of the four sets that mini_data.py reads")


def prepared_folder(text: str) -> Path:
    """The type of --work for scripts that read what `prepare` writes."""
    return _with(text, _PREPARED, "run `python research/train_mini_inversion.py prepare` first")


def load_model(name: str) -> fti4cir.Model:
    """A model by name or folder; ends the script with one sentence if there is none."""
    try:
        return fti4cir.load(name)
    except FtiError as error:
        sys.exit(str(error))


def _with(text: str, names: Iterable[str], advice: str) -> Path:
    folder = existing_folder(text)
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        sys.exit(f"'{folder}' has no {missing[0]}: {advice}.")
    return folder
