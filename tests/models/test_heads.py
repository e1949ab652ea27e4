"""Last layers of one's own: on the body that was published, drawn by task and seed, trained on features or whole."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
import torchvision
from PIL import Image
from skimage import data as pictures
from torch import Tensor, nn

from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe, Trained
from attribug.contracts.objectives import summed_cross_entropy
from attribug.data_sources import VGG16
from attribug.errors import InputError, Unsupported
from attribug.models import heads
from attribug.models.given import load
from attribug.models.networks import plain_cnn
from attribug.models.own import own
from attribug.models.preparation import Preparation
from attribug.models.training import initialised, train, trained

SHUFFLE, SQUEEZE, MOBILE = (
    f"torchvision:{name}" for name in ("shufflenet_v2_x0_5", "squeezenet1_1", "mobilenet_v3_small")
)
ENDS = {SHUFFLE: "network.fc", SQUEEZE: "network.classifier.2", MOBILE: "network.classifier.3"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where torchvision puts what it downloads, with random weights of three networks under the published names."""
    place = tmp_path_factory.mktemp("hub")
    (place / "checkpoints").mkdir()
    torch.manual_seed(0)
    for name in ENDS:
        what = name.removeprefix("torchvision:")
        made = torchvision.models.get_model(what)
        for module in made.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = None  # means and variances of all that was seen
        with torch.no_grad():
            made.train()(torch.randn(8, 3, 64, 64))
        file = torchvision.models.get_model_weights(what).DEFAULT.url.rpartition("/")[2]
        torch.save(made.state_dict(), place / "checkpoints" / file)
    return place


@pytest.fixture(autouse=True)
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(folder))
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path))
    heads._given.cache_clear()
    return folder


def same(one: nn.Module, other: nn.Module) -> set[str]:
    """Names of the weights, not of the buffers, that two models share."""
    theirs = dict(other.named_parameters())
    return {name for name, value in one.named_parameters() if torch.equal(value, theirs[name])}


def batch(n: int = 24, pixels: int = 32, classes: int = 3) -> Data:
    """Noise around a grey that tells the label."""
    stream = torch.Generator().manual_seed(1)
    labels = torch.arange(n) % classes
    noise = torch.rand(n, 3, pixels, pixels, generator=stream)
    return Data(0.5 * noise + 0.5 * labels.reshape(-1, 1, 1, 1) / classes, labels, torch.arange(n))


# --- what is on this machine ---


def test_cached_are_the_networks_whose_weights_were_downloaded(hub: Path, tmp_path: Path) -> None:
    assert heads.cached() == sorted(ENDS)
    assert [heads.missing(name) for name in ENDS] == [""] * 3
    assert heads.missing("torchvision:vgg16").startswith("network 'torchvision:vgg16': expected weights")
    (tmp_path / VGG16).parent.mkdir()
    (tmp_path / VGG16).touch()
    assert heads.cached() == sorted([*ENDS, "torchvision:vgg16"])
    assert heads.missing("torchvision:vgg16") == ""


def test_cached_downloads_nothing_where_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "nowhere"))
    assert heads.cached() == []
    (tmp_path / "nowhere" / "checkpoints").mkdir(parents=True)
    (tmp_path / "nowhere" / "checkpoints" / "resnet18-00000000.pth").touch()  # no weights of torchvision's
    assert heads.cached() == []
    assert not (tmp_path / "nowhere" / "checkpoints" / "resnet18-f37072fd.pth").exists()


# --- networks ---


def body(name: str, end: str, inputs: Tensor) -> Tensor:
    """What comes in at the last layer of torchvision's own network, of inputs as its preset leaves them."""
    weights = torchvision.models.get_model_weights(name.removeprefix("torchvision:")).DEFAULT
    network = torchvision.models.get_model(name.removeprefix("torchvision:"), weights=weights).eval()
    if name == SQUEEZE:
        return network.features(inputs).mean((2, 3))
    parent, _, last = end.removeprefix("network.").rpartition(".")
    setattr(network.get_submodule(parent), last, nn.Identity())
    return network(inputs)


@pytest.mark.parametrize("name", ENDS)
def test_a_drawn_layer_stands_on_the_published_body(name: str) -> None:
    model = load(heads.start(name, 4, "test", 0))
    prepare = torchvision.models.get_model_weights(name.removeprefix("torchvision:")).DEFAULT.transforms()
    picture = Image.fromarray(pictures.astronaut()).resize((256, 256), Image.Resampling.BILINEAR)
    shown = torchvision.transforms.functional.to_tensor(picture)[None, :, 16:240, 16:240]  # what the preset crops
    with torch.no_grad():
        features = body(name, ENDS[name], prepare(picture)[None])
        end = model.get_submodule(ENDS[name])
        assert isinstance(end, nn.Linear)
        torch.testing.assert_close(model(shown), end(features), rtol=1e-3, atol=1e-4)
        assert (model(shown) - end(body(name, ENDS[name], shown))).abs().max() > 1e-3, "no preparation would be told"
        assert model(torch.rand(2, 3, 50, 70)).shape == (2, 4)
    assert not model.training


