"""Places that a user names: folders on a disk, and URIs. Imports nothing large, so that a mistake is found at once."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import InputError


def is_uri(location: str | Path) -> bool:
    """Whether a location is a URI, `scheme://...`; anything else is a folder, also `memory:` or `Trip: Rome`."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", str(location)) is not None


def require_folder(folder: str | Path) -> None:
    """Refuse what is no folder; InputError says whether there is anything of that name."""
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"'{folder}' is not a folder." if path.exists() else f"There is no folder '{folder}'.")
