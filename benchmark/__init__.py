"""attribug: which explanation method reveals which bug in a machine-learning model?

`run` the benchmark (`dry_run`: what that would take), `replicate` it under further seeds, `load` a finished run, write
its `report`, `compare` tables, `explain` inputs with a registered method, `show` and `measure` maps; `fold_study` and
`randomisation_study` judge methods over many models; `testing` holds plugins to their contracts under pytest. Plugins
import what they need from `contracts`, `networks` and the packages of pieces. Everything is imported when it is first
used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attribug import bugs, contracts, fixes, methods, metrics, networks, panels, tasks, testing
    from attribug.api import Replicated, Run, dry_run, replicate, run
    from attribug.errors import InputError, Unsupported
    from attribug.maps.explain import explain
    from attribug.metrics import measure
    from attribug.reports.comparing import compare, compare_methods
    from attribug.reports.loading import load, report
    from attribug.reports.showing import show
    from attribug.studies.randomisation import randomisation_study
    from attribug.studies.stability import fold_study
    from attribug.tables.finished import StoredRun

__version__ = version("attribug")
__all__ = [
    "InputError", "Replicated", "Run", "StoredRun", "Unsupported", "__version__", "bugs", "compare",
    "compare_methods", "contracts",
    "dry_run", "explain", "fixes", "fold_study", "load", "measure", "methods", "metrics", "networks", "panels",
    "randomisation_study", "replicate", "report", "run", "show", "tasks", "testing",
]  # fmt: skip

_MODULES = ("bugs", "contracts", "fixes", "methods", "metrics", "networks", "panels", "tasks", "testing")

_HOMES = {
    "InputError": "attribug.errors",
    "Replicated": "attribug.api",
    "Run": "attribug.api",
    "StoredRun": "attribug.tables.finished",
    "Unsupported": "attribug.errors",
    "compare": "attribug.reports.comparing",
    "compare_methods": "attribug.reports.comparing",
    "dry_run": "attribug.api",
    "explain": "attribug.maps.explain",
    "fold_study": "attribug.studies.stability",
    "load": "attribug.reports.loading",
    "measure": "attribug.metrics",
    "randomisation_study": "attribug.studies.randomisation",
    "replicate": "attribug.api",
    "report": "attribug.reports.loading",
    "run": "attribug.api",
    "show": "attribug.reports.showing",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"attribug.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'attribug' has no attribute {name!r}")


def __dir__() -> list[str]:
    """The public names, of which none is imported for this."""
    return sorted(__all__)
