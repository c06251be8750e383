"""The commands in the README and in docs/: each must be one that exists, as it is written there."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import typer.main

from fti4cir.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = re.compile(r"^ *```\w*\n(.*?)^ *```|(?<!`)`([^`\n]+)`(?!`)", re.DOTALL | re.MULTILINE)
PROGRAM = re.compile(r"^(?:\S*/)?fti4cir$")


def code(page: Path) -> list[str]:
    """The lines of a page's code blocks, and its code within sentences."""
    found = CODE.findall(page.read_text(encoding="utf-8"))
    return [line for block, inline in found for line in (block or inline).replace("\\\n", " ").splitlines()]


def commands(line: str) -> list[list[str]]:
    """The arguments of each call of fti4cir in a line of shell."""
    calls = []
    for part in re.split(r"&&|\|\|", line):
        try:
            words = shlex.split(part, comments=True)
        except ValueError:  # not shell: Python with an apostrophe, say
            continue
        words = words[1:] if words[:1] == ["$"] else words
        if words and PROGRAM.match(words[0]) and len(words) > 1:
            calls.append(words[1:])
    return calls


def check(arguments: list[str]) -> None:
    """Parse as the command line would, without looking for the files; an exception if it does not parse."""
    command: Any = typer.main.get_command(app)
    arguments = list(arguments)
    if arguments[0].startswith("-"):
        # Typer adds help and completion itself.
        own = {option for param in command.params for option in param.opts}
        assert arguments[0] in {"-h", "--help", *own}
        return
    while hasattr(command, "commands"):
        assert arguments, "the command stops before it says what to do"
        found = command.get_command(command.context_class(command), arguments[0])
        assert found is not None, f"there is no command {arguments[0]!r}"
        arguments.pop(0)
        command = found
    if arguments == ["-h"]:
        return
    parser = command.make_parser(command.context_class(command))
    given, rest, _ = parser.parse_args(list(arguments))
    assert not rest, f"there is no place for {rest}"
    # Without any option, a sentence speaks of the command and does not call it.
    if not any(argument.startswith("-") for argument in arguments):
        return
    missing = [p.name for p in command.params if p.required and given.get(p.name) in (None, ())]
    assert not missing, f"{missing} must be given"


CALLS = [(page, shlex.join(call)) for page in PAGES for line in code(page) for call in commands(line)]


@pytest.mark.parametrize(("page", "call"), CALLS, ids=[f"{page.relative_to(ROOT)}: {call}" for page, call in CALLS])
def test_command_exists(page: Path, call: str) -> None:
    check(shlex.split(call))


def test_commands_are_found() -> None:
    by_page = {page.name for page, _ in CALLS}
    assert {"README.md", "search.md", "train.md", "evaluate.md", "models.md"} <= by_page
    assert commands("a && .venv/bin/fti4cir demo # try") == [["demo"]]


@pytest.mark.parametrize("call", ["serach x", "search x --imag y", "search x y", "search --text y", "index x --store"])
def test_a_wrong_command_is_noticed(call: str) -> None:
    with pytest.raises((AssertionError, typer.TyperException)):
        check(shlex.split(call))


def test_ci_runs_the_readmes_test_command() -> None:
    (command,) = [line.strip() for line in code(ROOT / "README.md") if "venv .venv" in line and "pytest" in line]
    assert command in (ROOT / ".ci" / "run").read_text(encoding="utf-8")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_python_examples_import_exists(page: Path) -> None:
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL):
        tree = ast.parse(block)
        imports = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        exec(compile(ast.Module(imports, []), page.name, "exec"), {})
