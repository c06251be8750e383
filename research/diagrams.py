"""Draw the Mermaid diagrams of docs/*.md as SVG files, which the documentation site shows without a network.

    python research/diagrams.py --mermaid mermaid.min.js [--chromium chromium]

`npm pack mermaid` brings `package/dist/mermaid.min.js`. Each file is named after a digest of its diagram's text, so
that building the site fails when a diagram was changed and not drawn again.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import json
import re
import subprocess
import tempfile
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
DRAWN = DOCS / "_static" / "diagrams"
FENCE = re.compile(r"^```mermaid\n(.*?)^```", re.DOTALL | re.MULTILINE)
PAGE = """<meta charset="utf-8"><body><script src="{script}"></script><script>
mermaid.initialize({{startOnLoad: false, theme: "neutral", htmlLabels: false, flowchart: {{htmlLabels: false}}}});
(async () => {{
  const drawn = [];
  for (const [index, text] of {texts}.entries())
    drawn.push((await mermaid.render("diagram" + index, text)).svg);
  const result = document.createElement("pre");
  result.id = "result";
  result.textContent = JSON.stringify(drawn);
  document.body.replaceChildren(result);
}})();
</script>"""


def file_name(text: str) -> str:
    """The name of a diagram's file; docs/conf.py computes it in the same way."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12] + ".svg"


def draw(texts: list[str], mermaid: Path, chromium: str) -> list[str]:
    """Each diagram as SVG, by Mermaid in a browser."""
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        page.write_text(PAGE.format(script=mermaid.resolve().as_uri(), texts=json.dumps(texts)), encoding="utf-8")
        command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
        command += ["--virtual-time-budget=60000", "--dump-dom", page.as_uri()]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found = re.search(r'<pre id="result">(.*?)</pre>', done.stdout, re.DOTALL)
    if found is None:
        raise SystemExit(f"Mermaid drew nothing:\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    drawn: list[str] = json.loads(html.unescape(found[1]))
    return drawn


def main() -> None:
    """Draw all diagrams, and delete those of texts that are gone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mermaid", type=Path, required=True, help="mermaid.min.js")
    parser.add_argument("--chromium", default="chromium", help="the browser to draw with")
    arguments = parser.parse_args()
    texts = [text for page in sorted(DOCS.glob("*.md")) for text in FENCE.findall(page.read_text(encoding="utf-8"))]
    drawn = draw(texts, arguments.mermaid, arguments.chromium)
    DRAWN.mkdir(parents=True, exist_ok=True)
    for old in DRAWN.glob("*.svg"):
        old.unlink()
    for text, svg in zip(texts, drawn, strict=True):
        (DRAWN / file_name(text)).write_text(svg + "\n", encoding="utf-8")
    print(f"{len(drawn)} diagrams in {DRAWN}")


if __name__ == "__main__":
    main()
