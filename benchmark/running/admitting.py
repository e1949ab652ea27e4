"""What a plan cannot do with a user's own model and data, and why: told before anything is trained or explained."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import torch

from attribug import artefacts, keys
from attribug.errors import Unsupported, one_line
from attribug.maps import threads
from attribug.maps.attribution import attributions
from attribug.models.lab import logits
from attribug.plans.plan import LIBRARIES
from attribug.query.query import Query
from attribug.storage.files import read_json, write_json
from attribug.storage.folders import cache_folder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from attribug.contracts.pieces import Method
    from attribug.models.brought import Brought
    from attribug.plans.plan import Plan

FEW = {"samples": 2, "steps": 2}
"""Of what methods do often: enough to see whether they do it at all."""
RAISES = "raises "
TRIED = 2
"""Examples."""


def impossible(plan: Plan) -> list[str]:
    """Bugs that cannot befall this model or these data, a line each."""
    reasons = {(cell.bug, cell.reason): None for cell in plan.cells if cell.verdict == "unsupported"}
    return [f"not possible: {bug}: {reason}" for bug, reason in reasons]


def declined(plan: Plan, brought: Brought) -> list[str]:
    """Which methods explain the model, and why others do not: tried on two examples, once for a model."""
    chosen = [(method, _few(method, options)) for method, options in plan.methods]
    named = [(method.name, method.function, method.needs, options) for method, options in chosen]
    parts = (brought.given.spec, brought.given.examples, named, artefacts.code("kept map"))
    path = cache_folder() / "given" / f"{keys.digest('declined', *parts, keys.versions(*LIBRARIES))}.json"
    stored = read_json(path)
    reasons: dict[str, str]
    if isinstance(stored, dict) and all(isinstance(reason, str) for reason in stored.values()):
        reasons = stored
    else:
        with threads.one():
            reasons = _reasons(chosen, brought)
        if not any(reason.startswith(RAISES) for reason in reasons.values()):  # which may pass
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, reasons)
    admitted = [method.name for method, _ in chosen if method.name not in reasons and not method.is_yardstick]
    lines = [f"explained by: {', '.join(admitted) or 'none of these methods'}"]
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(name)
    return lines + [f"declines: {', '.join(names)}: {reason}" for reason, names in by_reason.items()]


def _few(method: Method, options: Mapping[str, Any]) -> dict[str, Any]:
    known = inspect.signature(method.function).parameters
    return {**options, **{name: few for name, few in FEW.items() if name in known}}


def _reasons(chosen: list[tuple[Method, dict[str, Any]]], brought: Brought) -> dict[str, str]:
    model = brought.given.spec.source().eval()
    data = brought.given.looked.load().select(torch.arange(TRIED))
    targets = logits(model, data.inputs).argmax(1)
    reasons: dict[str, str] = {}
    for method, options in chosen:
        query = Query(model, data.inputs, targets, ids=data.ids, seed=0)
        try:
            attributions(method, query, options)
        except Unsupported as error:
            reasons[method.name] = str(error)
        except Exception as error:  # it will again in the run, and be told of there
            reasons[method.name] = RAISES + one_line(error)
    return reasons
