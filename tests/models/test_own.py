"""A user's own model and its weights: what is looked through, and one line for every mistake."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torchvision.models import get_model, resnet18

from attribug.errors import InputError
from attribug.models.own import own, read_weights

FILE = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))

def prepared():
    return load(), torch.as_tensor

def nothing():
    pass

def three():
    return load(), 1, 2

def transformless():
    return load(), 1

def raises():
    raise RuntimeError("no luck")

def lazy():
    return nn.Sequential(nn.LazyLinear(3))

number = 3
"""


@pytest.fixture
def file(tmp_path: Path) -> str:
    path = tmp_path / "my_net.py"
    path.write_text(FILE)
    return str(path)


@pytest.fixture
def state(file: str) -> dict[str, Tensor]:
    return {name: value + 1 for name, value in own(f"{file}:load").model.state_dict().items()}


def test_a_function_of_a_file_or_module_builds_the_model(file: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mine = own(f"{file}:load")
    assert isinstance(mine.model, nn.Sequential)
    assert not mine.model.training
    assert (mine.transform, mine.classes, mine.weights) == (None, None, "as built")
    assert own(f"{file}:prepared").transform is torch.as_tensor
    monkeypatch.syspath_prepend(str(Path(file).parent))
    assert isinstance(own("my_net:load").model, nn.Sequential)


@pytest.mark.parametrize("form", [
    torch.save,
    lambda state, path: torch.save({"state_dict": state, "epoch": 3, "best": torch.tensor(9.0)}, path),
    lambda state, path: torch.save({"epoch": 3, "model": {f"module.{name}": v for name, v in state.items()}}, path),
    lambda state, path: torch.save({f"_orig_mod.module.{name}": value for name, value in state.items()}, path),
    lambda state, path: torch.save({"state_dict": {f"model.{n}": v for n, v in state.items()}, "hyper": [1]}, path),
], ids=["plain", "nested", "parallel", "compiled", "lightning"])  # fmt: skip
def test_checkpoints_are_looked_through(
    file: str, state: dict[str, Tensor], tmp_path: Path, form: Callable[..., None]
) -> None:
    form(state, tmp_path / "mine.pt")
    mine = own(f"{file}:load", tmp_path / "mine.pt")
    assert mine.weights == str(tmp_path / "mine.pt")
    found = mine.model.state_dict()
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_safetensors_are_read(file: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    save_file(state, tmp_path / "mine.safetensors")
    found = own(f"{file}:load", tmp_path / "mine.safetensors").model.state_dict()
    assert all(torch.equal(found[name], value) for name, value in state.items())


def test_a_librarys_network_has_as_many_classes_as_the_weights(tmp_path: Path) -> None:
    torch.save(resnet18(num_classes=7).state_dict(), tmp_path / "mine.pt")
    mine = own("torchvision:resnet18", tmp_path / "mine.pt")
    assert mine.model(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    assert mine.transform is not None


def test_torchvisions_own_weights_are_those_that_were_downloaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert own("torchvision:squeezenet1_1").weights.startswith("random")
    torch.manual_seed(1)
    state = get_model("squeezenet1_1").state_dict()
    (tmp_path / "checkpoints").mkdir()
    from torchvision.models import SqueezeNet1_1_Weights

    name = SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    torch.save(state, tmp_path / "checkpoints" / name)
    monkeypatch.setattr(
        "torch.hub.load_state_dict_from_url", lambda *_, **__: torch.load(tmp_path / "checkpoints" / name)
    )
    mine = own("torchvision:squeezenet1_1")
    assert all(torch.equal(mine.model.state_dict()[name], value) for name, value in state.items())
    assert mine.classes is not None
    assert len(mine.classes) == 1000
    assert mine.weights == "torchvision's SqueezeNet1_1_Weights.IMAGENET1K_V1"


def test_timms_networks(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    other = timm.create_model("vit_tiny_patch16_224", num_classes=5)
    save_file(other.state_dict(), tmp_path / "mine.safetensors")
    mine = own("timm:vit_tiny_patch16_224", tmp_path / "mine.safetensors")
    inputs = torch.rand(1, 3, 224, 224)
    assert torch.equal(mine.model(inputs), other.eval()(inputs))
    assert mine.transform is not None


def wrong_shapes(state: dict[str, Tensor]) -> Any:
    return {**state, "1.weight": torch.zeros(8, 13), "3.bias": torch.zeros(4)}


MISTAKES: dict[str, tuple[str, Any, str]] = {
    "no colon": ("resnet18", None, r"model 'resnet18': expected FILE.py:FUNCTION, MODULE:FUNCTION, .*"),
    "no file": ("absent.py:load", None,
        r"model 'absent.py:load': absent.py does not import: .*no such file: absent.py"),
    "no module": ("absent_module:load", None, r".*absent_module does not import: ModuleNotFoundError: No module .*"),
    "no function": ("FILE:lod", None, r".*has no function 'lod'; did you mean 'load'\?"),
    "no callable": ("FILE:number", None, r".*has no function 'number'.*"),
    "raises": ("FILE:raises", None, r".*: raises raises RuntimeError: no luck"),
    "nothing": ("FILE:nothing", None,
        r".*expected a torch.nn.Module, or one and a transform from nothing\(\), found NoneType"),
    "three": ("FILE:three", None, r".*from three\(\), found Sequential, int, int"),
    "no transform": ("FILE:transformless", None, r".*from transformless\(\), found Sequential, int"),
    "unknown": ("torchvision:resnet81", None,
        r"model 'torchvision:resnet81': torchvision has no such classifier; did you .*"),
    "unknown in timm": ("timm:resnet81x", None, r"model 'timm:resnet81x': timm has no such model; did you mean .*"),
    "unlike any": ("timm:zzzzzz", None, r"model 'timm:zzzzzz': timm has no such model, one of \d+"),
    "lazy": ("FILE:lazy", lambda s: s, r"weights \S+: Sequential has lazy layers without sizes; let it run once"),
    "missing": ("FILE:load", lambda s: {k: s[k] for k in ("1.weight", "1.bias")},
                r"weights \S+: do not fit Sequential: 2 missing \(3.weight, 3.bias\)"),
    "unexpected": ("FILE:load", lambda s: {**s, "4.weight": torch.zeros(1)}, r".*: 1 unexpected \(4.weight\)"),
    "shapes": ("FILE:load", wrong_shapes,
               r".*: 2 of another shape \(1.weight \(8, 12\) in the model, \(8, 13\) in the file, 3.bias .*\)"),
    "another network": ("FILE:load", lambda s: resnet18().state_dict(),
                        r".*: 4 missing \(.* and 1 more\); \d+ unexpected \(conv1.weight, .* and \d+ more\)"),
    "a number": ("FILE:load", lambda s: 3, r"weights \S+: expected tensors by name, found int"),
    "no tensors": ("FILE:load", lambda s: {"epoch": 3}, r"weights \S+: expected tensors by name, found epoch"),
    "a model": ("FILE:load", lambda s: nn.Linear(2, 2),
                r"weights \S+: expected a state dict, found something else, .*"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_are_told_in_one_line(
    file: str, state: dict[str, Tensor], tmp_path: Path, mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    name, held, expected = MISTAKES[mistake]
    weights = None
    if held is not None:
        weights = tmp_path / "weights.pt"
        torch.save(held(state), weights)
    with pytest.raises(InputError) as found:
        own(name.replace("FILE", file), weights)
    assert re.fullmatch(expected, str(found.value)), str(found.value)


@pytest.mark.parametrize(("name", "content", "expected"), [
    ("absent.pt", None, "no such file"),
    ("text.pt", b"hello", "expected a state dict"),
    ("text.safetensors", b"hello", "expected safetensors"),
    ("empty.pt", b"", "expected a state dict"),
    ("short.pt", b"\x80\x02.", "expected a state dict"),
])  # fmt: skip
def test_files_that_hold_no_weights(tmp_path: Path, name: str, content: bytes | None, expected: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"weights .*{name}: {expected}"):
        read_weights(tmp_path / name)


def test_what_does_not_fit_leaves_the_model_as_it_was(file: str, state: dict[str, Tensor], tmp_path: Path) -> None:
    from attribug.models.own import fill

    model = own(f"{file}:load").model
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError):
        fill(model, wrong_shapes(state), "weights")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
