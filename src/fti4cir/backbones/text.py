"""What is done to a text before it is split into tokens."""

from __future__ import annotations

import html
import re

import ftfy


def clean(text: str) -> str:
    """The text as OpenAI's CLIP cleans it: repaired, without HTML's escapes, on one line, in lower case.

    `ftfy` makes plain letters and quotes of full-width letters, ligatures and curly quotes, puts wrongly decoded
    UTF-8 right, and takes control characters out.

    >>> clean("  It’s ＲＥＤ &amp;amp; blue ")
    "it's red & blue"
    """
    text = html.unescape(html.unescape(ftfy.fix_text(text)))
    # Lower case is Python's: unlike the tokenisers', it knows the Greek sigma at the end of a word.
    return re.sub(r"\s+", " ", text).strip().lower()
