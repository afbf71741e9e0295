"""The pages of documentation run, and their links lead somewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted((ROOT / "docs").glob("*.md"))
WITH_CODE = [page for page in PAGES if "```python" in page.read_text()]


def blocks(page: Path) -> list[str]:
    """Python blocks, each with the empty lines before it, so that errors name the page's lines."""
    text = page.read_text()
    return [
        "\n" * text[: match.start(1)].count("\n") + match[1]
        for match in re.finditer(r"```python\n(.*?)```", text, flags=re.S)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_code_of_a_page_runs_top_to_bottom(page: Path) -> None:
    names: dict[str, object] = {"__name__": page.stem}
    for block in blocks(page):
        exec(compile(block, str(page), "exec"), names)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.M)
    return {re.sub(r"[^\w\- ]", "", h).strip().lower().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", page.read_text()):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), target
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{target}#{anchor}"


def test_the_map_names_every_page() -> None:
    index = (ROOT / "docs" / "index.md").read_text()
    for page in PAGES:
        assert page.name == "index.md" or f"({page.name})" in index


def test_commands_of_the_pages_name_benchmarks_that_exist() -> None:
    source = (ROOT / "benchmarks" / "run.py").read_text()
    text = "".join(page.read_text() for page in PAGES)
    named = set(re.findall(r"benchmarks/run\.py[^\n`]*-f (\w+)", text))
    assert named
    for name in named:
        assert f'"{name}"' in source
