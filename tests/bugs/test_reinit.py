"""reinit*: the chosen layers carry fresh weights of their own initialisers, and nothing else has moved."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from itertools import combinations

import pytest
import torch
from torch import Tensor, nn

from attribug import bugs
from attribug.bugs.damage import DRAWS
from attribug.bugs.reinit import layers, reinitialise
from attribug.contracts.contrasts import Contrast
from attribug.contracts.models import Derived, Trained
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError
from attribug.models.lab import Lab

SEEDS = (0, 1, 2)
NAMES = ("reinit", "reinit_bottom", "reinit_single")
LAYERS = (("conv1", "norm1"), ("scale",), ("conv2", "norm2"), ("dense1",), ("dense2",))  # of the toy, from the input
CASES = [
    ("reinit", 1, LAYERS[4:]),
    ("reinit", 3, LAYERS[2:]),
    ("reinit", "all", LAYERS),
    ("reinit_bottom", 1, LAYERS[:1]),
    ("reinit_bottom", 3, LAYERS[:3]),
    ("reinit_bottom", "all", LAYERS),
    ("reinit_single", 1, LAYERS[:1]),
    ("reinit_single", 3, LAYERS[2:3]),
    ("reinit_single", 5, LAYERS[4:]),
]
ALL_CASES = pytest.mark.parametrize(("name", "level", "chosen"), CASES)
Chosen = tuple[tuple[str, ...], ...]


def contrast_of(task: Task, name: str, level: Level, seed: int = 0) -> Contrast:
    return bugs.get(name).function(task, level, seed, SEEDS)


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def parameters_of(chosen: Chosen, model: nn.Module) -> set[str]:
    modules = {name for layer in chosen for name in layer}
    return {name for name, _ in model.named_parameters() if name.partition(".")[0] in modules}


def differing(one: dict[str, Tensor], other: dict[str, Tensor]) -> set[str]:
    assert one.keys() == other.keys()
    return {name for name in one if not torch.equal(one[name], other[name])}


def test_layers_count_from_the_input_with_their_normalisation(toy: Task) -> None:
    assert layers(toy.recipe.network()) == [list(layer) for layer in LAYERS]


@ALL_CASES
def test_only_the_chosen_parameters_change(toy: Task, lab: Lab, name: str, level: Level, chosen: Chosen) -> None:
    contrast = contrast_of(toy, name, level)
    before = state(lab.model(contrast.references[0].model))
    assert before["norm1.num_batches_tracked"] > 0
    for side in contrast.contaminated_sides:
        after = state(lab.model(side.model))
        assert differing(before, after) == parameters_of(chosen, toy.recipe.network())
    assert not differing(before, state(lab.model(contrast.references[0].model))), "the reference itself was changed"


@ALL_CASES
def test_parameters_have_their_own_initialisers(toy: Task, lab: Lab, name: str, level: Level, chosen: Chosen) -> None:
    after = state(lab.model(contrast_of(toy, name, level).contaminated.model))
    bounds = {"conv1": 1 / 3, "conv2": 1 / math.sqrt(54), "dense1": 1 / math.sqrt(216), "dense2": 1 / 4}  # 1/√fan-in
    for layer in chosen:
        for module in layer:
            if module in bounds:
                weight, bias = after[f"{module}.weight"], after[f"{module}.bias"]
                assert max(weight.abs().max(), bias.abs().max()) <= bounds[module]
                assert weight.std() > bounds[module] / 3  # a uniform distribution's is bound/√3
                assert bias.std() > 0
            elif module == "scale":
                assert (after["scale.factor"] == 7).all()
            else:
                assert (after[f"{module}.weight"] == 1).all()
                assert (after[f"{module}.bias"] == 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_draws_differ_and_repeat_themselves(toy: Task, lab: Lab, same_models: Lab, name: str) -> None:
    contrast = contrast_of(toy, name, 1)
    assert len(contrast.contaminated_sides) == DRAWS
    draws = [state(lab.model(side.model)) for side in contrast.contaminated_sides]
    module = "dense2" if name == "reinit" else "conv1"
    assert all(not torch.equal(a[f"{module}.weight"], b[f"{module}.weight"]) for a, b in combinations(draws, 2))
    again = [state(same_models.model(side.model)) for side in contrast_of(toy, name, 1).contaminated_sides]
    assert all(not differing(a, b) for a, b in zip(draws, again, strict=True))
    other = state(lab.model(contrast_of(toy, name, 1, seed=1).contaminated.model))
    assert all(not torch.equal(draw[f"{module}.weight"], other[f"{module}.weight"]) for draw in draws)


def test_the_global_random_state_is_left_alone(toy: Task, lab: Lab) -> None:
    model = lab.model(toy.clean(0))
    torch.manual_seed(5)
    before = torch.get_rng_state()
    contrast = contrast_of(toy, "reinit", 3)
    fresh = Lab(lab.store)
    one = state(fresh.model(contrast.contaminated.model))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert not differing(one, state(Lab(lab.store).model(contrast.contaminated.model)))
    assert not differing(state(model), state(fresh.model(toy.clean(0))))


@pytest.mark.parametrize("name", NAMES)
def test_the_control_is_another_draw_retrained(toy: Task, lab: Lab, name: str) -> None:
    contrast = contrast_of(toy, name, 1)
    (control,) = (side.model for side in contrast.controls)
    assert isinstance(control, Trained)
    assert isinstance(control.start, Derived)
    assert control.start.base == toy.clean(0)
    assert control.start not in {side.model for side in contrast.contaminated_sides}
    assert control.examples == toy.examples("train")
    start, end = state(lab.model(control.start)), state(lab.model(control))
    moved = differing(start, end)
    running = {"norm1.running_mean", "norm1.running_var", "norm1.num_batches_tracked"}
    chosen = LAYERS[4:] if name == "reinit" else LAYERS[:1]
    allowed = parameters_of(chosen, toy.recipe.network()) | (running if name != "reinit" else set())
    assert moved == allowed
    frozen = set(start) - allowed
    assert not differing({k: start[k] for k in frozen}, {k: state(lab.model(toy.clean(0)))[k] for k in frozen})


def test_everything_is_retrained_for_as_long_as_the_model_was(make_toy: Callable[..., Task]) -> None:
    from dataclasses import replace

    task = make_toy("toy", classes=3)
    long = replace(task, recipe=replace(task.recipe, epochs=40))

    def epochs(level: Level) -> int:
        control = contrast_of(long, "reinit", level).controls[0].model
        assert isinstance(control, Trained)
        return control.recipe.epochs

    assert epochs("all") == 40
    assert epochs(1) < 40


def test_checks_compare_draws_control_and_model(toy: Task) -> None:
    contrast = contrast_of(toy, "reinit", 2)
    draws, model = tuple(s.model for s in contrast.contaminated_sides), toy.clean(0)
    moved, fallen, recovered = contrast.checks
    assert (moved.models, moved.minus, moved.statistic) == (draws, (model,), "total_variation")
    assert (fallen.models, fallen.minus) == ((model,), draws)
    assert (recovered.models, recovered.minus) == ((contrast.controls[0].model,), (model,))
    assert fallen.at_least is not None
    assert fallen.at_least > 0
    assert recovered.at_least is not None
    assert recovered.at_least < 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("level", [-1, 6, 1.5, math.nan, math.inf, -math.inf, "some"])
def test_levels_out_of_bounds_are_refused(toy: Task, name: str, level: Level) -> None:
    with pytest.raises(InputError, match=f"{name}: expected a level from 1 to 5") as caught:
        contrast_of(toy, name, level)
    assert "\n" not in str(caught.value)


def test_single_has_no_all(toy: Task) -> None:
    with pytest.raises(InputError, match="reinit_single: expected the number of one layer, found 'all'"):
        contrast_of(toy, "reinit_single", "all")
    assert contrast_of(toy, "reinit_single", 5)


def test_parameters_without_an_initialiser_get_their_own_entries_in_random_order() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.arange(24.0).reshape(2, 3, 4))

    choice = partial(lambda model, number: [""], number=1)
    found = []
    for seed in (0, 0, 1):
        model = Bare()
        reinitialise(model, torch.Generator().manual_seed(seed), choice=choice)
        found.append(model.weight.detach())
    assert torch.equal(found[0].flatten().sort().values, torch.arange(24.0))
    assert not torch.equal(found[0], Bare().weight)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
