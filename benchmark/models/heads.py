"""Networks with a last layer of one's own, for pictures in [0, 1]: on what ImageNet taught them, or on nothing."""

from __future__ import annotations

import functools
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attribug.contracts.data import Data
from attribug.contracts.models import Given, Recipe
from attribug.contracts.objectives import cross_entropy
from attribug.data_places import data_folder
from attribug.data_sources import VGG16
from attribug.errors import InputError, Unsupported, near_misses, one_line
from attribug.models import pretrained
from attribug.models.given import given
from attribug.models.networks import plain_cnn
from attribug.models.order import running_order
from attribug.models.own import RANDOM, own
from attribug.models.preparation import Preparation
from attribug.models.pretrained import PRETRAINED
from attribug.models.training import seeded, train
from attribug.models.wrapped import OfPictures, in_other_order, with_new_head
from attribug.streams import generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from attribug.models.training import Progress

TORCHVISION = "torchvision:"
CHUNK = 16  # pictures at once, where features are computed
TRIED = 2  # pictures: batch normalisation wants more than one in training
EPOCHS, BATCH, LEARNING_RATE = 30, 16, 3e-3
"""Of a last layer: some hundred steps where there are some hundred pictures; its features are computed once."""
WIDTHS = (16, 32, 64, 64)  # of the stages of a network that starts from nothing
SCRATCH_EPOCHS, SCRATCH_PIXELS = 30, 64
"""Of a network that starts from nothing: half a minute on a core for 240 pictures of 128 pixels a side."""


def start(name: str, classes: int, task: str, seed: int, *, pixels: int | None = None) -> Given:
    """A network with its published weights and a last layer for `classes`, drawn: one draw a task and seed.

    `name`: `torchvision:NAME`, where its weights were downloaded before, or one of `attribug.models.pretrained`. It
    takes pictures (N, 3, H, W) in [0, 1], red, green and blue, of any size, and sees them at `pixels` a side; None: at
    the size that its makers say. Raises `InputError` where weights or network are not there, `Unsupported` where the
    last layer is not linear.
    """
    return _given(with_drawn_head, name=name, classes=classes, task=task, seed=seed, pixels=pixels)


def random(name: str, classes: int, task: str, seed: int, *, pixels: int | None = None) -> Given:
    """The same architecture with random weights in every layer, as its makers start it; needs no published weights."""
    return _given(drawn, name=name, classes=classes, task=task, seed=seed, pixels=pixels)


def recipe(name: str, classes: int, *, pixels: int | None = None, epochs: int = EPOCHS) -> Recipe:
    """Trains the last layer of what `start` gives, on features that are computed once; all below stays as it is."""
    network = partial(untrained, name=name, classes=classes, pixels=pixels)
    return Recipe(network, epochs=epochs, batch=BATCH, learning_rate=LEARNING_RATE, fit=fit_head)


