"""What the layering of imports (pyproject.toml) cannot say."""

import re
from pathlib import Path

import fti4cir

PACKAGE = Path(fti4cir.__file__).parent


def test_only_compose_puts_words_into_sentences() -> None:
    users = {
        path.relative_to(PACKAGE).as_posix()
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\.(embed_tokens|encode_embeddings)\(", path.read_text(encoding="utf-8"))
    }
    assert {user for user in users if not user.startswith("backbones/")} == {"inversion/compose.py"}
