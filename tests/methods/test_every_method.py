"""What every registered method must keep: the package's checks, and broken methods that each check refuses."""

import inspect
import random
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attribug
from attribug import methods
from attribug.conformance.checks import check, run_check
from attribug.conformance.methods import (  # fmt: skip
    CHECKS,
    check_a_logit_is_explained,
    check_batch_equals_one_by_one,
    check_eval_mode_is_explained,
    check_everything_is_left_alone,
    check_failing_models_are_left_alone,
    check_level_zero_says_one_half,
    check_no_graph_is_kept,
    check_order_of_requests,
    check_other_shapes,
    check_runs_on_a_plain_network,
    check_says_something,
    check_seed_decides,
    check_shape_type_device,
    check_target_is_respected,
    check_vectors_and_sequences,
    explained,
    few,
)
from attribug.conformance.specimens import TARGETS, Failing, OnPurpose, awkward, changes, images, keep, network, state

NAMES = methods.names()
BROKEN = "test_broken"
DECLINING = {  # patterns decline sequences alone
    "edges", "grad_cam", "grad_cam_plus_plus", "grad_cam_signed", "guided_grad_cam", "hires_cam", "layer_cam",
    "occlusion", "pattern_attribution", "pattern_net", "rise",
}  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("check", CHECKS)
def test_method(check: Callable[..., str | None], name: str) -> None:
    result = run_check(check, "method", methods.get(name))
    assert result.passed, str(result)


def test_order_of_requests_does_not_matter() -> None:
    """Alone, in a list of all methods and in the reversed list: the same bits."""
    model, inputs = network(), images()
    small = {name: value for each in NAMES for name, value in few(methods.get(each)).items()}
    given: dict[str, Any] = {"train_inputs": images(), **small}
    lists = [attribug.explain(order, model, inputs, TARGETS, **given) for order in (NAMES, NAMES[::-1])]
    for name in NAMES:
        alone = explained(methods.get(name), model, inputs, train_inputs=images())
        assert torch.equal(lists[0][name], alone)
        assert torch.equal(lists[1][name], alone)


def test_shipped_methods_name_their_paper_and_explain_themselves() -> None:
    for name in NAMES:
        assert methods.get(name).paper
        assert methods.get(name).function.__doc__


# --- broken methods: each check refuses what it is there for, with its reason ---


@pytest.fixture
def register():
    """Registers a broken method, whose name is free again afterwards."""

    def enter(function: Callable[..., Tensor], **facts: Any) -> Any:
        methods.register(BROKEN, **facts)(function)
        return methods.get(BROKEN)

    yield enter
    methods._registry._entries.pop(BROKEN, None)


CALLS = [0]
KEPT: list[Any] = []


def turns_at_every_call(query):
    CALLS[0] += 1
    return query.gradient() * (-1) ** CALLS[0]


def counts_its_calls(query):
    CALLS[0] += 1
    return query.gradient() * CALLS[0]


def knows_what_ran_before(query):
    return query.gradient() * len(query.memo)


def spoils_what_others_get(query):
    gradient = query.gradient()
    query.memo[next(iter(query.memo))][0].mul_(2)
    return gradient


def softmax_gradient(query):
    leaf = query.inputs.detach().requires_grad_(True)
    chosen = query.model(leaf).log_softmax(1).gather(1, query.targets[:, None]).sum()
    return torch.autograd.grad(chosen, leaf)[0]


def own_noise(query):
    draws = [torch.randn(query.inputs.shape[1:], generator=g) for g in query.generators("own")]
    return torch.stack(draws).to(query.inputs)


def in_training_mode(query):
    query.model.train()
    return query.input_gradients()


def drops_out(query):
    for module in query.model.modules():
        module.train(isinstance(module, nn.Dropout))
    return query.input_gradients()


def knows_the_users_mode(query):
    frozen = sum(not parameter.requires_grad for parameter in query.model.parameters())
    return query.gradient() * (1 + frozen)


def writes_on_the_model(query):
    query.model.note = "seen"
    return query.gradient()


def writes_after_the_first_pass(query):
    gradient = query.gradient()
    query.model.note = "seen"
    query.model(query.inputs)
    del query.model.note
    return gradient


def hooks_a_weight(query):
    if not isinstance(query.model, Failing):
        next(p for p in query.model.parameters() if p.requires_grad).register_hook(lambda gradient: gradient)
    return query.gradient()


def leaves_a_hook(query):
    next(iter(query.model.modules())).register_forward_hook(keep)
    return query.gradient()


def leaves_a_hook_when_the_model_fails(query):
    handle = query.model.register_forward_hook(keep)
    gradient = query.input_gradients()
    handle.remove()
    return gradient