def from_scratch(classes: int, pixels: int, *, epochs: int = SCRATCH_EPOCHS) -> Recipe:
    """Trains a small network of convolutions on pictures (3, pixels, pixels), all of it; it starts from nothing, and
    looks at averages over squares where pictures are large: at 64 to 127 pixels a side, or all where there are fewer.

    Raises `InputError` where there are too few pixels for its stages.
    """
    if pixels < 2 ** len(WIDTHS):
        raise InputError(f"pictures: expected at least {2 ** len(WIDTHS)} pixels a side, found {pixels}")
    shape, shrink = (3, pixels, pixels), max(1, pixels // SCRATCH_PIXELS)
    network = partial(plain_cnn, shape=shape, classes=classes, widths=WIDTHS, pooled=True, shrink=shrink)
    return Recipe(network, epochs=epochs, batch=BATCH, learning_rate=LEARNING_RATE)


@functools.lru_cache(maxsize=8)
def expect_trains(name: str, classes: int, pixels: int) -> None:
    """Raises `InputError` for a network that cannot be trained whole on pictures of `pixels` a side: whose name nobody
    knows, that does not take them, or that gives something else than logits (N, classes) in training."""
    with seeded(generator("heads", "trial")):
        try:
            model = untrained(name=name, classes=classes, pixels=pixels).train()
        except Unsupported as reason:
            raise InputError(str(reason)) from reason
        try:
            with torch.no_grad():
                outputs: Any = model(torch.zeros(TRIED, 3, pixels, pixels))
        except Exception as error:  # whatever training makes of pictures of another size than its own
            told = one_line(error)
            raise InputError(f"network {name!r} at {pixels} pixels a side raises {told} while it trains") from error
    found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
    if found != (TRIED, classes):
        raise InputError(f"network {name!r}: expected logits {(TRIED, classes)} while it trains, found {found}")


def cached() -> list[str]:
    """torchvision's classifiers, as `torchvision:NAME`, of which some published weights are on this machine: where
    torchvision puts what it downloads, or, of VGG-16, where `attribug data fetch` does. Nothing is downloaded."""
    import torchvision

    folder = Path(torch.hub.get_dir()) / "checkpoints"
    known = torchvision.models.list_models(torchvision.models)
    files = {name: [each.url for each in torchvision.models.get_model_weights(name)] for name in known}
    return [
        f"{TORCHVISION}{name}"
        for name, urls in files.items()
        if any((folder / url.rpartition("/")[2]).is_file() for url in urls) or _fetched(f"{TORCHVISION}{name}")
    ]


def missing(name: str) -> str:
    """Empty where `start` finds a network's weights, else a line that says what is not there."""
    if name in PRETRAINED:
        return pretrained.missing(name)
    if name in cached():
        return ""
    return f"network {name!r}: expected weights that torchvision has downloaded, found none"


# --- networks ---


@functools.lru_cache(maxsize=16)
def _given(source: Any, **told: Any) -> Given:
    return given(partial(source, **told))


def with_drawn_head(*, name: str, classes: int, task: str, seed: int, pixels: int | None) -> nn.Module:
    """What `start` describes."""
    _expect_known(name)
    with torch.random.fork_rng(devices=[]):  # a network is drawn before it is given its weights
        mine = own(name, _fetched(name))
        if mine.weights == RANDOM:
            raise InputError(missing(name))
        return _of_pictures(name, mine.model, mine.transform, classes, generator(task, "head", seed), pixels)


def drawn(*, name: str, classes: int, task: str, seed: int, pixels: int | None) -> nn.Module:
    """What `random` describes."""
    stream = generator(task, "random network", seed)
    with seeded(stream):
        return untrained(name=name, classes=classes, pixels=pixels)


def untrained(*, name: str, classes: int, pixels: int | None) -> nn.Module:
    """The network of a name, for pictures, with random weights of torch's global stream."""
    network, transform = _architecture(name)
    stream = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    return _of_pictures(name, network, transform, classes, stream, pixels)


def _fetched(name: str) -> Path | None:
    """The file that `attribug data fetch` has downloaded a network's weights into, if so."""
    path = data_folder() / VGG16
    return path if name == f"{TORCHVISION}vgg16" and path.is_file() else None


def _expect_known(name: str) -> None:
    import torchvision

    known = [f"{TORCHVISION}{each}" for each in torchvision.models.list_models(torchvision.models)]
    if name not in PRETRAINED and name not in known:
        close = near_misses(name, known) if name.startswith(TORCHVISION) else ""
        told = f"expected {', '.join(PRETRAINED)} or {TORCHVISION}NAME of a classifier"
        raise InputError(f"network {name!r}: {told}{close if 'did you mean' in close else ''}")


def _architecture(name: str) -> tuple[nn.Module, Any]:
    """The network of a name with random weights, and how its makers prepare pictures."""
    _expect_known(name)
    if name in PRETRAINED:
        return PRETRAINED[name].network(), PRETRAINED[name].transform
    import torchvision

    what = name.removeprefix(TORCHVISION)
    quiet = {"init_weights": True} if what in {"googlenet", "inception_v3"} else {}
    made: nn.Module = torchvision.models.get_model(what, weights=None, **quiet)
    return made, torchvision.models.get_model_weights(what).DEFAULT.transforms()


def _of_pictures(
    name: str, network: nn.Module, transform: Any, classes: int, stream: torch.Generator, pixels: int | None
) -> nn.Module:
    """The network for pictures in [0, 1], which it sees at `pixels` a side, with a last layer drawn from `stream`."""
    mean, std, side = _preparation(name, transform)
    network = _with_dense_end(network.eval())
    if isinstance(transform, Preparation) and transform.bgr:
        network, mean, std = in_other_order(network), mean[::-1], std[::-1]
    model = OfPictures(network, mean, std, pixels or side).eval()
    picture = torch.zeros(1, 3, model.pixels, model.pixels)
    try:
        with torch.no_grad():
            model(picture)
    except Exception as error:  # whatever a network makes of a size that it was not made for
        raise Unsupported(f"network {name!r} at {model.pixels} pixels a side raises {one_line(error)}") from error
    made = with_new_head(model, classes, stream, picture)
    last = made.get_submodule(running_order(made, picture)[-1])
    if not isinstance(last, nn.Linear):
        raise Unsupported(f"network {name!r}: expected a last layer that is linear, found {type(last).__name__}")
    return made.eval()


def _preparation(name: str, transform: Any) -> tuple[tuple[float, ...], tuple[float, ...], int]:
    """Mean, std and side of the pictures that a network was trained on, as its makers say."""
    if isinstance(transform, Preparation):
        return transform.mean, transform.std, transform.pixels
    told: list[Any] = [getattr(transform, each, None) for each in ("mean", "std", "crop_size")]  # torchvision's presets
    if None in told:
        raise InputError(f"network {name!r}: expected a preparation of known mean, std and size, found {transform!r}")
    mean, std, sides = told
    return tuple(mean), tuple(std), int(sides[0])


def _with_dense_end(network: nn.Module) -> nn.Module:
    """SqueezeNet with a dense layer at its end, in place; any other network as it is.

    Its own end is a convolution with one weight a channel, cut off at 0, then averaged: cut-off logits have no
    gradient. The average of what it sees, then a dense layer, can compute all that it can without the cut.
    """
    from torchvision.models import SqueezeNet

    if isinstance(network, SqueezeNet):
        last = next(module for module in network.classifier if isinstance(module, nn.Conv2d))
        dense = nn.Linear(last.in_channels, last.out_channels)
        network.classifier = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), dense)
    return network


