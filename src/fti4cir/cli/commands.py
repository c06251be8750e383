"""How a function becomes a command: its options, which may be declared in groups, and what is checked for all."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

from ..errors import InputError
from ..escaping import is_utf8


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """The command, which refuses a text that is not valid UTF-8; paths may hold any bytes."""

    @functools.wraps(command)
    def checked(**given: Any) -> None:
        for name, value in given.items():
            for text in value if isinstance(value, list) else [value]:
                if isinstance(text, str) and not is_utf8(text):
                    raise InputError(f"The {name.replace('_', '-')} is not valid UTF-8: '{text}'; type it again.")
        command(**given)

    return checked


def with_groups(function: Callable[..., None], *more: inspect.Parameter) -> Callable[..., None]:
    """A command whose options are, for each parameter of `function` that is a dataclass, the fields of that dataclass.

    Args:
        function: its first parameter is an option; the others are options or dataclasses of options. `**options` takes
            the values of `more`.
        more: options that are known only when the command is made; in the help they follow the first one.
    """
    hints = get_type_hints(function, include_extras=True)
    first, *others = [one for one in inspect.signature(function).parameters.values() if one.kind != one.VAR_KEYWORD]
    groups = {one.name: hints[one.name] for one in others if is_dataclass(hints[one.name])}
    parameters = [_option(first.name, hints[first.name], first.default), *more]
    for one in others:
        if one.name in groups:
            parameters += _fields(groups[one.name])
        else:
            parameters.append(_option(one.name, hints[one.name], one.default))

    def command(**given: Any) -> None:
        grouped = {
            name: group(**{field.name: given.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        function(**given, **grouped)

    command.__doc__ = function.__doc__
    # Typer looks at both.
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    return command


def _fields(group: type) -> list[inspect.Parameter]:
    hints = get_type_hints(group, include_extras=True)
    return [
        _option(one.name, hints[one.name], inspect.Parameter.empty if one.default is MISSING else one.default)
        for one in fields(group)
    ]


def _option(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