def leaves_training_mode(query):
    gradient = query.gradient()
    query.model.train()
    return gradient


def freezes_weights(query):
    query.model.requires_grad_(False)
    return query.gradient()


def seeds_everybody(query):
    torch.manual_seed(0)
    return query.gradient() + torch.rand(())


def seeds_numpy(query):
    np.random.seed(0)
    return query.gradient() + np.random.rand()


def seeds_python(query):
    random.seed(0)
    return query.gradient() + random.random()


def moves_a_weight(query):
    next(query.model.parameters()).data.add_(1)
    return query.gradient()


def writes_into_the_inputs(query):
    query.inputs.data.mul_(2)
    return query.gradient()


def spoils_the_training_examples(query):
    query.train.inputs.zero_()
    return query.gradient()


def keeps_its_logits(query):
    leaf = query.inputs.detach().requires_grad_(True)
    logits = query.target_logits(leaf, query.targets)
    KEPT.append(logits)
    return query.backward(logits, leaf)


def keeps_an_activation(query):
    handle = query.model.relu3.register_forward_hook(lambda module, args, output: KEPT.append(output))
    try:
        return query.input_gradients()
    finally:
        handle.remove()


def carries_its_graph(query):
    leaf = query.inputs.detach().requires_grad_(True)
    return leaf * query.gradient()


