"""Every fix: its contract, what it declines, and whether it mends a shortcut in vectors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from attribug import bugs, fixes
from attribug.conformance.checks import check
from attribug.conformance.tasks import small
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, Trained
from attribug.errors import InputError, Unsupported
from attribug.fixes import counterexamples, find_another
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.running import calibration
from doubles.shortcuts import described, mended, shortcut

NAMES = fixes.names()
GAINS: dict[tuple[str, float], float] = {
    ("clean_data", 1.0): 0.3, ("counterexamples", 1.0): 0.3, ("rrr", 1.0): 0.3, ("dfr", 1.0): 0.2,
    ("p_clarc", 1.0): 0.15, ("rr_clarc", 1.0): 0.2, ("find_another", 1.0): 0.1, ("group_dro", 0.95): 0.02,
}  # fmt: skip
"""Least rise of accuracy on decorrelated vectors, by fix and share of the examples whose shortcut tells the label."""
NOTHING = ("group_dro", "jtt")
"""Fixes that rest on exceptions to the shortcut, of which a share of 1 has none."""


@pytest.mark.parametrize("name", NAMES)
def test_it_keeps_its_contract(name: str) -> None:
    failed = [str(result) for result in check("fix", name) if not result.passed]
    assert not failed


@pytest.mark.parametrize(("name", "share"), GAINS)
def test_it_mends_the_shortcut(name: str, share: float, lab: Lab, right: Callable[..., float]) -> None:
    task, contrast = described(share)
    test = contrast.tests["decorrelated"]
    before, after = (right(each, test) for each in (contrast.contaminated.model, mended(name, task, contrast)))
    assert after >= before + GAINS[name, share]


@pytest.mark.parametrize("name", NOTHING)
def test_without_exceptions_it_mends_nothing(name: str, right: Callable[..., float]) -> None:
    task, contrast = described(1.0)
    test = contrast.tests["decorrelated"]
    before, after = (right(each, test) for each in (contrast.contaminated.model, mended(name, task, contrast)))
    assert abs(after - before) < 0.1


@pytest.mark.parametrize("name", sorted(set(NAMES) - {"none", "clean_data"}))
def test_without_a_shortcut_it_declines(name: str) -> None:
    task, contrast = described()
    with pytest.raises(Unsupported, match="expected a bug that teaches a shortcut"):
        mended(name, task, replace(contrast, tests={}))
    changed = replace(contrast.contaminated, model=Derived(contrast.contaminated.model, nothing, 0))
    with pytest.raises(Unsupported, match="expected a model that training contaminated"):
        mended(name, task, replace(contrast, contaminated=changed))


def nothing(model: object, stream: object) -> None:
    """No change."""


@pytest.mark.parametrize("name", NAMES)
def test_it_never_reads_test_examples(name: str, lab: Lab) -> None:
    task, contrast = described(0.9, epochs=1)
    tests = {each: Examples(examples.key, unread) for each, examples in contrast.tests.items()}
    sides = replace(contrast.contaminated, examples=tests["biased"])
    hidden: Contrast = replace(contrast, contaminated=sides, tests=tests, references=(), controls=contrast.controls)
    lab.model(mended(name, task, hidden))


def unread() -> Any:
    raise AssertionError("a test example was read")


@pytest.mark.parametrize("name", NAMES)
def test_it_describes_models_of_images(name: str) -> None:
    task = small("digits")
    contrast = bugs.get("spurious_background").function(task, 1.0, 0, (0, 1))
    assert isinstance(mended(name, task, contrast), Trained | Derived)


def test_counterexamples_keep_what_matters_and_draw_the_rest() -> None:
    base = Examples.of(shortcut, split="train", share=1.0)
    data = base.load()
    for values in counterexamples.VALUES:
        found = counterexamples.redrawn(base=base, copies=2, values=values, seed=0)
        assert found.annotations is not None
        assert torch.equal(found.labels, data.labels.repeat(2))
        kept = ~found.annotations
        assert torch.equal(found.inputs[kept], data.inputs.repeat(2, 1)[kept])
        first, second = found.inputs[: len(data)], found.inputs[len(data) :]
        assert not torch.equal(first, second), "copies are drawn independently"
        told = (found.inputs[:, -1] > 1.5) == (found.labels == 1)
        assert abs(float(told.double().mean()) - 0.5) < 0.1, "the shortcut tells nothing any more"
    drawn = counterexamples.redrawn(base=base, copies=1, values="examples", seed=0).inputs[:, -1]
    assert set(drawn.tolist()) <= set(data.inputs[:, -1].tolist())
    other = counterexamples.redrawn(base=base, copies=1, values="examples", seed=1).inputs[:, -1]
    assert not torch.equal(drawn, other), "another seed, another draw"
    uniform = counterexamples.redrawn(base=base, copies=1, values="uniform", seed=0).inputs
    assert data.inputs.min() <= uniform.min() < uniform.max() <= data.inputs.max()
    with pytest.raises(InputError, match="did you mean 'uniform'"):
        mended("counterexamples", *described(), values="uniforms")


def test_another_explanation_keeps_a_tenth_apart_where_nothing_is_held_out() -> None:
    data = shortcut(split="train", share=1.0)
    most, rest = find_another.apart(data, 3)
    assert (len(most), len(rest)) == (360, 40)
    assert sorted([*most.ids.tolist(), *rest.ids.tolist()]) == data.ids.tolist()
    task, contrast = described()
    without = replace(contrast, held_out={})
    assert mended("find_another", task, contrast).key != mended("find_another", task, without).key


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [([1.0, 0.95, 0.9, 0.7], 2), ([1.0, 0.87, 0.88, 0.88], 0), ([1.0, 0.88, 0.88, 0.88], 3), ([0.9, 0.79, 0.81], 0)],
)
def test_explanations_end_where_accuracy_falls(
    accuracies: list[float], expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two classes: of 1.0, an eighth may be lost; of .9, a tenth."""
    models: list[nn.Module] = []
    marked: list[int] = []

    def noting(model: nn.Module, data: Data, *others: Any, **options: Any) -> nn.Module:
        assert data.annotations is None or data.annotations.dtype == torch.bool
        marked.append(0 if data.annotations is None else int(data.annotations.sum()))
        for parameter in model.parameters():
            nn.init.normal_(parameter, generator=torch.Generator().manual_seed(len(models)))
        models.append(model.eval())
        return model

    def scripted(model: nn.Module, data: Data) -> float:
        return accuracies[next(place for place, each in enumerate(models) if each is model)]

    monkeypatch.setattr(find_another, "train", noting)
    monkeypatch.setattr(find_another, "accuracy", scripted)
    task, contrast = described(1.0)
    data, looked = contrast.contaminated.examples.load(), contrast.held_out["biased"]
    found = find_another.repeatedly(
        task.recipe.network(), replace(data, annotations=None), task.recipe, 0, rounds=len(accuracies) - 1, weight=1.0,
        decay=0.0, looked=looked,
    )  # fmt: skip
    assert found is models[expected]
    used = torch.zeros_like(data.inputs, dtype=torch.bool)
    for number, model in enumerate(models[:-1]):
        if number < len(marked) - 1:
            used |= find_another.rested_on(model, data.inputs)
            assert marked[number + 1] == int(used.sum()), "what earlier models rested on stays masked"


def test_clean_data_is_the_control_of_the_same_seed() -> None:
    task, contrast = described()
    assert mended("clean_data", task, contrast) == contrast.controls[0].model
    with pytest.raises(Unsupported, match="expected a control of seed 0"):
        mended("clean_data", task, replace(contrast, controls=contrast.controls[1:]))


def test_what_cannot_be_measured_cancels_no_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("a mended model that cannot be derived")

    monkeypatch.setattr(calibration, "figures", broken)
    monkeypatch.setattr(calibration, "cost_place", str)
    bench = object.__new__(calibration._Bench)
    bench.rates, bench.lab = {}, Lab(Memory())
    cell: Any = "here"
    trial: Any = None
    bench.time_trial(cell, trial)
    assert bench.rates["try here"] >= 0
