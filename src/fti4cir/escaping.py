"""Text that somebody else wrote, such as a file's name, as it can be shown without harm."""

from __future__ import annotations

import unicodedata

# Control and format characters, lone surrogates (bytes of a name that are no UTF-8), line and paragraph separators.
_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
# Format characters that join or part letters, and emoji, as names in some languages need them.
_JOINERS = frozenset("\u200c\u200d")


def escape(text: str) -> str:
    r"""The text with each character that would act on a terminal, or not be seen, as Python writes it.

    A newline becomes `\n`, the escape character `\x1b`, a mark that turns the direction of writing `\u202e`.
    """
    if text.isprintable():
        return text
    return "".join(_escaped(one) if _is_hidden(one) else one for one in text)


def is_utf8(text: str) -> bool:
    """Whether a text can be written as UTF-8: in names and arguments, Python keeps other bytes as lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_hidden(character: str) -> bool:
    return unicodedata.category(character) in _HIDDEN and character not in _JOINERS


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", "surrogatepass").decode("ascii")
