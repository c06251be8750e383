"""What a user imports: each public name exists and is documented, and the errors are the tree that is drawn."""

import ast
import inspect
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

import fti4cir
from fti4cir import errors

LINE = re.compile(r"^(?P<branch>[│ ]*(?:[├└]── )?)(?P<name>[A-Z]\w+)(?: {2,}\S.*)?$", re.MULTILINE)


def drawn() -> dict[str, str | None]:
    """Each error's parent, as the docstring of `errors` draws it; None for the root."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in LINE.finditer(errors.__doc__ or ""):
        depth = len(line["branch"]) // 4
        path[depth:] = [line["name"]]
        parents[line["name"]] = path[depth - 1] if depth else None
    return parents


def test_the_errors_are_the_tree_that_is_drawn() -> None:
    classes = [one for one in vars(errors).values() if inspect.isclass(one) and issubclass(one, errors.FtiError)]
    root = errors.FtiError
    assert drawn() == {one.__name__: None if one is root else one.__base__.__name__ for one in classes}


def test_all_errors_are_public() -> None:
    assert set(drawn()) <= set(fti4cir.__all__)


@pytest.mark.parametrize("name", fti4cir.__all__)
def test_a_public_name_exists_and_is_documented(name: str) -> None:
    value = getattr(fti4cir, name)
    assert inspect.isclass(value) or inspect.isfunction(value)
    assert value.__name__ == name
    assert (inspect.getdoc(value) or "").strip()


@pytest.mark.parametrize("name", [n for n in fti4cir.__all__ if inspect.isclass(getattr(fti4cir, n))])
def test_public_methods_are_documented(name: str) -> None:
    methods = inspect.getmembers(getattr(fti4cir, name), inspect.isfunction)
    own = [(called, value) for called, value in methods if not called.startswith("_")]
    assert [called for called, value in own if not inspect.getdoc(value)] == []


def test_public_names_are_sorted() -> None:
    assert sorted(set(fti4cir.__all__)) == fti4cir.__all__


def test_nothing_else_is_public() -> None:
    """Names without an underscore are in `__all__`, or modules of the package."""
    program = (
        "import types, fti4cir; print([n for n, v in vars(fti4cir).items() if not n.startswith('_') "
        "and not isinstance(v, types.ModuleType) and n not in fti4cir.__all__])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert set(ast.literal_eval(done.stdout)) <= {"annotations", "TYPE_CHECKING", "Any"}


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = fti4cir.nonsense


def test_the_package_says_that_it_is_typed() -> None:
    assert Path(fti4cir.__file__).with_name("py.typed").is_file()


def test_version_has_one_source() -> None:
    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert 'dynamic = ["version"' in pyproject.read_text(encoding="utf-8")
    assert version("fti4cir") == fti4cir.__version__
