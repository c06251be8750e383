"""The options that subcommands of `evaluate` share, each declared once, and what is wrong with them by themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from ..errors import InputError
from ..methods import registry
from .models import DEFAULT_MODEL, ModelsOption
from .terminal import JsonOption, require_file

RootOption = Annotated[
    Path, typer.Option(metavar="DIR", help="The benchmark's folder, with its annotation files and images.")
]
ImagesOption = Annotated[Path, typer.Option("--root", metavar="DIR", help="The folder with the images.")]
AttributesTable = Annotated[Path, typer.Option(metavar="FILE", help="The table of images and attributes, a CSV.")]
CaptionsTable = Annotated[Path, typer.Option(metavar="FILE", help="The captions, in a form that train reads.")]
AllowMissingOption = Annotated[
    bool, typer.Option("--allow-missing", help="Go on without images that have captions but are missing.")
]
PredictionsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="Check a file for the benchmark's server, and score it where the answers are known; no images are needed.",
        show_default=False,
    ),
]


@dataclass(frozen=True, kw_only=True)
class MethodOptions:
    """What is measured."""

    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"One of {', '.join(registry.names())}. A method that learns ({', '.join(registry.trainable())}) is "
            "evaluated with each given model that was trained as it; searle-oti with one that was trained as searle. "
            "Several, given one by one or with commas, share one pass over the images, and are compared with the "
            "first.",
            show_default="what the models were trained as",
        ),
    ] = None
    model: ModelsOption = None

    @property
    def names(self) -> list[str]:
        """The methods, each once; none for those that the models were trained as."""
        return list(dict.fromkeys(name for given in self.method or [] for name in listed(given)))

    @property
    def models(self) -> list[str]:
        """The models as the user named them."""
        return self.model or [DEFAULT_MODEL]


@dataclass(frozen=True, kw_only=True)
class ComposingOptions:
    """What is needed to compose queries and to search a gallery with them."""

    image_weight: Annotated[
        float | None,
        typer.Option(metavar="FLOAT", help="The image's share in the method sum, 0 to 1.", show_default="0.5"),
    ] = None
    captions: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="For the method caption: captions of the images that queries start from, as train reads them.",
            show_default=False,
        ),
    ] = None
    cache: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep the gallery's features here: an evaluation that is interrupted goes on from there, and the next "
            "on the same images encodes the references only.",
            show_default=False,
        ),
    ] = None
    allow_missing: Annotated[
        bool,
        typer.Option("--allow-missing", help="Go on without images that are missing or cannot be read."),
    ] = False

    def check(self, methods: Sequence[str]) -> None:
        """InputError if an option is given whose method is not measured, or the captions are not there."""
        if self.captions is not None:
            if "caption" not in methods:
                raise InputError("--captions is for the method caption only; give --method caption, or leave it out.")
            require_file(self.captions, "--captions")
        if self.image_weight is not None and "sum" not in methods:
            raise InputError("--image-weight is for the method sum only; give --method sum, or leave it out.")


@dataclass(frozen=True, kw_only=True)
class DrawOptions:
    """Which queries."""

    limit: Annotated[
        int | None, typer.Option(min=1, help="At most so many queries, drawn evenly.", show_default="all")
    ] = None
    seed: Annotated[int | None, typer.Option(min=0, help="Of that draw.", show_default="0")] = None

    def check(self) -> None:
        """InputError if there is a seed and nothing to draw."""
        if self.seed is not None and self.limit is None:
            raise InputError("--seed is of the draw that --limit makes; give --limit, or leave it out.")


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """Where the figures go."""

    report: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Write a page with tables, plots and examples here, and the figures as JSON, Markdown and CSV.",
            show_default=False,
        ),
    ] = None
    as_json: JsonOption = False

    def check(self) -> None:
        """InputError if the report's folder is a file."""
        if self.report is not None and self.report.exists() and not self.report.is_dir():
            raise InputError(f"The report is a folder, but {self.report} is a file; give another --report.")


@dataclass(frozen=True, kw_only=True)
class AttributeOptions:
    """How a table becomes a benchmark."""

    table: AttributesTable
    id_column: Annotated[
        str,
        typer.Option(
            "--id",
            metavar="COLUMN",
            help="The column with an image's path in the root, with or without its extension.",
        ),
    ]
    change: Annotated[str, typer.Option(metavar="COLUMN", help="The column whose value changes.")]
    template: Annotated[
        str,
        typer.Option(metavar="TEXT", help='What is asked for, with the wanted value in braces: "in {value}".'),
    ]
    keep: Annotated[
        str,
        typer.Option(
            metavar="COLUMN[,COLUMN]",
            help="The columns in which a right answer agrees with the reference image.",
            show_default="none",
        ),
    ] = ""


def listed(names: str) -> list[str]:
    """The names in a list with commas."""
    return [name.strip() for name in names.split(",") if name.strip()]
