"""The map of the house in docs/house.md is true: every file it names exists, every folder and layer is on it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MAP = (ROOT / "docs" / "house.md").read_text()
ELSEWHERE = ("bugs", "methods", "metrics", "results")
MOST_ON_THE_GROUND = 16


def place(name: str) -> Path:
    """Where a path of the map lies: pieces and results beside the package, all else in it."""
    return ROOT / name if name.partition("/")[0] in ELSEWHERE else ROOT / "benchmark" / name


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`([a-z_]+(?:/[a-z_]*)?(?:\.py)?)`", MAP)) - {"attribug"}))
def test_what_the_map_names_exists(name: str) -> None:
    if "/" in name or name.endswith(".py"):
        assert place(name.rstrip("/")).exists() or name == "benchmark/"


def test_every_folder_is_on_the_map() -> None:
    folders = [path.parent for path in (ROOT / "benchmark").glob("*/__init__.py")]
    for folder in (*folders, *(ROOT / name for name in ELSEWHERE)):
        assert f"`{folder.name}/`" in MAP


def test_the_maps_layers_are_the_contracts() -> None:
    """In the same order as those that import-linter holds."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    held = [re.findall(r"attribug\.(\w+)", layer) for layer in layers]
    rows = re.findall(r"(?m)^\| ((?:`[a-z_]+(?:/|\.py)` ?)+)\|", MAP)
    shown = [name.rstrip("/").removesuffix(".py") for row in rows for name in re.findall(r"`([^`]+)`", row)]
    order = {name: number for number, names in enumerate(held) for name in names}
    assert set(shown) == set(order)
    assert [order[name] for name in shown] == sorted(order[name] for name in shown)


def test_the_ground_floor_is_small() -> None:
    assert len(list((ROOT / "benchmark").glob("*.py"))) <= MOST_ON_THE_GROUND
