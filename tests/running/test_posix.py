"""Runs need POSIX, and say so in a line; explaining, measuring, comparing, reporting and listing do not."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from attribug.errors import InputError
from attribug.running.resources import expect_posix

ELSEWHERE = """
import sys
for name in ("resource", "fcntl", "termios", "pwd", "grp", "posix_ipc"):
    sys.modules[name] = None
import torch
import attribug
from attribug.reports import pages
from attribug.terminal import listing

model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
maps = attribug.explain("gradient", model, torch.rand(2, 3, 2, 2), torch.tensor([0, 1]))
print(attribug.measure("spearman@sum", maps, maps).tolist())
print(attribug.compare("smoke", "smoke").ok)
print(bool(listing.listed("methods")), bool(pages.write_report))
"""


def test_what_needs_no_workers_imports_nothing_of_posix() -> None:
    answer = subprocess.run([sys.executable, "-c", ELSEWHERE], capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert answer.stdout.split("\n")[:3] == ["[1.0, 1.0]", "True", "True True"]


def test_a_run_elsewhere_is_refused_in_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    expect_posix()
    monkeypatch.setattr(os, "name", "nt")
    with pytest.raises(InputError, match="expected a POSIX system such as Linux or macOS, found"):
        expect_posix()
