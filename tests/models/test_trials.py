"""What is measured of mended models, against plain loops."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from attribug.contracts.contrasts import Trial
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Given
from attribug.models import trials
from attribug.models.given import digest_of
from attribug.models.lab import Lab
from attribug.models.memory import Memory

COUNT, CLASSES, PIXELS = 90, 3, 4


def network() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(2 * PIXELS**2, 8), nn.Tanh(), nn.Linear(8, CLASSES)).eval()


def examples_of(*, groups: bool = True, annotated: bool = True, few: bool = False) -> Data:
    stream = torch.Generator().manual_seed(1)
    inputs = torch.randn(COUNT, 2, PIXELS, PIXELS, generator=stream)
    labels = torch.randint(CLASSES, (COUNT,), generator=stream)
    annotations = torch.rand(inputs.shape, generator=stream) < 0.2
    kinds = torch.arange(COUNT) % 4
    if few:
        kinds[:3] = 99  # too few to say anything
    return Data(
        inputs, labels, torch.arange(COUNT),
        annotations=annotations if annotated else None, groups=kinds if groups else None,
    )  # fmt: skip


def measured(**of: bool) -> tuple[dict[str, float], nn.Module, Data]:
    model = network()
    trial = Trial("none", "", Given(network, digest_of(model)), {"biased": Examples.of(examples_of, **of)}, "annotated")
    return trials.figures(trial, Lab(Memory())), model, examples_of(**of)


def test_accuracies_are_those_of_a_loop() -> None:
    found, model, data = measured()
    right = [int(model(x[None]).argmax()) == int(y) for x, y in zip(data.inputs, data.labels, strict=True)]
    assert found["biased accuracy"] == pytest.approx(sum(right) / COUNT)
    assert data.groups is not None
    of_group: dict[int, list[bool]] = {}
    for group, is_right in zip(data.groups.tolist(), right, strict=True):
        of_group.setdefault(group, []).append(is_right)
    assert found["biased worst_group"] == pytest.approx(min(sum(each) / len(each) for each in of_group.values()))


def test_no_group_is_the_worst_where_one_has_too_few_examples() -> None:
    """Those that conflict with the shortcut are the few."""
    assert "biased worst_group" not in measured(few=True)[0]


def log_probabilities(model: nn.Module, x: Tensor) -> Tensor:
    return model(x[None]).log_softmax(1).sum()


def test_the_share_on_the_shortcut_is_that_of_gradients_one_by_one() -> None:
    found, model, data = measured()
    assert data.annotations is not None
    shares = []
    for x, annotated in zip(data.inputs, data.annotations, strict=True):
        gradient = torch.autograd.functional.jacobian(partial(log_probabilities, model), x).abs()
        shares.append(float(gradient[:, annotated.any(0)].sum() / gradient.sum()))
    assert found["biased mask_share"] == pytest.approx(sum(shares) / COUNT, abs=1e-6)
    assert found["biased area"] == pytest.approx(float(data.annotations.any(1).double().mean()))


def test_what_a_set_cannot_tell_is_not_there() -> None:
    found, _, _ = measured(groups=False, annotated=False)
    assert set(found) == {"biased accuracy"}


def test_a_model_without_gradients_has_no_share() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(2 * PIXELS**2, CLASSES))
    nn.init.zeros_(flat[1].weight)  # type: ignore[arg-type]
    data = examples_of()
    assert data.truth("annotated") is not None
    assert math.isnan(trials.mask_share(flat, data.inputs, data.truth("annotated")))  # type: ignore[arg-type]


def test_a_models_parameters_are_left_without_gradients() -> None:
    model, data = network(), examples_of()
    trials.mask_share(model, data.inputs, data.truth("annotated"))  # type: ignore[arg-type]
    assert all(parameter.grad is None for parameter in model.parameters())
