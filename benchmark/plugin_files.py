"""Plugin files as modules: their names, by which other processes that a plugin starts find them as well."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

PACKAGE = "attribug.plugins"
FILES = "ATTRIBUG_PLUGIN_FILES"
"""Environment variable: the plugin files of this process and of those it comes from, as JSON, path by module."""
MODULE = re.compile(rf"{re.escape(PACKAGE)}\.(\w+)_[0-9a-f]{{8}}")

PICKLED = re.compile(rb"attribug\.plugins\.([^\x00-\x20]+?)_[0-9a-f]{8}")


def module_of(path: Path) -> str:
    """A name that no other file has and that hides no module: the file's own, and a digest of where it lies."""
    name, place = re.sub(r"\W", "_", path.stem), hashlib.sha256(os.fsencode(path.resolve())).hexdigest()
    return f"{PACKAGE}.{name}_{place[:8]}"


def is_plugin_file(module: str) -> bool:
    """Whether a module is a plugin file, by its name."""
    return MODULE.fullmatch(module) is not None


def written_beside(function: Any, file: str | None) -> bool:
    """Whether a function is written in a file of the folder that a file lies in; one without code of its own is not."""
    place = getattr(getattr(function, "__code__", None), "co_filename", "")
    return file is not None and Path(place).parent == Path(file).parent


def portable(module: str) -> str:
    """A module's name without the digest of its path that a plugin file's name carries: for content keys."""
    return MODULE.sub(r"attribug_plugin_\1", module)


def portable_pickle(pickled: bytes) -> bytes:
    """A pickle likewise: classes stand in it by their module's name."""
    return PICKLED.sub(rb"attribug_plugin_\1", pickled)


def announce(path: Path) -> str:
    """Makes a file importable here and in processes that are started from now on; returns its module's name."""
    module = module_of(path)
    os.environ[FILES] = json.dumps(_announced() | {module: os.path.abspath(path)})
    return module


def _announced() -> dict[str, str]:
    announced: dict[str, str] = json.loads(os.environ.get(FILES) or "{}")
    return announced


class Finder:
    """Finds announced files for `import`."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """A plugin file's spec; None for other modules, and for files that are no Python sources."""
        file = _announced().get(name) if is_plugin_file(name) else None
        return None if file is None else importlib.util.spec_from_file_location(name, file)


def pickled_for_others(value: object, modules: Iterable[str]) -> bytes:
    """A value for other processes, pickled: what these modules define by name where they can be imported there, else
    with its code."""
    import cloudpickle

    found = {sys.modules.get(module) for module in modules}
    unknown = [module for module in found if module is not None and not _on_path(module.__name__)]
    for module in unknown:
        cloudpickle.register_pickle_by_value(module)
    try:
        pickled: bytes = cloudpickle.dumps(value)
        return pickled
    finally:
        for module in unknown:
            cloudpickle.unregister_pickle_by_value(module)


def _on_path(module: str) -> bool:
    """Whether another process with this one's `sys.path` finds a module; cloudpickle sees to `__main__` itself. On
    another machine a plugin file may lie elsewhere."""
    if module == "__main__" or is_plugin_file(module):
        return module == "__main__"
    return PathFinder.find_spec(module.partition(".")[0], sys.path) is not None
