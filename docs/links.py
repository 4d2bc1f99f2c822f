"""Links of all Markdown files: those within the repository lead somewhere, others are listed.

Sphinx checks the pages of the site; this has README.md and the others that are none, too.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Of a page's headings, as GitHub and MyST make them."""
    text = FENCE.sub("", page.read_text())
    titles = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", title.lower()) for title in titles]
    return {title.replace(" ", "-") for title in plain}


def main() -> int:
    """Gives the status to exit with."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\n")
    outside: set[str] = set()
    wrong = []
    for name in filter(None, listed):
        page = ROOT / name
        for target in LINK.findall(FENCE.sub("", page.read_text())):
            if "://" in target or target.startswith("mailto:"):
                outside.add(target)
                continue
            path, _, anchor = target.partition("#")
            to = (page.parent / path) if path else page
            if not to.exists():
                wrong.append(f"{name}: there is no {target}")
            elif anchor and to.suffix == ".md" and anchor not in anchors(to):
                wrong.append(f"{name}: {path or name} has no heading for #{anchor}")
    for line in wrong:
        print(f"error: {line}", file=sys.stderr)
    print(f"{len(outside)} links to other sites, not followed:")
    for target in sorted(outside):
        print(f"  {target}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
