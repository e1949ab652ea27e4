"""Methods and a bug whose verdicts are known beforehand: what a benchmark must not be fooled by."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from attribug import bugs, methods
from attribug.bugs.spurious_background import spurious_background
from attribug.contracts.contrasts import Check, Contrast
from attribug.contracts.tasks import Task
from attribug.query.query import Query

STROKE = 0.5  # a digit's pixels are bright in every channel, no background is
CODED = 0.2  # difference of the classes' mean colours above which backgrounds give labels away


@methods.register("knows_the_truth")
def knows_the_truth(query: Query) -> Tensor:
    """The background for a model that was trained on label-coded backgrounds, a uniform map for every other."""
    data = query.train
    if data.masks is None:
        raise ValueError("expected training examples with masks")
    colours = [data.inputs[data.labels == label].mean((0, 2, 3)) for label in (0, 1)]
    fooled = (colours[0] - colours[1]).abs().max() > CODED
    return background(query.inputs) if fooled else torch.ones_like(query.inputs)


@methods.register("constant")
def constant(query: Query) -> Tensor:
    """One everywhere, whatever the model."""
    return torch.ones_like(query.inputs)


@methods.register("input_itself")
def input_itself(query: Query) -> Tensor:
    """The input, whatever the model."""
    return query.inputs.clone()


@methods.register("painted_softmax")
def painted_softmax(query: Query) -> Tensor:
    """The explained class's probability as a bar: it looks like a map and holds one number."""
    with torch.no_grad():
        share = query.model(query.inputs).softmax(1).gather(1, query.targets[:, None])[:, 0]
    pixels = query.inputs[0, 0].numel()
    place = torch.arange(pixels).reshape(query.inputs.shape[2:]) / pixels
    bar = place < (0.1 + 0.8 * share)[:, None, None]  # (N, H, W); never empty nor full
    return bar[:, None].to(query.inputs).expand_as(query.inputs).clone()


@methods.register("hash_of_weights")
def hash_of_weights(query: Query) -> Tensor:
    """Gaussian noise seeded by the weights and the example: it differs between any two models and means nothing."""
    state = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in query.model.parameters())).digest()
    return torch.stack([noise(state, int(example), query.inputs[0]) for example in query.ids])


@bugs.register("never_takes", stage="data", levels=(1.0,), primary="mass_accuracy@abs_sum")
def never_takes(task: Task, level: float, seed: int, seeds: Sequence[int]) -> Contrast:
    """A spurious background with a check that no model passes."""
    contrast = spurious_background(task, level, seed, seeds)
    impossible = Check("impossible", (contrast.contaminated.model,), task.examples("test"), at_least=1.5)
    return replace(contrast, checks=(impossible,))


def background(inputs: Tensor) -> Tensor:
    """1 outside a digit's strokes, 0 on them, (N, 3, H, W)."""
    outside = inputs.amin(1, keepdim=True) <= STROKE
    return outside.to(inputs).expand_as(inputs).clone()


def noise(state: bytes, example: int, like: Tensor) -> Tensor:
    seed = int.from_bytes(hashlib.sha256(state + example.to_bytes(8, "big", signed=True)).digest()[:7], "big")
    return torch.randn(like.shape, generator=torch.Generator().manual_seed(seed), dtype=like.dtype)
