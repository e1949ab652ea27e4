"""The benchmark from Python."""

import functools
from pathlib import Path

import pandas as pd
import pytest
import torch

import attribug
from attribug.models.networks import bvd_cnn
from attribug.results.schema import read_results

PLUGINS = Path(__file__).parent / "plugins"


def inverted(model, inputs, targets):
    """A plain function, as other libraries want them."""
    inputs.requires_grad_(True)
    (gradient,) = torch.autograd.grad(model(inputs).gather(1, targets[:, None]).sum(), inputs)
    return -gradient.numpy()


@pytest.fixture
def question() -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    return bvd_cnn(width=4, pixels=16).train(), torch.rand(3, 3, 16, 16), torch.tensor([0, 1, 1])


def test_one_name_gives_maps_and_several_a_dictionary(question):
    model, inputs, targets = question
    alone = attribug.explain("smoothgrad", model, inputs, targets, seed=1, samples=4)
    many = attribug.explain(["smoothgrad", "gradient"], model, inputs, targets, seed=1, samples=4)
    assert list(many) == ["smoothgrad", "gradient"]
    assert torch.equal(alone, many["smoothgrad"])
    assert model.training


def test_absent_class_and_unknown_parameter_are_one_line(question):
    model, inputs, targets = question
    with pytest.raises(attribug.InputError, match="expected classes from 0 to 1, found 0 to 7"):
        attribug.explain("gradient", model, inputs, torch.tensor([0, 1, 7]))
    with pytest.raises(attribug.InputError, match="unknown parameter 'sample'; did you mean 'samples'"):
        attribug.explain("smoothgrad", model, inputs, targets, sample=4)


def test_refusal_is_unsupported(question):
    _, inputs, targets = question
    vector = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(768, 2))
    with pytest.raises(attribug.Unsupported, match="no convolution"):
        attribug.explain("grad_cam", vector, inputs, targets)


def test_measure_reads_maps_and_masks(question):
    model, inputs, targets = question
    maps = attribug.explain("gradient", model, inputs, targets)
    assert torch.allclose(attribug.measure("spearman", maps, maps), torch.ones(3, dtype=torch.float64))
    assert attribug.measure("mass_accuracy", maps, torch.ones(3, 16, 16, dtype=torch.bool)).dtype == torch.float64


def test_functions_never_take_anothers_place():
    with pytest.raises(attribug.InputError, match="the name 'gradient' of a function is taken"):
        attribug.run("smoke", methods=[lambda_named("gradient")])
    with pytest.raises(attribug.InputError, match="is taken"):
        attribug.run("smoke", methods=[lambda_named("mine"), lambda_named("mine")])
    with pytest.raises(attribug.InputError, match="with a name"):
        attribug.run("smoke", methods=[functools.partial(inverted)])


def lambda_named(name):
    def function(model, inputs, targets):
        return inputs

    function.__name__ = name
    return function


@pytest.mark.slow
def test_an_edited_function_is_run_again(tmp_path):
    def run(factor):
        def scaled(model, inputs, targets):
            return inverted(model, inputs, targets) ** factor

        suite, plugins = str(PLUGINS / "tiny.yaml"), [str(PLUGINS / "tiny.py")]
        return attribug.run(suite, out=tmp_path / "run", methods=[scaled], plugins=plugins, workers=1).results

    once, twice = run(1), run(2)
    assert not once["value"].equals(twice["value"])
    assert run(1)["value"].equals(once["value"])


@pytest.mark.slow
def test_run_takes_plain_functions(tmp_path):
    run = attribug.run(
        str(PLUGINS / "tiny.yaml"),
        out=tmp_path / "run",
        methods=["gradient", inverted],
        plugins=[str(PLUGINS / "tiny.py")],
        workers=1,
    )
    assert run.complete
    effects = run.results.set_index(["method", "metric", "post"])["effect"]
    assert effects["inverted", "spearman", "sum"] == effects["gradient", "spearman", "sum"]  # one sign for all maps
    assert set(run.scores["method"]) == {"gradient", "inverted"}
    assert len(run.headline) == 2
    pd.testing.assert_frame_equal(read_results(tmp_path / "run" / "results.csv"), run.results)
