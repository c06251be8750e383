"""The commands that make models: `caption`, `train`, `convert`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import InputError
from ..methods import registry
from ..models.names import CAPTIONER, fetch_captioner
from ..wording import counted
from .models import BACKBONES, DEFAULT_MODEL, check, require
from .terminal import is_first, note, require_file, require_file_place, require_folder_place, require_images, say

DEFAULT_CAPTIONER = CAPTIONER


def caption(
    images: Annotated[
        Path, typer.Argument(metavar="FOLDER_OR_TAR", help="The images: a folder, those below it included, or a tar.")
    ],
    output: Annotated[
        Path, typer.Option(metavar="FILE.jsonl", help="The captions, as JSON lines, which train takes as they are.")
    ],
    model: Annotated[
        str, typer.Option("--model", metavar="NAME_OR_DIR", help="A BLIP captioner's hub name or folder.")
    ] = DEFAULT_CAPTIONER,
    batch_size: Annotated[int, typer.Option(min=1, help="Images that are captioned at once.")] = 16,
    preprocess: Annotated[
        Literal["target-pad", "squeeze"],
        typer.Option(
            metavar="HOW",
            help="How an image becomes the captioner's square. target-pad: as in the paper's release, padded and "
            "cropped to the centre. squeeze: as BLIP's authors do, all of it, pressed into a square.",
        ),
    ] = "target-pad",
) -> None:
    """Write captions for images that nobody has described, to train on.

    Interrupt it when you like: the same command goes on from there.
    """
    require_images(images)
    require_file_place(output, "--output")
    fetch_captioner(model)
    from ..captions.generate import caption_images

    note(f"captioner: {model}")
    report = caption_images(images, output, model=model, batch_size=batch_size, preprocessing=preprocess)
    images_captioned = counted(report.captioned, "image")
    say(f"{images_captioned} captioned in {output}, {len(report.unreadable)} left out; now train on them:")
    quoted = [shlex.quote(str(path)) for path in (images, output)]
    say(f"  fti4cir train --images {quoted[0]} --captions {quoted[1]} --output my-model")


def train(
    images: Annotated[
        Path, typer.Option(metavar="FOLDER_OR_TAR", help="The images: a folder, those below it included, or a tar.")
    ],
    captions: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="Their captions: a CSV with the columns image and caption, or JSON lines with these fields.",
        ),
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the model, its log and its checkpoint.")],
    backbone: Annotated[
        str,
        typer.Option(metavar="NAME_OR_DIR", help=f"What to train for: {BACKBONES}."),
    ] = DEFAULT_MODEL,
    method: Annotated[
        str, typer.Option(metavar="NAME", help=f"What to train: {', '.join(registry.trainable())}.")
    ] = "fti4cir",
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="paper: the published recipe, for large CLIPs and many images. composed: this project's recipe, "
            'which also trains "but ..." on edited captions, for small encoders and few images. Both exist without one '
            "part, for ablations: composed-no-attributes, composed-no-selection, composed-no-orthogonality, "
            "composed-no-subject-regularization, composed-no-attributes-regularization, "
            "composed-no-whole-regularization, and the same for paper. pic2word, searle, lincir: the published "
            "recipes of these methods, which take hours. pic2word-quick, searle-quick, lincir-quick: short recipes "
            "for small encoders and few images.",
            show_default="composed for fti4cir, else the method's published recipe",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(min=1, help="Number of passes over the images.", show_default="the preset's")
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per step.", show_default="the preset's")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="The highest learning rate of the schedule.", show_default="the preset's")
    ] = None,
    chunk_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Process this many images at a time if a batch does not fit in memory; the loss is still that of the "
            "whole batch.",
            show_default="all",
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="The same seed gives the same model.", show_default="the preset's")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Where the images' features are kept, for other trainings on the same images to use.",
            show_default="in the output folder",
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the training in the output folder, if there is one.")
    ] = False,
) -> None:
    """Train the inversion network on captioned images, for the encoder of a model.

    Each image is encoded once; the network then learns from these features.

    Interrupt it when you like: with --resume it goes on from there, to the same weights.

    On several GPUs: torchrun --nproc-per-node N -m fti4cir train ...
    """
    require_images(images)
    require_file(captions, "--captions")
    require_folder_place(output, "--output")
    if features is not None:
        require_folder_place(features, "--features")
    backbone = check(backbone)
    name = preset or registry.learner(method).default  # before all that takes long
    given = {
        "epochs": epochs,
        "batch_size": batch_size,
        "chunk_size": chunk_size,
        "learning_rate": learning_rate,
        "seed": seed,
    }
    config = registry.preset(name, **{field: value for field, value in given.items() if value is not None})
    if config.method != method:
        raise InputError(f"The preset {name} trains {config.method}, not {method}; leave one of the two out.")
    note(f"backbone: {backbone}")
    registry.train(config, images, captions, backbone, output, resume=resume, features=features)
    if is_first():
        _print_saved(output)


def convert(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT.pth", help="What the authors' training code saved.")
    ],
    backbone: Annotated[
        str, typer.Option(metavar="NAME_OR_DIR", help="The CLIP it was trained on: its hub name or folder.")
    ],
    output: Annotated[Path, typer.Option(metavar="DIR", help="The folder for the model.")],
) -> None:
    """Convert a checkpoint of the authors' release to a model; no code in it is run."""
    require_file(checkpoint, "CHECKPOINT.pth")
    require_folder_place(output, "--output")
    require(backbone)
    from ..models.loading import convert as convert_

    note(f"backbone: {backbone}")
    convert_(checkpoint, backbone, output=output)
    _print_saved(output)


def _print_saved(folder: Path) -> None:
    say(f"saved in {folder}; now search with it:")
    say(f'  fti4cir search FOLDER --model {shlex.quote(str(folder))} --image FILE --text "in red"')
