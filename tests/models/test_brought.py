"""What somebody brings: their model is left as it is, and told from every other by content."""

from __future__ import annotations

import copy
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attribug.contracts.data import Data
from attribug.contracts.tasks import GivenModel
from attribug.errors import InputError
from attribug.models import brought
from attribug.models.brought import Brought, describe

NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, p=0.5, slope=0.1, table=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.norm, self.drop = nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(p)
        self.dense = nn.Linear(3 * 36, 4)
        self.slope = slope
        self.table = table

    def forward(self, x):
        x = nn.functional.leaky_relu(self.norm(self.conv(x)), self.slope)
        return self.dense(self.drop(x).flatten(1))
"""
DESCRIBED = """
from attribug.models.brought import describe
print(describe(Net()).key)
"""


@pytest.fixture
def net(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., nn.Module]:
    """The class, of a module that can be imported."""
    (tmp_path / "net_of_a_file.py").write_text(NET)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "net_of_a_file", raising=False)
    import net_of_a_file

    made: Callable[..., nn.Module] = net_of_a_file.Net
    return made


def state(model: nn.Module) -> list[object]:
    """All of a model that somebody may care about."""
    return [
        [module.training for module in model.modules()],
        [(name, id(value), value.requires_grad, value.grad) for name, value in model.named_parameters()],
        [(name, id(value), value.clone().tolist()) for name, value in model.state_dict(keep_vars=True).items()],
        [list(module._forward_hooks.values()) for module in model.modules()],
    ]


@pytest.mark.parametrize("training", [False, True])
def test_the_users_model_is_left_as_it_is(net: Callable[..., nn.Module], training: bool) -> None:
    model = net().train(training)
    model.get_submodule("norm").eval()  # as fine-tuning does
    next(model.parameters()).requires_grad_(False)
    model.register_forward_hook(print_nothing)
    before = state(model)
    spec = describe(model)
    made = spec.source()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
    made.eval()
    assert state(model) == before


def print_nothing(*_: object) -> None:
    """A hook."""


def test_copies_say_the_same_and_share_nothing(net: Callable[..., nn.Module]) -> None:
    model, x = net().eval(), torch.rand(2, 1, 8, 8)
    spec = describe(model)
    one, two = spec.source().eval(), spec.source().eval()
    assert torch.equal(one(x), model(x))
    with torch.no_grad():
        next(one.parameters()).zero_()
    assert torch.equal(two(x), model(x))


class Activated(nn.Module):
    """With an attribute of any kind, and a buffer that no state dict holds."""

    def __init__(self, held: object = None, unsaved: float = 0.0) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 3)
        self.held = held
        self.register_buffer("unsaved", torch.tensor(unsaved), persistent=False)
        nn.init.ones_(self.dense.weight)
        nn.init.zeros_(self.dense.bias)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.dense(x)
        return y


def shifted(name: str) -> Callable[[nn.Module], None]:
    """Adds to a parameter or buffer."""

    def change(model: nn.Module) -> None:
        model.state_dict()[name].add_(1)

    return change


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "a weight": shifted("conv.weight"),
    "a buffer": shifted("norm.running_mean"),
    "dropout": lambda model: setattr(model.drop, "p", 0.25),
    "a private number": lambda model: setattr(model, "_slope", 0.2),
    "an array": lambda model: setattr(model, "table", np.array([1.0, 2.0])),
    "an object": lambda model: setattr(model, "held", SimpleNamespace(power=3)),
    "a hook": lambda model: model.register_forward_hook(print_nothing),
    "a number": lambda model: setattr(model, "slope", 0.2),
    "a list": lambda model: setattr(model, "table", [1, 2]),
    "epsilon": lambda model: setattr(model.norm, "eps", 1e-2),
    "a layer of another kind": lambda model: setattr(model, "drop", nn.Dropout1d(0.5)),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_told_apart(net: Callable[..., nn.Module], change: str) -> None:
    model = net()
    other = copy.deepcopy(model)
    assert describe(model).key == describe(other).key
    CHANGES[change](other)
    assert describe(model).key != describe(other).key


@pytest.mark.parametrize(("one", "other"), [
    ({"held": torch.relu}, {"held": torch.tanh}),
    ({"held": print_nothing}, {"held": shifted}),
    ({"held": {"p": 1}}, {"held": {"p": 2}}),
    ({"held": torch.tensor(1.0)}, {"held": torch.tensor(2.0)}),
    ({"unsaved": 1.0}, {"unsaved": 2.0}),
], ids=["torch's function", "function", "mapping", "tensor", "unsaved buffer"])  # fmt: skip
def test_attributes_that_are_not_plain_are_told_apart(one: dict[str, object], other: dict[str, object]) -> None:
    first, same, second = (describe(Activated(**held)) for held in (one, one, other))  # type: ignore[arg-type]
    assert first.key == same.key
    assert first.key != second.key


def test_the_mode_is_no_part_of_it(net: Callable[..., nn.Module]) -> None:
    assert describe(net().train()).key == describe(net().eval()).key


def python(code: str, folder: Path) -> str:
    """What a fresh process prints."""
    (folder / "script.py").write_text(code)
    answer = subprocess.run(
        [sys.executable, "script.py"], cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def test_another_process_knows_the_same_model(net: Callable[..., nn.Module], tmp_path: Path) -> None:
    assert python("from net_of_a_file import Net\n" + DESCRIBED, tmp_path) == describe(net()).key


def a_brought(model: nn.Module) -> Brought:
    data = Data(torch.rand(6, 1, 8, 8), torch.arange(6) % 2, torch.arange(6))
    whole, spec = brought.examples(data), describe(model)
    given = GivenModel(spec, 0.1, whole, brought.some(whole, 3))
    regions = brought.regions({"left": torch.ones(6, 8, 8).bool(), "right": torch.zeros(6, 8, 8).bool()})
    return Brought(given, whole, ("a", "b"), start=spec, taught=whole, regions=regions)


UNLOAD = """
import sys, torch
from pathlib import Path
from attribug.models import brought
brought.unload(Path("shipment").read_bytes())
found = brought.find({"model": "mine"}, 0)
x = torch.load("x.pt")
print(found.given.spec.key, torch.equal(found.given.spec.source().eval()(x), torch.load("y.pt")))
print(len(found.given.examples.load()), len(found.given.looked.load()), found.classes)
print({name: (tuple(each.shape), bool(each.all())) for name, each in found.regions.load().items()})
print(brought.find({"model": "mine"}, 1), brought.find({"model": "another"}, 0))
"""


def test_a_fresh_process_gets_what_was_shipped(net: Callable[..., nn.Module], tmp_path: Path) -> None:
    model, x = net().eval(), torch.rand(2, 1, 8, 8)
    found = a_brought(model)
    brought.register(brought.key({"model": "mine"}, 0), found)
    (tmp_path / "shipment").write_bytes(brought.shipped(found))
    torch.save(x, tmp_path / "x.pt")
    torch.save(model(x).detach(), tmp_path / "y.pt")
    masks = "{'left': ((6, 8, 8), True), 'right': ((6, 8, 8), False)}"
    expected = [f"{found.given.spec.key} True", "6 3 ('a', 'b')", masks, "None None"]
    assert python(UNLOAD, tmp_path).splitlines() == expected


def test_what_cannot_be_pickled_is_told_in_one_line(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    with (tmp_path / "held").open("w") as held:
        model.held = held  # type: ignore[assignment]
        with pytest.raises(InputError) as caught:
            describe(model)
    assert str(caught.value).startswith("model: expected one that can be pickled for a run's processes, found Linear: ")
    assert "\n" not in str(caught.value)


def test_data_are_known_by_content() -> None:
    one, same = (Data(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), torch.arange(4)) for _ in range(2))
    other = Data(torch.ones(4, 2), torch.ones(4, dtype=torch.int64), torch.arange(4))
    masked = Data(torch.ones(4, 2), torch.zeros(4, dtype=torch.int64), torch.arange(4), torch.ones(4, 2).bool())
    keys = [brought.examples(each).key for each in (one, same, other, masked)]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3
    assert brought.some(brought.examples(one), 2).load().ids.tolist() == [0, 1]
    assert len(brought.some(brought.examples(one), 9).load()) == 4


def test_regions_are_known_by_name_and_content_and_forgotten_with_what_was_brought() -> None:
    marked = {"left": torch.ones(2, 3, 3).bool(), "right": torch.zeros(2, 3, 3).bool()}
    changes = [{}, {"left": marked["right"]}, {"top": marked["left"]}]
    keys = [brought.regions({**marked, **each}).key for each in changes]
    assert brought.regions(dict(marked)).key == keys[0]
    assert len({*keys, brought.regions(dict(reversed(marked.items()))).key}) == 4, "the first one is the main one"
    found = a_brought(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)))
    assert found.regions is not None
    brought.register(brought.key({"model": "held"}, 0), found)
    for number in range(brought.REMEMBERED - 1):
        brought.register(brought.key({"model": number}, 0), replace(found, regions=None))
    assert found.regions.load()["left"].all()
    brought.register(brought.key({"model": "one more"}, 0), replace(found, regions=None))
    with pytest.raises(KeyError):
        found.regions.load()
