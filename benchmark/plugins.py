"""Loading plugins: files and modules that register pieces of their own."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribug.errors import InputError, one_line
from attribug.keys import digest
from attribug.registry import REGISTRIES

if TYPE_CHECKING:
    from attribug.registry import Registry


def load_plugin(plugin: str) -> dict[str, list[str]]:
    """Imports a plugin, a `.py` file or a module, and returns the names it registered by kind.

    Raises `InputError` when it does not exist, does not import, collides, or registers nothing.
    """
    path = Path(plugin)
    is_file = plugin.endswith(".py") or path.is_file()
    module = f"attribug_plugin_{path.stem}_{digest(str(path.resolve()))[:8]}" if is_file else plugin
    if module in _LOADED:
        return _LOADED[module]
    before = {kind: set(registry.registered()) for kind, registry in all_registries().items()}
    try:
        if is_file:
            _import_file(path, module)
        else:
            importlib.import_module(module)
    except (Exception, SystemExit) as error:
        for kind, registry in all_registries().items():  # so that it can be loaded again when it is mended
            registry.withdraw(module, keep=before[kind])
        found = str(error) if isinstance(error, InputError) else f"does not import: {one_line(error)}"
        raise InputError(f"plugin {plugin}: {found}") from error
    new = {kind: _of_module(registry, before[kind], module) for kind, registry in all_registries().items()}
    if not any(new.values()):
        raise InputError(f"plugin {plugin}: expected at least one @register, found none")
    _LOADED[module] = {kind: names for kind, names in new.items() if names}
    return _LOADED[module]


_LOADED: dict[str, dict[str, list[str]]] = {}


def all_registries() -> dict[str, Registry[Any]]:
    """Every registry by kind: task, bug, fix, method, metric."""
    for name in ("tasks", "bugs", "fixes", "methods", "metrics"):
        importlib.import_module(f"attribug.{name}")
    return REGISTRIES


def _of_module(registry: Registry[Any], before: set[str], module: str) -> list[str]:
    mine = [name for name in registry.registered() if registry.get(name).function.__module__ == module]
    shipped = set(registry.declared())
    return sorted({*mine, *(name for name in registry.registered() if name not in before and name not in shipped)})


def _import_file(path: Path, module: str) -> None:
    if not path.is_file():
        raise InputError("expected a Python file, found none")
    spec = importlib.util.spec_from_file_location(module, path)
    if spec is None or spec.loader is None:
        raise InputError("expected a Python file (.py)")
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[module] = loaded  # before it runs: its functions' sources are found by module name
    try:
        spec.loader.exec_module(loaded)
    except BaseException:
        del sys.modules[module]
        raise