def needs_even_images(query):
    halves = query.gradient().unflatten(-1, (2, query.inputs.shape[-1] // 2))
    return halves.flatten(-2)


def reads_another_target(query):
    return query.input_gradient(query.inputs, torch.zeros_like(query.targets))


def nan_for_the_last(query):
    maps = query.gradient()
    maps[-1] = torch.nan
    return maps


def numbers_its_rows(query):
    return query.gradient() * torch.arange(len(query.inputs))[:, None, None, None]


def sums_all_but_images(query):
    gradient = query.gradient()
    return gradient if gradient.ndim == 4 else gradient / 0


def centres_all_but_images(query):
    gradient = query.gradient()
    return gradient if gradient.ndim == 4 else gradient - gradient.mean(0)


def spoils_sequences(query):
    if query.inputs.ndim == 3:
        query.train.inputs.mul_(2)
    return query.gradient()


def declines(query):
    raise attribug.Unsupported("explains nothing")


def global_noise(draw: Callable[[], float]) -> Callable[[Any], Tensor]:
    return lambda query: query.gradient() + draw()


NOISE = {"stochastic": True}
FIXED = "seed 0 twice gave maps that differ by up to .*: randomness must come from query.generators"
BROKEN_METHODS = [
    (check_runs_on_a_plain_network, declines, {}, "plain BVD-CNN, found unsupported: explains nothing"),
    (check_runs_on_a_plain_network, lambda query: 1 / 0, {}, "ZeroDivisionError: division by zero"),
    (check_runs_on_a_plain_network, lambda query: "map", {}, "MethodFault: expected a tensor, found str"),
    (check_runs_on_a_plain_network, lambda query, *, strength: query.gradient(), {}, "TypeError: .*strength"),
    (check_shape_type_device, lambda query: query.gradient().sum(1), {}, r"\(3, 3, 16, 16\), found \(3, 16, 16\)"),
    (check_shape_type_device, lambda query: query.gradient().double(), {}, "float32 on cpu, found torch.float64"),
    (check_shape_type_device, lambda query: query.gradient().float(), {}, "float64 on cpu, found torch.float32"),
    (check_shape_type_device, nan_for_the_last, {}, "expected finite maps, found 768 of 2304 values"),
    (check_shape_type_device, lambda query: query.gradient(), {"output": "probabilities"}, r"probabilities \(3, K\)"),
    (check_says_something, lambda query: torch.zeros_like(query.inputs), {}, "found 3 of 3 constant"),
    (check_seed_decides, global_noise(lambda: torch.rand(1).item()), {}, FIXED),
    (check_seed_decides, global_noise(lambda: torch.rand(1).item()), NOISE, FIXED),
    (check_seed_decides, global_noise(np.random.rand), NOISE, FIXED),
    (check_seed_decides, global_noise(random.random), NOISE, FIXED),
    (check_seed_decides, counts_its_calls, {}, FIXED),
    (check_seed_decides, lambda query: query.gradient(), NOISE, "declared stochastic, but seeds 0 and 1 gave the same"),
    (check_seed_decides, own_noise, {}, "seeds 0 and 1 gave maps that differ by up to .*: declare stochastic=True"),
    (check_batch_equals_one_by_one, lambda query: query.gradient() - query.gradient().mean(), {}, "example 0 alone"),
    (check_batch_equals_one_by_one, numbers_its_rows, {}, "example 1 alone and in a batch of 3"),
    (check_order_of_requests, counts_its_calls, {}, "alone and after passes"),
    (check_order_of_requests, knows_what_ran_before, {}, "alone and after passes that other methods share"),
    (check_order_of_requests, spoils_what_others_get, {}, "the gradient alone and after this method"),
    (check_target_is_respected, lambda query: query.gradient(), {"uses_target": False}, "example 0 has another map"),
    (check_target_is_respected, reads_another_target, {}, "one map for two targets: use query.targets"),
    (check_target_is_respected, own_noise, NOISE, "one map for two targets"),
    (check_a_logit_is_explained, softmax_gradient, {}, "explain a logit, not a softmax"),
    (check_eval_mode_is_explained, in_training_mode, {}, "MethodFault: changed the model's weights or buffers"),
    (check_eval_mode_is_explained, drops_out, {}, "in training mode under no_grad and in eval mode"),
    (check_eval_mode_is_explained, knows_the_users_mode, {}, "with and without frozen weights"),
    (check_everything_is_left_alone, writes_on_the_model, {}, "not as before: module at the top"),
    (check_everything_is_left_alone, hooks_a_weight, {}, r"not as before: weight or buffer 0\.bias"),
    (check_everything_is_left_alone, spoils_the_training_examples, {}, "not as before: training examples"),
    (check_everything_is_left_alone, leaves_a_hook, {}, "not as before: module at the top"),
    (check_everything_is_left_alone, leaves_training_mode, {}, "not as before: module at the top, module 0"),
    (check_everything_is_left_alone, freezes_weights, {}, "not as before: weight or buffer"),
    (check_everything_is_left_alone, seeds_everybody, {}, "not as before: torch's global random state"),
    (check_everything_is_left_alone, seeds_numpy, {}, "not as before: NumPy's global random state"),
    (check_everything_is_left_alone, seeds_python, {}, "not as before: Python's global random state"),
    (check_everything_is_left_alone, moves_a_weight, {}, "MethodFault: changed the model's weights or buffers"),
    (check_everything_is_left_alone, writes_into_the_inputs, {}, "MethodFault: changed its inputs"),
    (check_failing_models_are_left_alone, writes_after_the_first_pass, {}, r"after \d pass\(es\): module at the top"),
    (check_failing_models_are_left_alone, leaves_a_hook_when_the_model_fails, {}, r"after \d pass\(es\): module"),
    (check_no_graph_is_kept, keeps_its_logits, {}, r"1 pass\(es\) left their autograd graph in memory"),
    (check_no_graph_is_kept, keeps_an_activation, {}, r"1 pass\(es\) left their autograd graph in memory"),
    (check_no_graph_is_kept, carries_its_graph, {}, "return them detached"),
    (check_other_shapes, needs_even_images, {}, r"inputs \(3, 3, 17, 17\): .*RuntimeError: unflatten"),
    (
        check_other_shapes,
        lambda query: query.gradient().mean((2, 3), keepdim=True) / (query.inputs.shape[1] - 1),
        {},
        r"inputs \(3, 1, 16, 16\): .*found \(3, 1, 1, 1\)",
    ),
    (check_vectors_and_sequences, sums_all_but_images, {}, r"inputs \(3, 7\): expected finite maps, found \d+ of 21"),
    (check_vectors_and_sequences, centres_all_but_images, {}, r"inputs \(3, 7\): expected equal maps example 0"),
    (check_vectors_and_sequences, spoils_sequences, {}, r"inputs \(3, 2, 12\): not as before: training examples"),
    (check_level_zero_says_one_half, turns_at_every_call, {}, r"expected an effect of exactly \.5, found"),
]  # fmt: skip


@pytest.mark.parametrize(("check", "function", "facts", "reason"), BROKEN_METHODS)
def test_broken_method_is_refused(check, function, facts, reason, register) -> None:
    CALLS[0] = 0
    result = run_check(check, "method", register(function, **facts))
    KEPT.clear()
    assert not result.passed
    assert re.search(reason, result.reason), result.reason
    assert "\n" not in result.reason


@pytest.mark.parametrize("name", NAMES)
def test_shipped_methods_explain_vectors_and_sequences_or_say_why_not(name) -> None:
    note = check_vectors_and_sequences(methods.get(name))
    assert "expected maps or Unsupported" not in note
    assert (note == "") == (name not in DECLINING)


def test_a_method_may_break_down_on_what_are_no_images(register) -> None:
    result = run_check(check_vectors_and_sequences, "method", register(lambda query: query.gradient().mean((2, 3))))
    assert result.passed
    assert "inputs (3, 7): expected maps or Unsupported, found IndexError" in result.reason


def test_every_check_refuses_something() -> None:
    assert {check for check, *_ in BROKEN_METHODS} == set(CHECKS)


def test_models_do_fail_in_mid_run() -> None:
    for after in range(3):
        with pytest.raises(OnPurpose):
            explained(methods.get("smoothgrad"), Failing(awkward(), after), images())


def leaves_a_hook_where_it_works(query):
    """Declines batch normalisation, as rules made for some layers do."""
    if any(isinstance(module, nn.BatchNorm2d) for module in query.model.modules()):
        raise attribug.Unsupported("no batch normalisation")
    return leaves_a_hook_when_the_model_fails(query)


def drops_out_where_it_works(query):
    if any(isinstance(module, nn.BatchNorm2d) for module in query.model.modules()):
        raise attribug.Unsupported("no batch normalisation")
    return drops_out(query)


def test_to_decline_one_model_hides_nothing(register) -> None:
    method = register(leaves_a_hook_where_it_works)
    result = run_check(check_failing_models_are_left_alone, "method", method)
    assert not result.passed
    assert "when the model raises after" in result.reason
    methods._registry.forget(BROKEN)
    result = run_check(check_eval_mode_is_explained, "method", register(drops_out_where_it_works))
    assert not result.passed
    assert "in training mode under no_grad" in result.reason


def rectified_only(query):
    """Refuses what has no module named conv1; leaves a hook there, which nobody may ask for."""
    if not hasattr(query.model, "conv1"):
        query.model.register_forward_hook(keep)
        raise attribug.Unsupported("needs a first convolution by name")
    return query.gradient()


@pytest.mark.parametrize("check", CHECKS)
def test_checks_refuse_only_what_is_broken(check, register) -> None:
    method = register(lambda query: query.gradient().abs())
    result = run_check(check, "method", method)
    assert result.passed, str(result)
    assert result.reason == ""


def test_a_method_may_decline_some_networks(register) -> None:
    method = register(rectified_only)
    for check_ in (check_eval_mode_is_explained, check_everything_is_left_alone, check_other_shapes):
        result = run_check(check_, "method", method)
        assert result.passed, str(result)
        assert result.reason == "unsupported: needs a first convolution by name"


def test_a_method_that_declines_everything_fails_in_one_line(register) -> None:
    register(declines)
    (result,) = check("method", BROKEN)
    assert (result.check, result.passed) == ("runs on a plain network", False)


def test_the_passes_of_one_check_are_split(register) -> None:
    """Few samples still need more than one pass of 64 rows."""
    sizes = few(register(lambda query, *, samples=50, steps=9: query.gradient()))
    assert all(len(images()) * number > inspect.signature(attribug.query.Query).parameters["rows"].default
               for number in sizes.values())  # fmt: skip
    assert set(sizes) == {"samples", "steps"}


def add_to_a_weight(model, tensors):
    with torch.no_grad():
        model[6].weight[0, 0] += 1e-12


CHANGES = [
    (add_to_a_weight, "weight or buffer 6.weight"),
    (lambda model, tensors: model[1].running_mean.data.add_(1e-12), "weight or buffer 1.running_mean"),
    (lambda model, tensors: model[4].eval(), "module 4"),
    (lambda model, tensors: model[2].register_forward_hook(keep), "module 2"),
    (lambda model, tensors: model[2].register_forward_pre_hook(lambda module, args: None), "module 2"),
    (lambda model, tensors: model[2].register_full_backward_hook(lambda *_: None).remove(), "module 2"),
    (lambda model, tensors: model[0].weight.requires_grad_(True), "weight or buffer 0.weight"),
    (lambda model, tensors: model[6].weight.grad.add_(1), "weight or buffer 6.weight"),
    (lambda model, tensors: setattr(model[6].weight, "grad", None), "weight or buffer 6.weight"),
    (lambda model, tensors: setattr(model[6], "bias", nn.Parameter(model[6].bias.detach().clone())),
     "weight or buffer 6.bias"),
    (lambda model, tensors: setattr(model, "note", 1), "module at the top"),
    (lambda model, tensors: model.__setitem__(2, nn.GELU()), "module 2"),
    (lambda model, tensors: tensors[0].data.mul_(1 + 1e-12), "inputs"),
    (lambda model, tensors: tensors[0].requires_grad_(True), "inputs"),
    (lambda model, tensors: torch.rand(1), "torch's global random state"),
    (lambda model, tensors: np.random.rand(), "NumPy's global random state"),
    (lambda model, tensors: random.random(), "Python's global random state"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "where"), CHANGES)
def test_every_change_shows_in_the_state(change, where) -> None:
    model, tensors = awkward(), (images(), images())
    before = state(model, tensors)
    assert state(model, tensors) == before
    change(model, tensors)
    assert changes(before, state(model, tensors)) == [where]
