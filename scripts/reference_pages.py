"""Write the pages of the Python reference: one for each public module of the package, by what the package holds.

    python scripts/reference_pages.py docs/reference/_api

There is no list of modules to keep: a package is a page with its modules below it, and a new module gets a page.
"""

from __future__ import annotations

import pkgutil
import shutil
import sys
from pathlib import Path

import fti4cir

# The command line has a page of its own, made from its help.
LEFT_OUT = ("fti4cir.__main__", "fti4cir.cli")


def modules() -> list[str]:
    """Full names of all public modules, without importing them."""
    found = pkgutil.walk_packages(fti4cir.__path__, "fti4cir.")
    names = [one.name for one in found]
    return sorted(name for name in names if not name.startswith(LEFT_OUT) and "._" not in name)


def main(folder: Path) -> None:
    """Write all pages, in place of those that were there."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = modules()
    for name in names:
        below = [one for one in names if one.rpartition(".")[0] == name]
        tree = (
            "\n".join(["", ".. toctree::", "   :maxdepth: 1", "", *(f"   {one}" for one in below), ""]) if below else ""
        )
        title = name.removeprefix("fti4cir.")
        # What a package gives on from its modules is described there.
        directive = f".. automodule:: {name}\n" + ("   :no-index:\n" if below else "")
        page = f"{title}\n{'=' * len(title)}\n\n{directive}{tree}"
        (folder / f"{name}.rst").write_text(page, encoding="utf-8")
    top = [name for name in names if name.count(".") == 1]
    index = ["Modules", "=======", "", ".. toctree::", "   :maxdepth: 1", "", *(f"   {name}" for name in top), ""]
    (folder / "index.rst").write_text("\n".join(index), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
