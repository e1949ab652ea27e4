"""What goes wrong, in one line: exceptions for wrong input, refused storage and declining pieces, and how any other is
told."""

from __future__ import annotations

import difflib
import re
import warnings
from collections.abc import Iterable
from pathlib import Path


class Unsupported(Exception):
    """A method, bug or metric declines: the message is the reason, reported as `unsupported: reason`."""


LONGEST_REASON = 500  # characters of an exception's message


class InputError(ValueError):
    """The user's input is wrong: one line that says what was expected and what was found."""


class StorageError(InputError):
    """The system refuses to store a file: a full or read-only disk, no permission, a folder that is gone."""

    def __init__(self, path: object, found: str) -> None:
        """`found`: what the system says."""
        super().__init__(path, found)
        self.found = found

    def __str__(self) -> str:
        path, found = self.args
        return f"{path}: cannot be written: {found}; the same command goes on from here once it can"


class Shadowed(UserWarning):
    """A name stands for two things: one line that says which of them is taken, and how to name the other."""


class Missing(InputError):
    """What is asked for was not done yet, or by other code: the line names the command that does it."""


def warn_of_shadow(name: str, other: str, named: str) -> None:
    """Warns (`Shadowed`) that what lies at a path hides something that is called the same.

    `other`: what that is; `named`: how else it can be named.
    """
    found = "folder" if Path(name).is_dir() else "file"
    warnings.warn(f"{name}: the {found} here is taken, not {other} of that name; for that one: {named}", Shadowed, 2)


def near_misses(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` when a known name is close, else the known names; starts with its own punctuation."""
    options = sorted(set(known))
    close = difflib.get_close_matches(name, options, n=2, cutoff=0.6)
    if close:
        return "; did you mean " + " or ".join(repr(option) for option in close) + "?"
    return f"; expected one of: {', '.join(options)}" if options else ""


def one_line(error: BaseException) -> str:
    """An exception in one line: its type and first line, without paths and addresses."""
    try:
        first = (str(error).strip().splitlines() or [""])[0]
    except Exception:  # foreign code again
        first = "its message cannot be told"
    if len(first) > LONGEST_REASON:
        first = f"{first[:LONGEST_REASON]}…"
    first = "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in first)
    first = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", first)
    first = re.sub(r"(?<![\w.])(?<!:/)/(?:[\w.+-]+/)+([\w.+-]+)", r"\1", first)  # not the path of a web address
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
