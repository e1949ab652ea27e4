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
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the command line in this process, which is quicker: for input that is refused before anything starts."""
    from attribug.__main__ import main

    def command(*arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["attribug", *arguments])
        with pytest.raises(SystemExit) as stopped:
            main()
        out, err = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, int(stopped.value.code or 0), out, err)

    return command


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of the tiny suite with one worker: read it, leave it as it is."""
    folder = tmp_path_factory.mktemp("tiny")
    command = [sys.executable, "-m", "attribug", "run", str(PLUGINS / "tiny.yaml"), "--workers", "1", "--out", "run"]
    answer = subprocess.run(
        [*command, "--plugin", str(PLUGINS / "tiny.py")], cwd=folder, capture_output=True, text=True, check=False
    )
    (folder / "stdout.txt").write_text(answer.stdout)
    assert answer.returncode == 0, answer.stderr
    return folder / "run"


@pytest.fixture
def attribug(tmp_path: Path) -> Command:
    """Runs the command line in an empty directory, with the tiny plugin where `tiny=True`."""

    def command(
        *arguments: str, tiny: bool = False, module: bool = False, environment: dict[str, str] | None = None
    ) -> "subprocess.CompletedProcess[str]":
        start = [sys.executable, "-m", "attribug"] if module else [str(Path(sys.executable).with_name("attribug"))]
        extra = ["--plugin", str(PLUGINS / "tiny.py")] if tiny else []
        return subprocess.run(
            [*start, *arguments, *extra], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False,
            env=os.environ | (environment or {}),
        )  # fmt: skip

    return command
