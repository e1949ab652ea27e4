"""What this machine gives to a process: memory so far, cores."""

from __future__ import annotations

import os
import sys

from attribug.errors import InputError


def default_workers() -> int:
    """The cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


KILOBYTES_PER_RSS_UNIT = 1 if sys.platform != "darwin" else 1 / 1024


def peak_megabytes() -> float:
    """Largest resident size of this process so far."""
    import resource  # of POSIX

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * KILOBYTES_PER_RSS_UNIT / 1024


def expect_posix() -> None:
    """Raises `InputError` where workers cannot run: they need process groups, signals and a measure of their memory."""
    if os.name != "posix":
        others = "explain, measure, compare, report and list work here"
        raise InputError(f"run: expected a POSIX system such as Linux or macOS, found {sys.platform}; {others}")
