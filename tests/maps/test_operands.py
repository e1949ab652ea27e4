"""What `explain` is handed: arrays are taken, and anything else is told in one line."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import attribug
from attribug import methods
from attribug.conformance.methods import few

SHAPE = (2, 3, 16, 16)
NAMES = methods.names()
OPTIONS = [
    (name, parameter.name)
    for name in NAMES
    for parameter in inspect.signature(methods.get(name).function).parameters.values()
    if parameter.kind is parameter.KEYWORD_ONLY
]


def net(dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 3)]
    return nn.Sequential(*body).to(dtype).eval()


def images(dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.rand(SHAPE, generator=torch.Generator().manual_seed(1)).to(dtype)


TARGETS = torch.tensor([0, 1])


def said(name: str = "gradient", **changes: object) -> str:
    """The one line that a call is answered with; the call fails where it is not."""
    given = {"model": net(), "inputs": images(), "targets": TARGETS} | changes
    with pytest.raises(attribug.InputError) as refused:
        attribug.explain(name, **given)
    line = str(refused.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("name", NAMES)
def test_arrays_are_taken_as_tensors_are(name):
    options, train = few(methods.get(name)), images().flip(0)
    expected = attribug.explain(name, net(), images(), TARGETS, train_inputs=train, **options)
    arrays = images().double().numpy(), TARGETS.numpy().astype("uint8")
    found = attribug.explain(name, net(), *arrays, train_inputs=train.numpy(), ids=np.arange(2), **options)
    assert torch.equal(found, expected)


def test_arrays_are_copied_and_read_only_ones_taken():
    array = images().numpy()
    array.setflags(write=False)
    assert attribug.explain("gradient", net(), array, [0, 1]).shape == SHAPE


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model": "resnet18"}, r"model: expected a torch.nn.Module that returns logits (N, K), found 'resnet18'"),
        ({"model": lambda x: x}, "model: expected a torch.nn.Module that returns logits (N, K), found function"),
        ({"inputs": (images(), images())}, "inputs: expected a tensor or an array (N, *shape), found tuple"),
        ({"inputs": None}, "inputs: expected a tensor or an array (N, *shape), found NoneType"),
        ({"inputs": (images() * 255).byte()}, "as the model takes them, found torch.uint8 (2, 3, 16, 16)"),
        ({"inputs": (images() * 255).byte().numpy()}, "as the model takes them, found uint8 (2, 3, 16, 16)"),
        ({"inputs": images().long()}, "as the model takes them, found torch.int64"),
        ({"inputs": images().to_sparse()}, "inputs: expected a dense tensor, found torch.sparse_coo"),
        (
            {"inputs": images().double()},
            "inputs: expected torch.float32 as the model's weights are, found torch.float64",
        ),
        ({"inputs": images()[0], "targets": 0}, "inputs[None] is a batch of one example"),
        ({"inputs": images()[0], "targets": TARGETS[:1]}, "inputs[None] is a batch of one example"),
        ({"targets": TARGETS.float()}, "targets: expected whole numbers (2,), found torch.float32 (2,)"),
        ({"targets": TARGETS.bool()}, "targets: expected whole numbers (2,), found torch.bool"),
        ({"targets": "cat"}, "targets: expected whole numbers"),
        ({"targets": [0, 1, 2]}, "one number an input"),
        ({"targets": [0, 3]}, "targets: expected classes from 0 to 2, found 0 to 3"),
        ({"train_inputs": [images()[0]]}, "train_inputs: expected a tensor or an array (N, *shape), found list"),
        ({"ids": [0.5, 1.5]}, "ids: expected whole numbers"),
        ({"seed": "a"}, "seed: expected a whole number, found 'a'"),
        ({"seed": True}, "seed: expected a whole number, found True"),
    ],
)
def test_anything_else_is_told_in_one_line(changes, line):
    assert line in said(**changes)


def test_training_examples_that_are_not_finite_are_told():
    train = images()
    train[1, 0, 3, 3] = torch.nan
    for name in ("pattern_net", "expected_gradients"):
        assert said(name, train_inputs=train).endswith("expected finite values, found others in 1 of 2")


def default(name: str, option: str) -> object:
    return inspect.signature(methods.get(name).function).parameters[option].default


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_every_option_refuses_what_is_no_number_and_every_switch_what_is_one(name, option):
    for nonsense in ("many", None, float("nan"), [1], 1 if isinstance(default(name, option), bool) else True):
        assert option in said(name, train_inputs=images(), **{option: nonsense})


@pytest.mark.parametrize(("name", "option"), [pair for pair in OPTIONS if pair[1] != "baseline"])
def test_every_option_but_a_baseline_refuses_what_is_negative(name, option):
    assert option in said(name, train_inputs=images(), **{option: -1})


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_numpys_numbers_are_numbers(name, option):
    known = default(name, option)
    if isinstance(known, bool):
        number = np.bool_(not known)
    else:
        number = np.float64(known) if isinstance(known, float) else np.int64(min(known, 5))
    options = {**few(methods.get(name)), option: number}
    found = attribug.explain(name, net(), images(), TARGETS, train_inputs=images(), **options)
    plain = {**options, option: number.item()}
    assert torch.equal(found, attribug.explain(name, net(), images(), TARGETS, train_inputs=images(), **plain))


def test_baselines_and_segments_may_be_arrays():
    baseline = np.full((3, 1, 1), 0.5)
    found = attribug.explain("integrated_gradients", net(), images(), TARGETS, baseline=baseline, steps=3)
    tensor = torch.full((3, 1, 1), 0.5)
    assert torch.equal(
        found, attribug.explain("integrated_gradients", net(), images(), TARGETS, baseline=tensor, steps=3)
    )
    segments = np.arange(256).reshape(16, 16) // 64
    assert attribug.explain("kernel_shap", net(), images(), TARGETS, segments=segments).shape == SHAPE
