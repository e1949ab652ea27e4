"""What every fix must keep: checks of a registered fix on contrasts of the shipped bugs, on a small task."""

from __future__ import annotations

from collections.abc import Iterator

from attribug import bugs
from attribug.conformance.bugs import SEEDS, described, task_of
from attribug.conformance.checks import ConformanceCheck, Nonconformant, expect
from attribug.contracts.contrasts import Contrast
from attribug.contracts.models import Derived, Given, ModelSpec, Trained
from attribug.contracts.pieces import Bug, Fix
from attribug.contracts.tasks import Level
from attribug.errors import Unsupported
from attribug.streams import global_states_restored, seed_globally

BUG = "spurious_background"  # the one that most fixes are made for
MODELS = Trained | Derived | Given


def check_mended_models_are_described(fix: Fix) -> None:
    """A `ModelSpec` for the contaminated model of every seed; nothing is trained for it."""
    for number, (_, model) in enumerate(_mended(fix)):
        found = f"seed {SEEDS[number]}: expected a Trained, Derived or Given model, found {type(model).__name__}"
        expect(isinstance(model, MODELS), found)


def check_descriptions_repeat_themselves(fix: Fix) -> None:
    """Described twice, whatever the global seeds: the same models."""
    once, again = (_keys(fix, seed) for seed in (1, 2))
    expect(once == again, "described twice, found other models; use the seed and stream_seed")


def check_every_model_is_mended_by_itself(fix: Fix) -> None:
    """Contaminated models of different seeds become different models."""
    models = [model.key for _, model in _mended(fix)]
    expect(len(set(models)) == len(models), "two seeds share a mended model")


CHECKS: list[ConformanceCheck] = [
    check_mended_models_are_described, check_descriptions_repeat_themselves, check_every_model_is_mended_by_itself,
]  # fmt: skip


def _keys(fix: Fix, seed: int) -> list[str]:
    with global_states_restored():
        seed_globally(seed)
        return [model.key for _, model in _mended(fix)]


def _mended(fix: Fix) -> Iterator[tuple[Contrast, ModelSpec]]:
    """What the fix makes of a bug's contaminated models, one a seed."""
    bug: Bug = bugs.get(BUG)
    level: Level = bug.levels[-1]
    for seed, contrast in zip(SEEDS, described(bug, level), strict=True):
        try:
            yield contrast, fix.function(task_of(bug), contrast, level, seed, SEEDS)
        except Unsupported as reason:
            raise Nonconformant(f"declines {BUG}, which it must be able to mend: {reason}") from reason