def test_squeezenet_of_its_makers_sees_blue_green_and_red() -> None:
    model, theirs = load(heads.start("squeezenet", 2, "test", 0)), own("squeezenet")
    picture = Image.fromarray(pictures.coffee())
    assert theirs.transform is not None
    with torch.no_grad():
        features = theirs.model.features(theirs.transform(picture)[None]).mean((2, 3))
        expected = model.get_submodule("network.classifier.2")(features)
        shown = Preparation(227)(picture)[None]
        torch.testing.assert_close(model(shown), expected, rtol=1e-3, atol=1e-3)
        assert (model(shown.flip(1)) - expected).abs().max() > 0.1, "channels in another order would be told"


def test_lite_networks_take_pictures_as_they_were_trained_on() -> None:
    model, theirs = load(heads.start("lite0", 2, "test", 0)), own("lite0")
    picture = Image.fromarray(pictures.coffee())
    assert theirs.transform is not None
    with torch.no_grad():
        features = theirs.model.forward_head(
            theirs.model.forward_features(theirs.transform(picture)[None]), pre_logits=True
        )
        expected = model.get_submodule("network.classifier")(features)
        torch.testing.assert_close(model(Preparation(224)(picture)[None]), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("name", [SHUFFLE, SQUEEZE])
def test_one_draw_a_task_and_seed(name: str) -> None:
    before = torch.get_rng_state()
    first, again, other, elsewhere = (
        load(heads.start(name, 4, task, seed)) for task, seed in (("a", 0), ("a", 0), ("a", 1), ("b", 0))
    )
    assert torch.equal(torch.get_rng_state(), before), "nobody else's random numbers are drawn"
    everything = {each for each, _ in first.named_parameters()}
    end = {f"{ENDS[name]}.{part}" for part in ("weight", "bias")}
    assert same(first, again) == everything
    assert same(first, other) == same(first, elsewhere) == everything - end


def test_random_networks_know_nothing_of_what_was_published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published = load(heads.start(SQUEEZE, 4, "test", 0))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "nowhere"))
    state = torch.get_rng_state()
    one, again, other = (load(heads.random(SQUEEZE, 4, "test", seed)) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), state)
    shapes = {name: value.shape for name, value in published.state_dict().items()}
    assert {name: value.shape for name, value in one.state_dict().items()} == shapes
    assert same(one, again) == {name for name, _ in one.named_parameters()}
    constant = {name for name, value in one.named_parameters() if not value.any()}  # biases that start at 0
    assert same(one, other) == constant
    assert same(one, published) <= constant


def test_pixels_are_what_a_network_sees() -> None:
    small, large = (load(heads.start(SQUEEZE, 4, "test", 0, pixels=pixels)) for pixels in (64, 128))
    inputs = torch.rand(2, 3, 128, 128, generator=torch.Generator().manual_seed(0))
    halved = torch.stack([inputs[:, :, i::2, j::2] for i in (0, 1) for j in (0, 1)]).mean(0)
    with torch.no_grad():
        torch.testing.assert_close(small(inputs), small(halved), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(large(inputs), small(halved), atol=1e-3)


@pytest.mark.parametrize(("start", "error", "expected"), [
    (partial(heads.start, "resnet18"), InputError, r"network 'resnet18': expected lite0, .* or torchvision:NAME"),
    (partial(heads.start, "torchvision:resnet5"), InputError, "of a classifier; did you mean 'torchvision:resnet50'"),
    (partial(heads.random, "mine.py:load"), InputError, r"network 'mine.py:load': expected"),
    (partial(heads.start, "torchvision:mobilenet_v3_large"), InputError, "expected weights that torchvision has"),
    (partial(heads.random, SQUEEZE, pixels=8), Unsupported, "at 8 pixels a side raises RuntimeError"),
])  # fmt: skip
def test_what_cannot_be_had_is_told_in_one_line(
    start: Callable[..., object], error: type[Exception], expected: str
) -> None:
    with pytest.raises(error, match=expected) as caught:
        start(classes=2, task="test", seed=0)
    assert "\n" not in str(caught.value)


# --- training ---


@pytest.mark.parametrize("name", [SHUFFLE, SQUEEZE, MOBILE])
def test_a_head_learns_from_features_as_it_does_from_pictures(name: str) -> None:
    """Training in full with all below frozen computes the same, and every picture's features in each epoch."""
    recipe = heads.recipe(name, 3, pixels=32, epochs=3)
    model = load(heads.start(name, 3, "test", 0, pixels=32))
    whole, before = copy.deepcopy(model), copy.deepcopy(model)
    heads.fit_head(model, batch(), recipe, 5)
    train(whole, batch(), recipe, 5, trainable=[ENDS[name]])
    for part in ("weight", "bias"):
        ours, theirs = (getattr(each.get_submodule(ENDS[name]), part) for each in (model, whole))
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)
    end = {f"{ENDS[name]}.{part}" for part in ("weight", "bias")}
    assert same(model, before) == {each for each, _ in model.named_parameters()} - end
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), before.buffers(), strict=True))
    assert not model.training
    assert all(each.requires_grad and each.grad is None for each in model.parameters())
    other = heads.fit_head(copy.deepcopy(before), batch(), recipe, 6)
    assert end.isdisjoint(same(model, other)), "seeds shuffle otherwise"


