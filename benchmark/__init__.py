"""attribug: which explanation method reveals which bug in a machine-learning model?

`run` the benchmark, `replicate` it under further seeds, `compare` its tables, `explain` inputs with a registered
method, `show` and `measure` maps; `fold_study` and `randomisation_study` judge methods over many models. Everything is
imported when it is first used, so that the command line answers at once.
"""

from __future__ import annotations

import importlib
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from attribug import bugs, fixes, methods, metrics, panels, tasks
    from attribug.api import Replicated, Run, replicate, run
    from attribug.errors import InputError, Unsupported
    from attribug.maps.explain import explain
    from attribug.metrics import measure
    from attribug.reports.comparing import compare
    from attribug.reports.showing import show
    from attribug.studies.randomisation import randomisation_study
    from attribug.studies.stability import fold_study

__version__ = version("attribug")
__all__ = [
    "InputError", "Replicated", "Run", "Unsupported", "__version__", "bugs", "compare", "explain", "fixes",
    "fold_study", "measure", "methods", "metrics", "panels", "randomisation_study", "replicate", "run", "show", "tasks",
]  # fmt: skip

_HOMES = {
    "InputError": "attribug.errors",
    "Replicated": "attribug.api",
    "Run": "attribug.api",
    "Unsupported": "attribug.errors",
    "compare": "attribug.reports.comparing",
    "explain": "attribug.maps.explain",
    "fold_study": "attribug.studies.stability",
    "measure": "attribug.metrics",
    "randomisation_study": "attribug.studies.randomisation",
    "replicate": "attribug.api",
    "run": "attribug.api",
    "show": "attribug.reports.showing",
}


def __getattr__(name: str) -> Any:
    if name in {"bugs", "fixes", "methods", "metrics", "panels", "tasks"}:
        return importlib.import_module(f"attribug.{name}")
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'attribug' has no attribute {name!r}")
