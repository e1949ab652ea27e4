"""Models whose outputs are not two logits or more as they stand."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from attribug.errors import InputError, Unsupported
from attribug.models.wrapped import Picked, TwoLogits, with_new_head

Outputs = namedtuple("Outputs", "logits hidden")


class Several(nn.Module):
    """Gives what `form` makes of its logits and of its inputs."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.dense(x), x)


FORMS: dict[str, tuple[Callable[[Tensor, Tensor], Any], str, str]] = {
    "dict": (lambda z, x: {"logits": z, "hidden": x}, "logits", "logits, hidden"),
    "tuple": (lambda z, x: (x, z), "1", "0, 1"),
    "list": (lambda z, x: [z, x], "0", "0, 1"),
    "named tuple": (Outputs, "logits", "logits, hidden, 0, 1"),
    "number of a named tuple": (Outputs, "0", "logits, hidden, 0, 1"),
    "numbers as names": (lambda z, x: {0: x, 1: z}, "1", "0, 1"),
}


@pytest.mark.parametrize("form", FORMS)
def test_one_of_several_outputs_is_picked(form: str) -> None:
    make, name, known = FORMS[form]
    model, x = Several(make), torch.rand(5, 4)
    assert torch.equal(Picked(model, name)(x), model.dense(x))
    with pytest.raises(InputError) as caught:
        Picked(model, "logit")(x)
    assert str(caught.value) == f"--output logit: expected one of the model's outputs, found {known}"


def test_of_one_output_nothing_is_picked() -> None:
    with pytest.raises(InputError, match="--output 0: expected one of the model's outputs, found Tensor"):
        Picked(nn.Linear(4, 3), "0")(torch.rand(5, 4))


@pytest.mark.parametrize("last", [nn.Identity(), nn.Flatten(0)], ids=["(N, 1)", "(N,)"])
def test_two_logits_say_what_one_does(last: nn.Module) -> None:
    """Probabilities are those of a sigmoid, maps of either class those of z but for their sign and half."""
    single = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1), last)
    x = torch.rand(6, 4, requires_grad=True)
    double, z = TwoLogits(single)(x), single(x).flatten()
    assert double.shape == (6, 2)
    torch.testing.assert_close(double.softmax(1)[:, 1], z.sigmoid())
    (of_z,) = torch.autograd.grad(z.sum(), x)
    for label, sign in enumerate((-0.5, 0.5)):
        (of_class,) = torch.autograd.grad(TwoLogits(single)(x)[:, label].sum(), x)
        torch.testing.assert_close(of_class, sign * of_z)


def net(last: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), last)


@pytest.mark.parametrize("last", [
    nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
    nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)),
    nn.Sequential(nn.Conv2d(4, 3, 1), nn.Flatten()),
], ids=["dense", "without bias", "convolution"])  # fmt: skip
def test_a_new_head_has_other_classes_and_nothing_else(last: nn.Module) -> None:
    old = net(last)
    biased = sum(1 for name, _ in old.named_parameters() if name.startswith("3") and name.endswith("bias"))
    first = old[0]
    new = with_new_head(old, 7, torch.Generator().manual_seed(0), torch.rand(2, 1, 8, 8))
    assert new(torch.rand(2, 1, 8, 8)).shape == (2, 7)
    assert new.get_submodule("0") is first
    assert sum(1 for name, _ in new.named_parameters() if name.startswith("3") and name.endswith("bias")) == biased


def test_a_new_head_is_drawn_by_the_stream_alone() -> None:
    streams, inputs = [torch.Generator().manual_seed(seed) for seed in (0, 0, 1)], torch.rand(2, 1, 8, 8)
    made = [with_new_head(net(nn.Sequential(nn.Flatten(), nn.Linear(4, 3))), 7, each, inputs) for each in streams]
    first, same, other = (each.get_submodule("3.1").weight for each in made)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_no_new_head_for_other_layers() -> None:
    expected = "expected a last layer that is linear or a convolution, found LayerNorm"
    with pytest.raises(Unsupported, match=expected):
        with_new_head(nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2)), 3, torch.Generator(), torch.rand(2, 2))
    fixed = nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)), nn.Flatten())
    with pytest.raises(Unsupported, match=r"raises|expected outputs"):
        with_new_head(nn.Sequential(fixed, nn.AvgPool1d(2)), 6, torch.Generator(), torch.rand(2, 4))


def test_a_network_that_is_but_its_head() -> None:
    assert with_new_head(nn.Linear(4, 3), 7, torch.Generator(), torch.rand(2, 4))(torch.rand(2, 4)).shape == (2, 7)


def test_a_new_head_of_one_logit_gives_its_classes() -> None:
    old = TwoLogits(nn.Sequential(nn.Flatten(), nn.Linear(4, 1)))
    model = with_new_head(old, 3, torch.Generator(), torch.rand(2, 4))
    assert model(torch.rand(2, 4)).shape == (2, 3)
