"""torchvision's classifiers with a last layer of their own: from scratch, and from what torch's cache has of them."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchvision.models import SqueezeNet1_1_Weights

from attribug.errors import InputError
from attribug.models import library
from attribug.models.given import load
from doubles import miniatures

NAME = "torchvision:squeezenet1_1"
HEADED: dict[str, Any] = {"name": NAME, "classes": 3, "pixels": 40}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    library.start.cache_clear()
    return tmp_path / "hub"


def network(model: nn.Module) -> nn.Module:
    return model.get_submodule("network")


def test_it_normalises_pictures_as_its_makers_do() -> None:
    model = library.untrained(**HEADED).eval()
    pictures = torch.rand(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        found = model(pictures)
        torch.testing.assert_close(found, network(model)((pictures - mean) / std))
        assert not torch.allclose(found, network(model)(pictures))
    assert found.shape == (2, 3)


def test_all_but_the_last_layer_is_as_published(hub: Path) -> None:
    assert not library.has_features(NAME)
    theirs = miniatures.cached_weights(hub, "squeezenet1_1")
    assert library.has_features(NAME)
    state = network(library.with_features(**HEADED, task="one", seed=0)).state_dict()
    other = {name for name, value in theirs.items() if state[name].shape != value.shape}
    assert other == {"classifier.1.weight", "classifier.1.bias"}
    assert all(torch.equal(state[name], value) for name, value in theirs.items() if name not in other)
    assert state.keys() == theirs.keys()


def test_the_last_layer_is_one_draw_a_task_and_seed(hub: Path) -> None:
    miniatures.cached_weights(hub, "squeezenet1_1")

    def last(task: str, seed: int) -> torch.Tensor:
        return network(library.with_features(**HEADED, task=task, seed=seed)).state_dict()["classifier.1.weight"]

    before = torch.get_rng_state()
    assert torch.equal(last("one", 0), last("one", 0))
    assert not torch.equal(last("one", 0), last("one", 1))
    assert not torch.equal(last("one", 0), last("another", 0))
    assert torch.equal(torch.get_rng_state(), before), "nobody else's random numbers are drawn"


def test_what_training_starts_from_is_told_by_its_weights(hub: Path) -> None:
    miniatures.cached_weights(hub, "squeezenet1_1")
    start = partial(library.start, NAME, 3, 40, "one")
    assert start(0) == start(0)
    assert start(0) != start(1)
    state = load(start(0)).state_dict()
    expected = library.with_features(**HEADED, task="one", seed=0).state_dict()
    assert all(torch.equal(state[name], value) for name, value in expected.items())


def test_weights_that_are_not_there_are_told(hub: Path) -> None:
    with pytest.raises(InputError, match=r"^network 'torchvision:squeezenet1_1': expected torchvision's weights in "):
        library.with_features(**HEADED, task="one", seed=0)
    file = SqueezeNet1_1_Weights.DEFAULT.url.rpartition("/")[2]
    assert not (hub / "checkpoints" / file).exists(), "nothing is downloaded"


@pytest.mark.parametrize(("name", "told"), [
    ("torchvision:resnet5", "a classifier of torchvision; did you mean"), ("resnet50", "expected torchvision:NAME"),
    ("timm:resnet50", "expected torchvision:NAME"), ("torchvision:alexnet", "does not take pictures of 32 pixels"),
    ("torchvision:googlenet", r"expected logits \(2, 2\) while it trains, found GoogLeNetOutputs"),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore::FutureWarning")  # torchvision's, of its own defaults
def test_networks_that_do_not_fit_are_refused(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as error:
        library.expect_fits(name, 2, 32)
    assert "\n" not in str(error.value)


def test_networks_that_fit_are_not_refused() -> None:
    for name in ("resnet18", "mobilenet_v3_small"):
        library.expect_fits(f"torchvision:{name}", 2, 32)
