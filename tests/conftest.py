"""Fixtures shared by all tests."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

PLUGINS = Path(__file__).parent / "plugins"
Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """No test reads or fills the user's cache."""
    os.environ["ATTRIBUG_CACHE"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture
def attribug(tmp_path: Path) -> Command:
    """Runs the command line in an empty directory, with the tiny plugin where `tiny=True`."""

    def command(*arguments: str, tiny: bool = False, module: bool = False) -> "subprocess.CompletedProcess[str]":
        start = [sys.executable, "-m", "attribug"] if module else [str(Path(sys.executable).with_name("attribug"))]
        extra = ["--plugin", str(PLUGINS / "tiny.py")] if tiny else []
        return subprocess.run(
            [*start, *arguments, *extra], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
        )

    return command
