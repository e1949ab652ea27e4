"""A plugin's promises as tests of its own repository: every check of `attribug check` is a test of pytest.

    from attribug import testing

    @testing.conforms("my_method.py", expected_failures={"other shapes": "written for squares"})
    def test_my_method(check):
        check()

pytest is no dependency of attribug; it is imported when `conforms` is called.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attribug.conformance.checks import (
    ConformanceCheck,
    Result,
    checks_of,
    in_words,
    pieces_of,
    run_check,
    warned_once,
)
from attribug.errors import InputError, near_misses
from attribug.plugins import all_registries
from attribug.query.settings import one_thread
from attribug.registry import Entry

__all__ = ["Case", "conforms"]

Plugin = str | Path | Entry | Callable[..., Any]


@dataclass(frozen=True)
class Case:
    """One check of one registered piece, which a test calls."""

    kind: str
    name: str
    check: str
    """In words, as `attribug check` prints it: `batch equals one by one`."""

    def __call__(self) -> Result:
        """Runs the check. The test fails with its reason in one line, and is skipped where the piece does not work at
        all: then its kind's first check fails, and tells why."""
        import pytest

        first, *_ = checks_of(self.kind)
        if self.check != in_words(first) and not _works(self.kind, self.name):
            pytest.skip(f"{self.kind} {self.name}: {in_words(first)} fails, so the other checks rest")
        (check,) = (each for each in checks_of(self.kind) if in_words(each) == self.check)
        result = _run(self.kind, self.name, check)
        if not result.passed:
            pytest.fail(str(result), pytrace=False)
        return result


def conforms(*plugins: Plugin, expected_failures: Mapping[str, str] | None = None) -> Callable[[Any], Any]:
    """Parametrises a test's argument `check` with every check of everything that plugins register, one test each.

    plugins: paths of `.py` files (from the test's folder, else from the working directory), modules, registered names
    (those of entry points are), entries as `attribug.methods.get` gives them, or functions that were registered.

    expected_failures: reasons by the check's name, `seed decides`, or by the piece's and the check's,
    `my_method: seed decides`. These tests are expected to fail, strictly: one that passes fails.

    What does not exist, a check that no piece has and a missing reason end pytest's collection with one line.
    """
    import pytest

    frame = inspect.currentframe()
    beside = frame.f_back.f_globals.get("__file__") if frame is not None and frame.f_back is not None else None
    try:
        pieces = [piece for plugin in plugins for piece in _pieces(plugin, beside)]
        reasons = _reasons(list(dict.fromkeys(pieces)), expected_failures or {})
    except InputError as error:
        raise pytest.Collector.CollectError(f"conforms: {error}") from error
    return pytest.mark.parametrize("check", [
        pytest.param(
            case, id=f"{case.kind}-{case.name}-{case.check.replace(' ', '_')}",
            marks=[pytest.mark.xfail(reason=reason, strict=True, raises=pytest.fail.Exception)] if reason else [],
        )
        for case, reason in reasons.items()
    ])  # fmt: skip


def _pieces(plugin: Plugin, beside: str | None) -> list[tuple[str, str]]:
    """Kind and name of all that a plugin registers; `beside`: the file of the test."""
    if isinstance(plugin, Entry) or (callable(plugin) and not isinstance(plugin, (str, Path))):
        return [_registered(plugin)]
    path = Path(beside or "").parent / plugin
    found = str(path) if path.suffix == ".py" and path.is_file() else str(plugin)
    return [(kind, name) for kind, names in sorted(pieces_of(found).items()) for name in names]


def _registered(piece: Any) -> tuple[str, str]:
    for kind, registry in all_registries().items():
        for name in registry.registered():
            if piece in (registry.get(name), registry.get(name).function):
                return kind, name
    told = getattr(piece, "name", None) or getattr(piece, "__name__", type(piece).__name__)
    raise InputError(f"{told}: expected a registered piece, found one that is not")


def _reasons(pieces: list[tuple[str, str]], expected: Mapping[str, str]) -> dict[Case, str]:
    """Every case with the reason why it is expected to fail, else an empty one."""
    if not pieces:
        raise InputError("plugins: expected at least one, found none")
    cases = [Case(kind, name, in_words(check)) for kind, name in pieces for check in checks_of(kind)]
    known = {told for case in cases for told in _told(case)}
    for check, reason in expected.items():
        if check not in known:
            hint = near_misses(check, known if ": " in check else {case.check for case in cases})
            raise InputError(f"expected_failures: unknown check {check!r}{hint}")
        if not isinstance(reason, str) or not reason.strip():
            raise InputError(f"expected_failures: {check!r}: expected a reason, found {reason!r}")
    return {case: next((expected[told] for told in _told(case) if told in expected), "") for case in cases}


def _told(case: Case) -> tuple[str, str]:
    """How a case may be named, the exact way first."""
    return f"{case.name}: {case.check}", case.check


def _works(kind: str, name: str) -> bool:
    """Whether a piece passes its kind's first check."""
    if (kind, name) not in _WORKING:
        _run(kind, name, checks_of(kind)[0])
    return _WORKING[kind, name]


_WORKING: dict[tuple[str, str], bool] = {}
"""What was found by the first checks of this process."""


def _run(kind: str, name: str, check: ConformanceCheck) -> Result:
    with one_thread(), warned_once():
        result = run_check(check, kind, all_registries()[kind].get(name))
    if check is checks_of(kind)[0]:
        _WORKING[kind, name] = result.passed
    return result
