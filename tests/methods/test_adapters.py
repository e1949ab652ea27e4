"""Plain functions f(model, inputs, targets) as methods."""

import numpy as np
import pytest
import torch

import attribug
from attribug import methods
from attribug.attribution import MethodFault

NAME = "test_plain_function"


@pytest.fixture
def as_method():
    """Registers a plain function under a name that is free again afterwards."""

    def enter(function, **facts):
        methods.from_function(NAME, function, **facts)
        return NAME

    yield enter
    methods._registry._entries.pop(NAME, None)


def plain_gradient(model, inputs, targets):
    leaf = inputs.requires_grad_(True)
    model(leaf).gather(1, targets[:, None]).sum().backward()
    return leaf.grad


def test_gradient_written_as_users_write_it(as_method, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    maps = attribug.explain([as_method(plain_gradient), "gradient"], model, inputs, targets)
    assert torch.equal(maps[NAME], maps["gradient"])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not inputs.requires_grad


def test_parameters_reach_the_function(as_method, linear):
    model, inputs, targets, _ = linear
    name = as_method(lambda model, inputs, targets, factor=1.0: factor * inputs)
    assert torch.equal(attribug.explain(name, model, inputs, targets, factor=3.0), 3 * inputs)


def test_arrays_become_tensors_of_the_inputs_type(as_method, linear):
    model, inputs, targets, _ = linear
    name = as_method(lambda model, inputs, targets: np.asarray(inputs.detach().numpy(), dtype=np.float64) + 1)
    found = attribug.explain(name, model.float(), inputs.float(), targets)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, inputs.float() + 1)


def test_whole_numbers_are_garbage(as_method, linear):
    model, inputs, targets, _ = linear
    name = as_method(lambda model, inputs, targets: np.ones(inputs.shape, dtype=np.int64))
    with pytest.raises(MethodFault, match=r"expected floating-point maps, found torch\.int64"):
        attribug.explain(name, model, inputs, targets)


def test_inputs_that_the_function_changes_stay_as_they_were(as_method, linear):
    model, inputs, targets, weights = linear
    before = inputs.clone()
    name = as_method(lambda model, inputs, targets: inputs.zero_())
    maps = attribug.explain([name, "input_x_gradient"], model, inputs, targets)
    assert torch.equal(inputs, before)
    assert torch.equal(maps["input_x_gradient"], before * weights)


def test_facts_reach_the_registry(as_method):
    name = as_method(plain_gradient, uses_target=False, paper="nobody")
    assert (methods.get(name).uses_target, methods.get(name).paper) == (False, "nobody")


def test_a_taken_name_is_refused():
    with pytest.raises(attribug.InputError, match=r"method 'gradient' is taken by attribug\.methods\.gradient"):
        methods.from_function("gradient", plain_gradient)
