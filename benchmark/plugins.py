"""Loading plugins: files and modules that register pieces of their own.

Files are imported as if they lay in this module (`attribug.plugins.<name>_<digest of its path>`). A process that a
plugin starts imports this module when it meets one of their functions, and finds them by the environment.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribug import opened, plugin_files, sources
from attribug.errors import InputError, one_line
from attribug.registry import REGISTRIES

if TYPE_CHECKING:
    from attribug.registry import Registry

__path__: list[str] = []  # Python looks for modules below one only if it has a path
if plugin_files.Finder not in sys.meta_path:
    sys.meta_path.append(plugin_files.Finder)


def load_plugin(plugin: str) -> dict[str, list[str]]:
    """Imports a plugin, a `.py` file or a module, and returns the names it registered by kind.

    Raises `InputError` when it does not exist, does not import, collides, or registers nothing.
    """
    path = Path(plugin)
    is_file = plugin.endswith(".py") or path.is_file()
    module = plugin_files.module_of(path) if is_file else plugin
    if module in _LOADED:
        return _LOADED[module]
    before = {kind: set(registry.registered()) for kind, registry in all_registries().items()}
    imported = not is_file and module in sys.modules
    try:
        if is_file:
            _announce(path, module)
        with opened.watching():
            importlib.import_module(module)
        sources.expect_files(module)
    except (Exception, SystemExit) as error:
        for kind, registry in all_registries().items():  # so that it can be loaded again when it is mended
            registry.withdraw(module, keep=before[kind])
        if not imported:
            sys.modules.pop(module, None)
        found = str(error) if isinstance(error, InputError) else f"does not import: {one_line(error)}"
        raise InputError(f"plugin {plugin}: {found}") from error
    new = {kind: _of_module(registry, before[kind], module) for kind, registry in all_registries().items()}
    if not any(new.values()):
        raise InputError(f"plugin {plugin}: expected at least one @register, found none")
    _LOADED[module] = {kind: names for kind, names in new.items() if names}
    return _LOADED[module]


_LOADED: dict[str, dict[str, list[str]]] = {}


def all_registries() -> dict[str, Registry[Any]]:
    """Every registry by kind: task, bug, fix, panel, method, metric."""
    for name in ("tasks", "bugs", "fixes", "panels", "methods", "metrics"):
        importlib.import_module(f"attribug.{name}")
    return REGISTRIES


def _of_module(registry: Registry[Any], before: set[str], module: str) -> list[str]:
    mine = [name for name in registry.registered() if registry.get(name).function.__module__ == module]
    shipped = set(registry.declared())
    return sorted({*mine, *(name for name in registry.registered() if name not in before and name not in shipped)})


def _announce(path: Path, module: str) -> None:
    """Lets Python find a plugin file, and run it anew where an earlier loading was taken back."""
    if not path.is_file():
        raise InputError("expected a Python file, found none")
    plugin_files.announce(path)
    if importlib.util.find_spec(module) is None:
        raise InputError("expected a Python file (.py)")
    if not any(_of_module(registry, {*registry.registered()}, module) for registry in all_registries().values()):
        sys.modules.pop(module, None)
