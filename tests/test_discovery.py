"""Modules that register themselves."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

from fti4cir.discovery import registered


def test_modules_are_found_by_their_record_and_not_imported(tmp_path: Path) -> None:
    (tmp_path / "late.py").write_text("import no_such_module\n\nTHING = Thing(size=3, make=lambda: None)\n\nx = 1\n")
    (tmp_path / "early.py").write_text('"""It has a\nTHING of its own."""\nTHING = Thing(\n    size=2,\n)\n')
    (tmp_path / "indented.py").write_text("if True:\n    THING = Thing(size=1)\n")
    (tmp_path / "_other.py").write_text("THINGS = Thing(size=1)\n")
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").write_text("THING = Thing(size=1)\n")
    found = registered([str(tmp_path)], "THING")
    assert {name: ast.literal_eval(one.arguments["size"]) for name, one in found.items()} == {"early": 2, "late": 3}
    assert list(found) == ["early", "late"]
    assert found["early"].text.startswith('"""It has a')
    assert not {"early", "late", "no_such_module"} & set(sys.modules)
