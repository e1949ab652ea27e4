"""Files that code reads while it is loaded: weights, a setting, a table. They decide as its source does.

Python tells of every file that it opens. A file counts for all modules on the way from the one that is being loaded to
where it is opened: so does one that a function of another module reads for it, and keeps for whoever asks next. Not
seen are files that a library opens without Python; those may be declared.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import hashlib
import os
import sys
import sysconfig
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from attribug.errors import InputError
from attribug.plugin_files import is_plugin_file

DECLARED = "ATTRIBUG_FILES"
"""Name by which a module declares files that it reads, relative to its own."""
CODE_SUFFIXES = (".py", ".pyc", ".pyi", ".so")
NO_CONTENT = ("/dev/", "/proc/", "/sys/")
INSTALLED = {"site-packages", "dist-packages"}
ABSENT = "absent"

_read: dict[str, set[str]] = {}
"""Absolute paths by module."""
_watching: list[None] = []
"""One entry for every context of `watching`."""


@contextlib.contextmanager
def watching() -> Iterator[None]:
    """Notes what modules open until the context is left."""
    _listen()
    _watching.append(None)
    try:
        yield
    finally:
        _watching.pop()


def noted() -> dict[str, tuple[str, ...]]:
    """What was noted so far, to be handed to another process: paths by module."""
    return {module: tuple(sorted(paths)) for module, paths in _read.items()}


def adopt(paths: Mapping[str, Iterable[str]]) -> None:
    """Takes what another process has noted in the place of what this one has: both come to the same content keys,
    whatever either had imported before it watched."""
    _read.clear()
    _read.update({module: set(theirs) for module, theirs in paths.items()})


def read_by(module: str) -> set[Path]:
    """What a module read while it was loaded."""
    return {Path(file) for file in _read.get(module, set())}


def declared(tree: ast.Module, name: str) -> tuple[str, ...]:
    """The files that a module of that file name declares in its source. Raises `InputError` where they are not told."""
    for statement in reversed(tree.body):
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == DECLARED for target in targets):
            try:
                files = ast.literal_eval(getattr(statement, "value", None) or ast.Constant(None))
            except ValueError:
                files = None
            if not isinstance(files, tuple | list) or not all(isinstance(file, str) for file in files):
                raise InputError(f"{DECLARED} of {name}: expected a tuple of paths, written out")
            return tuple(files)
    return ()


def there(source: Path, names: Iterable[str]) -> set[Path]:
    """The files that a source declares. Raises `InputError` where one is not there."""
    for name in names:
        if not (source.parent / name).is_file():
            raise InputError(f"{DECLARED} of {source.name}: expected a file {name!r} beside it, found none")
    return {Path(os.path.abspath(source.parent / name)) for name in names}


def contents(files: Iterable[Path], source: Path | None) -> list[tuple[str, str]]:
    """Name and digest of the content of every file.

    The names are relative to the folder of a source, and those alone elsewhere, so that keys tell nothing of places.
    """
    folder = Path() if source is None else Path(os.path.abspath(source)).parent
    told = sorted((_label(file, folder), file) for file in files if _counts(file, folder))
    return [(label, digest) for label, digest in ((label, _digest(file)) for label, file in told) if digest]


def forget() -> None:
    """Reads files anew."""
    _digest.cache_clear()


@functools.cache
def _digest(file: Path) -> str:
    """Empty of what is no file."""
    if file.exists() and not file.is_file():
        return ""
    try:
        with file.open("rb") as content:
            return hashlib.file_digest(content, "sha256").hexdigest()
    except OSError:
        return ABSENT


def _label(file: Path, folder: Path) -> str:
    return file.relative_to(folder).as_posix() if file.is_relative_to(folder) else file.name


def _counts(file: Path, folder: Path) -> bool:
    """Files for a moment have another name in every process."""
    return file.is_relative_to(folder) or not file.is_relative_to(tempfile.gettempdir())


@functools.cache
def _listen() -> None:
    """A hook cannot be taken away again, so there is one."""
    sys.addaudithook(_hear)


def _hear(event: str, arguments: tuple[Any, ...]) -> None:
    if _watching and event == "open":
        with contextlib.suppress(OSError, TypeError, ValueError):  # whoever opens a file gets the exception, not this
            _note(*arguments)


def _note(path: Any, _: Any, flags: int) -> None:
    if not isinstance(path, str | bytes | os.PathLike):  # a file that is open already
        return
    file = os.path.abspath(os.fsdecode(path))
    if flags & os.O_ACCMODE == os.O_WRONLY or flags & os.O_TRUNC:
        return
    if not file.endswith(CODE_SUFFIXES) and not file.startswith(NO_CONTENT) and not _is_installed(file):
        for module in _readers():
            _read.setdefault(module, set()).add(file)


def _readers() -> set[str]:
    """Modules on the way from the one that is being loaded to here, but for libraries and attribug; none where a
    library is being loaded, which reads for itself."""
    found: set[str] = set()
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__") or ""
        if not _is_library(module, frame.f_globals.get("__file__") or frame.f_code.co_filename):
            found.add(module)
        if frame.f_code.co_name == "<module>":
            break
        frame = frame.f_back  # type: ignore[assignment]
    return found


@functools.cache
def _is_library(module: str, file: str) -> bool:
    if is_plugin_file(module):
        return False
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or top == "attribug" or _is_installed(file)


def _is_installed(file: str) -> bool:
    """Whether a file belongs to the interpreter or to an installed package."""
    return file.startswith(_standard_folders()) or not INSTALLED.isdisjoint(file.split(os.sep)) or file in sys.path


@functools.cache
def _standard_folders() -> tuple[str, ...]:
    return tuple(f"{os.path.abspath(sysconfig.get_path(name))}{os.sep}" for name in ("stdlib", "platstdlib"))
