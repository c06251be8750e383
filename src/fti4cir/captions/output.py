"""The file of captions that a run writes, and goes on with after an interruption.

Captions are appended batch by batch. A run that was killed at any moment goes on after the last whole line.
FILE.meta.json holds what the captions were made of, so that no file mixes two captioners or two sets of images.
"""

from __future__ import annotations

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import InputError
from ..files import append, drop_partial_line, replacing
from .table import load_captioned_images


class CaptionFile:
    """A file of captions, JSON lines. All methods raise an InputError if it cannot be read or written."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._meta = path.with_name(f"{path.name}.meta.json")

    def is_begun(self) -> bool:
        """Whether it holds anything; also checks that it can be written to."""
        with self._writing():
            if self.path.exists():
                with open(self.path, "ab") as file:
                    return file.tell() > 0
            tempfile.TemporaryFile(dir=self.path.parent).close()
            return False

    def captioned(self, source: Path) -> set[str]:
        """The images whose captions it holds; removes what a killed process left of one more line."""
        with self._writing():
            has_lines = drop_partial_line(self.path)
        return set(load_captioned_images(source, self.path).names) if has_lines else set()

    def append(self, records: Iterable[Mapping[str, str]]) -> None:
        """Write lines through to the disk."""
        with self._writing():
            append(self.path, "".join(json.dumps(record) + "\n" for record in records).encode())

    def sort(self) -> None:
        """Put the lines in order. They are not if an image that an earlier run could not read has been repaired."""
        with self._writing():
            lines = self.path.read_bytes().splitlines(keepends=True)
            in_order = sorted(filter(bytes.strip, lines), key=lambda line: json.loads(line)["image"])
            if in_order != lines:
                with replacing(self.path) as file:
                    file.writelines(in_order)

    def write_origin(self, made_of: Mapping[str, Any]) -> None:
        """Note what the captions are made of, before the first of them."""
        with self._writing(), replacing(self._meta) as file:
            file.write((json.dumps(made_of, indent=2) + "\n").encode())

    def require_origin(self, made_of: Mapping[str, Any]) -> None:
        """Refuse captions that are made of something else; `made_of` may be a part of what was noted."""
        try:
            noted = json.loads(self._meta.read_text(encoding="utf-8"))
            differing = [name for name, value in made_of.items() if noted[name] != value and name != "model"]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"{self.path} is not empty, and {self._meta.name} does not say which captions it holds; choose another "
                "output."
            ) from error
        if differing:
            raise InputError(self._difference(differing[0], noted, made_of))

    def _difference(self, name: str, noted: Mapping[str, Any], made_of: Mapping[str, Any]) -> str:
        begun = f"The captions in {self.path} were begun with"
        options = {"batch_size": "--batch-size", "preprocess": "--preprocess"}
        if name in options:
            return (
                f"{begun} {options[name]} {noted[name]}, not {made_of[name]}; go on with the same or choose another "
                "output."
            )
        if name == "fingerprint":
            return (
                f"{begun} another captioner or precision (--model {noted.get('model')}); go on with the same or choose "
                "another output."
            )
        return (
            f"The captions in {self.path} are of other images than are now in {made_of['source']}; choose another "
            "output."
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise InputError(
                f"The captions {self.path} cannot be written: {error.strerror or error}; what was saved before is kept."
            ) from error
