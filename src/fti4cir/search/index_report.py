"""What an indexing run has changed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class IndexReport:
    """What an indexing run has changed."""

    added: int
    """New files, including copies of others."""
    updated: int
    """Files that had changed, even if only in their time."""
    unchanged: int
    removed: int
    """Images removed from the index, because their files are gone or no longer hold an image."""
    moved: int
    """New files with the content of files that are gone: moved or renamed. They count neither as added nor as
    removed."""
    skipped: list[tuple[Path, str]]
    """Files and folders that cannot be read, absolute, each with the reason in a sentence."""
    total: int
    """Images in the index now."""
    unsupported: dict[str, list[Path]] = field(default_factory=dict)
    """Files of image formats that cannot be read, absolute, by format. They are not among `skipped`."""

    def to_json(self) -> dict[str, Any]:
        """Plain data for `json.dumps`. The names are part of the command line's interface."""
        unsupported = [
            (path, f"Cannot read '{path}': {kind} files are not supported; export it as JPEG or PNG.")
            for kind, paths in self.unsupported.items()
            for path in paths
        ]
        skipped = sorted(self.skipped + unsupported)
        return {
            "added": self.added,
            "updated": self.updated,
            "unchanged": self.unchanged,
            "removed": self.removed,
            "moved": self.moved,
            "skipped": [{"path": printable(path), "reason": reason} for path, reason in skipped],
            "total": self.total,
        }


def printable(path: Path) -> str:
    """A path as valid UTF-8. Other bytes are replaced."""
    return os.fsencode(path).decode(errors="replace")