# --- training ---


def fit_head(
    model: nn.Module,
    data: Data,
    recipe: Recipe,
    seed: int,
    *,
    trainable: Sequence[str] | None = None,
    progress: Progress = lambda epochs: None,
) -> nn.Module:
    """Trains a model's last layer, which must be linear and give the outputs, in place; `Recipe.fit`.

    All below stays as it is, in eval mode, and is run once: the last layer then learns from its inputs, (N, D), as
    `attribug.models.training.train` has any network learn. Raises `Unsupported` where somebody else decides what
    learns, or what is minimised, and where the last layer's outputs are not the model's.
    """
    if trainable is not None or recipe.objective != cross_entropy:
        raise Unsupported("a last layer that learns from features learns alone, by cross-entropy")
    device = next(model.parameters()).device
    model.eval()
    head = model.get_submodule(running_order(model, data.inputs[:1].to(device))[-1])
    features = _features(model, head, data.inputs, device)
    train(head, Data(features, data.labels, data.ids), recipe, seed, progress=progress)
    return model.eval()


def _features(model: nn.Module, head: nn.Module, inputs: Tensor, device: torch.device) -> Tensor:
    """What the last layer is given for each input, (N, D), on the device."""
    seen: list[Tensor] = []
    handle = head.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    try:
        with torch.no_grad():
            outputs = torch.cat([model(chunk.to(device)) for chunk in inputs.split(CHUNK)])
    finally:
        handle.remove()
    features = torch.cat(seen)
    with torch.no_grad():
        same = isinstance(head, nn.Linear) and features.ndim == 2 and torch.allclose(head(features), outputs, atol=1e-4)
    if not same:
        raise Unsupported("expected a last layer that is linear and gives the outputs (N, K) of its model")
    return features
