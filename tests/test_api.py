"""The benchmark from Python."""

import functools
import importlib
import re
import subprocess
import sys
from pathlib import Path

import cloudpickle
import pandas as pd
import pytest
import torch

import attribug
from attribug import keys, methods
from attribug.networks import bvd_cnn
from attribug.results.schema import read_results
from attribug.running.functions import handed_over

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
    with pytest.raises(attribug.InputError, match="the name 'function_1' of a function is taken"):
        attribug.run("smoke", methods=[lambda_named("function_1"), lambda *_: None])
    with pytest.raises(attribug.InputError, match="methods: expected names and functions, found int"):
        attribug.run("smoke", methods=["gradient", 3])


def lambda_named(name):
    def function(model, inputs, targets):
        return inputs

    function.__name__ = name
    return function


class Inverted:
    """An object that can be called, and has no name."""

    def __call__(self, model, inputs, targets):
        return inverted(model, inputs, targets)


@pytest.fixture
def forgotten():
    """What a test hands over is forgotten after it."""
    before = set(methods._registry.registered())
    yield
    for name in set(methods._registry.registered()) - before:
        if name not in methods._registry.declared():
            methods._registry.forget(name)


@pytest.mark.usefixtures("forgotten")
def test_functions_without_a_name_are_numbered():
    """By their place among those; what has a name keeps it."""
    given = ["random", lambda *asked: 1 * inverted(*asked), inverted, functools.partial(inverted), Inverted()]
    names, pickled = handed_over(given)
    assert names == ["random", "function_1", "inverted", "function_2", "function_3"]
    assert set(cloudpickle.loads(pickled)) == set(names) - {"random"}
    assert handed_over(["gradient"]) == (["gradient"], b"")


@pytest.mark.usefixtures("forgotten")
def test_a_name_tells_its_functions_code_apart():
    """Two functions without a name come under the same one, and still have keys of their own."""

    def key(function):
        handed_over([function])
        return keys.digest(methods.get("function_1").function)

    different = [
        lambda *asked: 1 * inverted(*asked), lambda *asked: -inverted(*asked),
        functools.partial(inverted), functools.partial(inverted, targets=None),
        *(functools.partial(scaled, factor=factor) for factor in (1, 2)),
    ]  # fmt: skip
    told = [key(function) for function in different]
    assert len(set(told)) == len(different)
    assert [key(function) for function in different] == told
    assert key(functools.partial(scaled, factor=2)) == told[-1], "content decides, not the object"


def scaled(model, inputs, targets, *, factor):
    return factor * inverted(model, inputs, targets)


def test_explain_takes_functions_beside_names(question):
    model, inputs, targets = question
    expected = -attribug.explain("gradient", model, inputs, targets)
    for function in (inverted, lambda *asked: 1 * inverted(*asked), functools.partial(inverted), Inverted()):
        assert torch.allclose(attribug.explain(function, model, inputs, targets), expected)
    many = attribug.explain(
        ["smoothgrad", inverted, lambda *asked: asked[1], scaled], model, inputs, targets, samples=2, factor=3
    )
    assert list(many) == ["smoothgrad", "inverted", "function_1", "scaled"]
    assert torch.equal(many["function_1"], inputs)
    assert torch.allclose(many["scaled"], 3 * expected)
    with pytest.raises(attribug.InputError, match="inverted: unknown parameter 'factor'"):
        attribug.explain(inverted, model, inputs, targets, factor=3)
    with pytest.raises(attribug.InputError, match="the name 'gradient' of a function is taken"):
        attribug.explain(["gradient", lambda_named("gradient")], model, inputs, targets)
    with pytest.raises(attribug.InputError, match="expected names and functions, found int"):
        attribug.explain(["gradient", 3], model, inputs, targets)


def test_the_public_names_are_listed_and_there():
    assert dir(attribug) == sorted(attribug.__all__)
    assert {"load", "report", "dry_run", "run", "contracts", "networks", "show", "compare"} <= set(dir(attribug))
    for name in dir(attribug):
        assert getattr(attribug, name) is not None
    for module in (attribug.contracts, attribug.networks):
        assert all(hasattr(module, name) for name in module.__all__)


def test_listing_the_names_imports_nothing_large():
    code = "import sys, attribug; dir(attribug); print(sorted({'torch', 'pandas', 'numpy'} & set(sys.modules)))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_what_docs_import_is_public():
    """Every name that README and docs import from attribug stands in the `__all__` of where they import it from."""
    root = Path(__file__).parent.parent
    found = 0
    for page in (root / "README.md", *(root / "docs").glob("*.md")):
        for module, names in re.findall(r"(?m)^from (attribug[\w.]*) import (.+)$", page.read_text()):
            public = importlib.import_module(module).__all__
            hidden = [name for name in names.split(", ") if name not in public]
            if (module, hidden) != ("attribug.contracts", ["outputs"]):  # a module of it
                assert not hidden, f"{page.name}: {module} has {hidden} in no __all__"
            found += 1
    assert found > 5


@pytest.mark.slow
def test_a_lambda_that_changes_is_run_again(tmp_path):
    def run(function):
        suite, plugins = str(PLUGINS / "tiny.yaml"), [str(PLUGINS / "tiny.py")]
        return attribug.run(suite, out=tmp_path / "run", methods=[function], plugins=plugins, workers=1).results

    functions = lambda *asked: 1 * inverted(*asked), lambda *asked: inverted(*asked) ** 2
    once, twice = map(run, functions)
    assert set(once["method"]) == set(twice["method"]) == {"function_1"}
    assert not once["value"].equals(twice["value"])
    assert run(functions[0])["value"].equals(once["value"])


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