def test_a_described_head_is_trained_and_knows_its_classes() -> None:
    told: list[int] = []
    spec = Trained(
        Examples("batch", batch), heads.recipe(SHUFFLE, 3, pixels=32), 0, heads.start(SHUFFLE, 3, "test", 0, pixels=32)
    )
    assert spec.start is not None
    weights = load(spec.start).state_dict()  # type: ignore[arg-type]
    first, again = (trained(spec, batch(), weights, torch.device("cpu"), told.append) for _ in range(2))
    assert sum(told) == 2 * spec.recipe.epochs
    with torch.no_grad():
        assert float((first(batch().inputs).argmax(1) == batch().labels).double().mean()) > 0.9
    assert same(first, again) == {name for name, _ in first.named_parameters()}
    untrained = initialised(spec.recipe, 0).state_dict()
    assert {name: value.shape for name, value in untrained.items()} == {n: v.shape for n, v in weights.items()}


def test_who_decides_what_learns_is_refused() -> None:
    recipe, model = heads.recipe(SQUEEZE, 3, pixels=32), load(heads.start(SQUEEZE, 3, "test", 0, pixels=32))
    with pytest.raises(Unsupported, match="learns alone"):
        heads.fit_head(model, batch(), recipe, 0, trainable=[ENDS[SQUEEZE]])
    with pytest.raises(Unsupported, match="learns alone"):
        heads.fit_head(model, batch(), replace(recipe, objective=summed_cross_entropy), 0)


@pytest.mark.parametrize("last", [
    nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Softplus()), nn.Sequential(nn.Conv2d(4, 3, 1), nn.Flatten()),
], ids=["something after it", "convolution"])  # fmt: skip
def test_a_last_layer_that_does_not_give_the_outputs_is_refused(last: nn.Module) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), last)
    with pytest.raises(Unsupported, match="expected a last layer that is linear and gives the outputs"):
        heads.fit_head(model, batch(), heads.recipe(SQUEEZE, 3), 0)


@pytest.mark.parametrize(("name", "told"), [
    ("resnet50", "or torchvision:NAME of a classifier$"),
    ("torchvision:alexnet", "'torchvision:alexnet' at 32 pixels a side raises RuntimeError"),
    ("torchvision:googlenet", r"expected logits \(2, 2\) while it trains, found GoogLeNetOutputs"),
])  # fmt: skip
def test_networks_that_cannot_be_trained_whole_are_refused(name: str, told: str) -> None:
    with pytest.raises(InputError, match=told) as caught:
        heads.expect_trains(name, 2, 32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["torchvision:resnet18", MOBILE, "lite0", "squeezenet"])
def test_networks_that_can_are_not_refused(name: str) -> None:
    before = torch.get_rng_state()
    heads.expect_trains(name, 2, 32)
    assert torch.equal(torch.get_rng_state(), before), "nobody else's random numbers are drawn"


def test_all_of_a_network_is_trained_where_nobody_says_that_its_head_learns_alone() -> None:
    recipe = Recipe(partial(heads.untrained, name=SHUFFLE, classes=3, pixels=32), epochs=2, batch=8, learning_rate=1e-2)
    started = load(heads.start(SHUFFLE, 3, "test", 0, pixels=32))
    fresh = initialised(recipe, 0)
    fresh.load_state_dict(started.state_dict())
    assert same(train(fresh, batch(), recipe, 0), started) == set()


def test_a_network_from_scratch_learns() -> None:
    recipe = replace(heads.from_scratch(3, 32), epochs=15)
    model = train(initialised(recipe, 0), batch(48), recipe, 0)
    with torch.no_grad():
        assert float((model(batch(48).inputs).argmax(1) == batch(48).labels).double().mean()) > 0.9


def test_a_network_from_scratch_looks_at_large_pictures_from_afar() -> None:
    network = heads.from_scratch(2, 128).network
    assert network.func is plain_cnn  # type: ignore[attr-defined]
    assert network.keywords["shrink"] == 2  # type: ignore[attr-defined]
    assert network()(torch.rand(1, 3, 128, 128)).shape == (1, 2)
    with pytest.raises(InputError, match="expected at least 16 pixels a side, found 15"):
        heads.from_scratch(2, 15)
