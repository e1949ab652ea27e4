"""Does a plugin keep its contract? Runs every check of a piece's kind and tells, check by check, what was found."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from attribug.errors import InputError, Unsupported, near_misses, one_line
from attribug.plugins import all_registries, load_plugin
from attribug.query.settings import one_thread

ConformanceCheck = Callable[[Any], str | None]
"""Takes a registered entry; raises `Nonconformant`, or returns a note where the piece may decline and did."""


class Nonconformant(Exception):
    """A piece breaks its contract: the message is one line that says what was expected and what was found."""


@dataclass(frozen=True)
class Result:
    """What one check found out about one piece."""

    kind: str
    name: str
    check: str
    """In words: `batch equals one by one`."""
    passed: bool
    reason: str = ""
    """Why it failed; of a passed check, a note (`unsupported: …`) or nothing."""
    tried: str = ""
    """What the piece was tried on, where the check says so: networks and shapes of inputs."""

    def __str__(self) -> str:
        outcome = "ok  " if self.passed else "FAIL"
        tried = f" ({self.tried})" if self.tried and self.passed else ""
        reason = f": {self.reason}" if self.reason else ""
        return f"{self.kind} {self.name}: {outcome} {self.check}{tried}{reason}"


OnResult = Callable[[Result], None]


def expect(condition: object, reason: str) -> None:
    """Raises `Nonconformant` with the reason unless the condition holds."""
    if not condition:
        raise Nonconformant(reason)


def tries(what: str | Callable[[Any], str]) -> Callable[[ConformanceCheck], ConformanceCheck]:
    """Decorator of a check that says what it tries a piece on: words, or a function of the registered entry."""

    def enter(check: ConformanceCheck) -> ConformanceCheck:
        _TRIED[check] = what
        return check

    return enter


_TRIED: dict[ConformanceCheck, str | Callable[[Any], str]] = {}


def check_plugin(plugin: str, report: OnResult = lambda result: None) -> list[Result]:
    """All checks of everything that a plugin registers: a `.py` file, a module, or the name of a registered piece.

    An existing file wins over a name, a name over a module. `report` is told every result as it comes. Raises
    `InputError` when a plugin does not exist, does not import, collides, or registers nothing.
    """
    pieces = [(kind, name) for kind, names in sorted(pieces_of(plugin).items()) for name in names]
    with warned_once():
        return [result for kind, name in pieces for result in check(kind, name, report)]


def check(kind: str, name: str, report: OnResult = lambda result: None) -> list[Result]:
    """All checks of one registered piece; `kind`: task, bug, fix, method or metric.

    The first check asks whether the piece works at all. When it fails the others would only repeat it, so they rest.
    """
    entry = all_registries()[kind].get(name)
    results: list[Result] = []
    with one_thread():
        for each in checks_of(kind):
            results.append(run_check(each, kind, entry))
            report(results[-1])
            if not results[0].passed:
                break
    return results


def run_check(check: ConformanceCheck, kind: str, entry: Any) -> Result:
    """One check of one piece; whatever the piece raises is a failure of its own."""
    words = in_words(check)
    try:
        note = check(entry) or ""
        tried = _TRIED.get(check, "")
        return Result(kind, entry.name, words, True, note, tried if isinstance(tried, str) else tried(entry))
    except Nonconformant as error:
        reason = str(error)
    except Unsupported as error:
        reason = f"unsupported: {error}"
    except (Exception, SystemExit) as error:  # foreign code may raise anything
        reason = one_line(error)
    return Result(kind, entry.name, words, False, " ".join(reason.split()))


def in_words(check: ConformanceCheck) -> str:
    """A check's name as results tell it: `batch equals one by one`."""
    return check.__name__.removeprefix("check_").replace("_", " ")


@contextlib.contextmanager
def warned_once() -> Iterator[None]:
    """What is warned of again and again in the same words, as captum does at every call, is shown once."""
    told: set[tuple[str, type[Warning]]] = set()
    with warnings.catch_warnings():
        show = warnings.showwarning

        def show_once(
            message: Warning | str, category: type[Warning], filename: str, lineno: int,
            file: TextIO | None = None, line: str | None = None,
        ) -> None:  # fmt: skip
            if (str(message), category) not in told:
                told.add((str(message), category))
                show(message, category, filename, lineno, file, line)

        warnings.showwarning = show_once
        yield


def checks_of(kind: str) -> Sequence[ConformanceCheck]:
    """The checks of a kind of pieces; imported here, since they need torch."""
    checks: Sequence[ConformanceCheck] = importlib.import_module(
        f"attribug.conformance.{all_registries()[kind].plural}"
    ).CHECKS
    return checks


def summary(results: Sequence[Result]) -> str:
    """All results in a line."""
    failed = [result for result in results if not result.passed]
    pieces = {(result.kind, result.name) for result in results}
    counted = f"{_counted(len(results), 'check')} of {_counted(len(pieces), 'piece')}"
    if not failed:
        return f"{counted}: all pass"
    broken = ", ".join(dict.fromkeys(f"{result.kind} {result.name}" for result in failed))
    return f"{counted}: {len(failed)} failed ({broken})"


def as_json(results: Sequence[Result]) -> str:
    """All results for machines: `passed` of all, and one object a check."""
    rows = [asdict(result) for result in results]
    return json.dumps({"passed": all(result.passed for result in results), "results": rows}, indent=2)


def _counted(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def pieces_of(plugin: str) -> dict[str, list[str]]:
    """Names to check by kind, of a file, a module or a registered piece; raises `InputError` as `check_plugin` does."""
    if not plugin.endswith(".py") and not Path(plugin).is_file():
        named = {kind: [plugin] for kind, registry in all_registries().items() if plugin in registry.names()}
        if named:
            return named
        if "." not in plugin and importlib.util.find_spec(plugin) is None:
            known = [name for registry in all_registries().values() for name in registry.names()]
            raise InputError(
                f"plugin {plugin}: expected a file, a module or a registered name, found none"
                f"{near_misses(plugin, known)}"
            )
    return load_plugin(plugin)
