"""Whom each shipped bug compares with whom: its seeds, references and controls."""

from __future__ import annotations

import pytest

from attribug import bugs
from attribug.contracts.contrasts import Contrast
from attribug.contracts.pieces import Bug
from attribug.contracts.tasks import Level, Task

SEEDS = (0, 1, 2)


def described(bug: Bug, task: Task, level: Level) -> list[Contrast]:
    return [bug.function(task, level, seed, SEEDS) for seed in SEEDS]


def seeds_of(contrast: Contrast) -> dict[str, object]:
    sets = {name: [side.seed for side in sides] for name, sides in contrast.control_sets.items()}
    return {"contaminated": contrast.contaminated.seed, "references": [s.seed for s in contrast.references], **sets}


@pytest.mark.parametrize(("name", "level"), [("spurious_background", 1.0), ("ood", "textures")])
def test_references_differ_from_the_contaminated_seed(name: str, level: Level, digits: Task) -> None:
    for seed, contrast in zip(SEEDS, described(bugs.get(name), digits, level), strict=True):
        others = [s for s in SEEDS if s != seed]
        assert seeds_of(contrast) == {"contaminated": seed, "references": others, "clean": list(SEEDS)}
        assert [side.model for side in contrast.controls] == [digits.clean(s) for s in SEEDS]
        assert [side.model for side in contrast.references] == [digits.clean(s) for s in others]


def test_flips_have_seeds_of_their_own_and_each_other_as_controls(digits: Task) -> None:
    contrasts = described(bugs.get("label_flips"), digits, 0.1)
    for seed, contrast in zip(SEEDS, contrasts, strict=True):
        others, clean = [len(SEEDS) + s for s in SEEDS if s != seed], list(SEEDS)
        expected = {"contaminated": len(SEEDS) + seed, "references": clean, "other_flips": others, "clean": clean}
        assert seeds_of(contrast) == expected
        assert [s.model for s in contrast.references] == [digits.clean(s) for s in SEEDS]
        mine = {c.contaminated.model for c in contrasts} - {contrast.contaminated.model}
        assert {side.model for side in contrast.controls} == mine


@pytest.mark.parametrize("name", ["reinit", "reinit_bottom", "reinit_single"])
def test_damaged_models_are_compared_with_themselves(name: str, digits: Task) -> None:
    for seed, contrast in zip(SEEDS, described(bugs.get(name), digits, 1), strict=True):
        assert seeds_of(contrast) == {"contaminated": seed, "references": [seed], "retrained": [seed]}
        assert contrast.references[0].model == digits.clean(seed)
        assert {side.seed for side in contrast.draws} == {seed}
