"""What README and docs say of this project's tables, suites and files is what these say."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from attribug.plugins import all_registries
from attribug.suites import suite

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = sorted(path.name for path in (ROOT / "docs").glob("*.md"))
MOST_LINES = 130
REFERENCE = "reference.md"
"""Of the site alone: elsewhere it is a list of names."""
LINK = re.compile(r"\]\(([^)\s]+)\)")

sys.path.insert(0, str(ROOT / "docs"))

import pieces  # noqa: E402
import readme_matrix  # noqa: E402


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("page", [page for page in DOCS if page != REFERENCE])
def test_every_page_is_reached_from_the_readme(page: str) -> None:
    assert f"docs/{page}" in {link.partition("#")[0] for link in LINK.findall(README)}


@pytest.mark.parametrize("page", ["README.md", *(f"docs/{name}" for name in DOCS)])
def test_links_lead_to_what_there_is(page: str) -> None:
    assert lost((ROOT / page).read_text(), (ROOT / page).parent) == []


def lost(text: str, folder: Path) -> list[str]:
    """Links of a page that lead nowhere: to no file, or to no heading of one."""
    return [link for link in LINK.findall(text) if ":" not in link and not found(link, text, folder)]


def found(link: str, text: str, folder: Path) -> bool:
    """Whether a link of a page leads to a file, and to a heading where it names one."""
    place, _, anchor = link.partition("#")
    target = folder / place
    if place and not target.exists():
        return False
    return not anchor or anchor in headings(target.read_text() if place else text)


def headings(text: str) -> set[str]:
    """Headings as links name them."""
    told = re.findall(r"(?m)^#+ (.+)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in told}


def test_a_lost_link_is_noticed(tmp_path: Path) -> None:
    (tmp_path / "there.md").write_text("# There, at last\n")
    text = "[a](there.md) [b](there.md#there-at-last) [c](gone.md) [d](there.md#gone) [e](https://example.org/gone)"
    assert lost(text, tmp_path) == ["gone.md", "there.md#gone"]


def test_the_matrix_is_that_of_the_reference() -> None:
    assert readme_matrix.filled(README) == README


def test_another_matrix_is_noticed() -> None:
    assert "● 0.99 " in README
    assert readme_matrix.filled(README.replace("● 0.99 ", "○ 0.49 ", 1)) == README


def test_a_page_without_a_place_for_the_matrix_is_refused() -> None:
    with pytest.raises(SystemExit, match="expected one place"):
        readme_matrix.filled("# attribug\n")


@pytest.mark.parametrize("name", suite.shipped())
def test_suites_cost_what_their_files_say(name: str) -> None:
    (told,) = re.findall(rf"(?m)^\| `{name}` \|.*\| ([^|]+) \|$", (ROOT / "docs" / "running.md").read_text())
    cost = suite.load(name).cost
    assert told.endswith("`--dry-run`") if cost is None else float(told) == cost.cold_minutes


@pytest.mark.parametrize("page", pieces.PAGES)
def test_pieces_say_what_they_are(page: str) -> None:
    kind, text = pieces.PAGES[page], (ROOT / "docs" / page).read_text()
    assert pieces.filled(text, kind) == text
    name = next(iter(all_registries()[kind].declared()))
    lines = text.splitlines(keepends=True)
    without = "".join(line for line in lines if f'<a id="{name}">' not in line)
    assert without != text
    assert pieces.filled(without, kind) == text
    with pytest.raises(SystemExit, match="expected one place"):
        pieces.filled("# nothing\n", kind)
