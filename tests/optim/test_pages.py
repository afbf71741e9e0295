"""The pages on papers name commands and links that exist, and every page is in the list."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs" / "papers").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_commands_exist(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!http)([^)#]+)[^)]*\)", text):
        assert (page.parent / target).exists(), target
    for file in re.findall(r"(?:examples|tests|benchmarks)/[\w/]+\.py", text):
        assert (ROOT / file).exists(), file
    for question in re.findall(r"benchmarks/run\.py -f (\w+)", text):
        assert (ROOT / "benchmarks" / f"{question}.py").exists(), question
    if page.stem != "index":
        assert page.name in (page.parent / "index.md").read_text()
        for part in ("**Equations.**", "**Built.**", "**Deviations.**"):
            assert part in text, part
        assert re.search(r"^    python ", text, flags=re.M)
        assert re.search(r"^\| .* \|$", text, flags=re.M), "a table of numbers"
