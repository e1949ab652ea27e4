"""The site of the docs refuses what leads nowhere; the whole is built in CI, with every notebook executed."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

pytest.importorskip("mkdocs", reason="the extra docs is not installed")
pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.py"))
LONGEST = 80  # lines of a notebook


def settings() -> dict[str, object]:
    """What mkdocs.yml says, but for what builds the reference and runs the notebooks."""
    read = yaml.safe_load((ROOT / "mkdocs.yml").read_text())
    return {
        name: read[name] for name in ("site_name", "theme", "validation", "use_directory_urls", "markdown_extensions")
    }


def built(folder: Path, **pages: str) -> subprocess.CompletedProcess[str]:
    """A site of README and these pages, of which all but `unlisted` are in its navigation."""
    (folder / "docs").mkdir(parents=True)
    (folder / "README.md").write_text("# Start\n\n[one](docs/one.md)\n")
    for name, text in pages.items():
        (folder / "docs" / f"{name}.md").write_text(text)
    (folder / "docs" / "site_hooks.py").write_text((ROOT / "docs" / "site_hooks.py").read_text())
    nav = ["index.md", *(f"{name}.md" for name in pages if name != "unlisted")]
    told = settings() | {"nav": nav, "hooks": ["docs/site_hooks.py"], "plugins": [], "exclude_docs": "*.py\n"}
    (folder / "mkdocs.yml").write_text(yaml.safe_dump(told))
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder / "site")]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


def test_what_leads_somewhere_is_built(tmp_path: Path) -> None:
    answer = built(
        tmp_path, one="# One\n\n[two](two.md#there), [a file](../pyproject.toml)\n", two="# Two\n\n## There\n"
    )
    assert answer.returncode == 0, answer.stderr
    assert 'href="one.html"' in (tmp_path / "site" / "index.html").read_text()


@pytest.mark.parametrize(
    "pages",
    [{"one": "[gone](gone.md)"}, {"one": "# One\n\n[gone](#gone)"}, {"one": "[](two.md#gone)", "two": "# Two"},
     {"two": "# README links to one"}, {"one": "# One", "unlisted": "# In no navigation"}],
    ids=["page", "heading", "heading of another page", "README", "navigation"],
)  # fmt: skip
def test_what_leads_nowhere_is_refused(pages: dict[str, str], tmp_path: Path) -> None:
    answer = built(tmp_path, **pages)
    assert answer.returncode != 0
    assert "WARNING" in answer.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_in_the_navigation(path: Path) -> None:
    text = path.read_text()
    ast.parse(text)
    assert len(text.splitlines()) <= LONGEST
    assert text.count("# %% [markdown]") >= 2
    assert f"notebooks/{path.name}" in (ROOT / "mkdocs.yml").read_text()


def test_every_journey_has_a_notebook() -> None:
    assert {path.stem for path in NOTEBOOKS} == {
        "run_and_read", "add_a_method", "gate_in_ci", "own_model", "find_fix_verify", "held_against_masks",
    }  # fmt: skip
