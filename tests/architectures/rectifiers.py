"""ReLU by other operations, and inputs that are normalised inside the model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.transforms import Normalize

from architectures.forms import steps
from architectures.specimens import Group, Pair, Specimen, beside, copied, network

MEAN, DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class OwnReLU(nn.ReLU):
    """A ReLU with a forward of its own."""

    def forward(self, input: Tensor) -> Tensor:
        """Rectified."""
        return input.clamp(min=0)


class Hidden(torch.autograd.Function):
    """A rectifier with a backward of its own."""

    @staticmethod
    def forward(context: Any, inputs: Tensor) -> Tensor:
        """Rectified."""
        context.save_for_backward(inputs)
        return inputs.clamp(min=0)

    @staticmethod
    def backward(context: Any, incoming: Tensor) -> Tensor:
        """As a ReLU's."""
        (inputs,) = context.saved_tensors
        return incoming * (inputs > 0)


class Standardising(nn.Module):
    """A network that takes images in [0, 1]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.register_buffer("mean", torch.tensor(MEAN, dtype=torch.float64).reshape(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(DEVIATION, dtype=torch.float64).reshape(3, 1, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits."""
        return self.model((inputs - self.mean) / self.deviation)


def normalising() -> nn.Sequential:
    """The plain network behind a 1 × 1 convolution that normalises."""
    first = nn.Conv2d(3, 3, 1).double()
    mean, deviation = torch.tensor(MEAN, dtype=torch.float64), torch.tensor(DEVIATION, dtype=torch.float64)
    with torch.no_grad():
        first.weight.copy_(torch.diag(1 / deviation)[:, :, None, None])
        first.bias.copy_(-mean / deviation)
    return nn.Sequential(first, *network())


def normalised(around: Callable[[nn.Module], nn.Module]) -> Pair:
    """A network whose inputs are normalised, beside the convolution that does."""
    truth = normalising()
    return beside(around(copied(truth[1:])).eval(), truth)


def by_batch_norm(model: nn.Module) -> nn.Module:
    """A batch norm normalises the inputs."""
    norm = nn.BatchNorm2d(3, eps=0).double()
    norm.running_mean = torch.tensor(MEAN, dtype=torch.float64)
    norm.running_var = torch.tensor(DEVIATION, dtype=torch.float64).square()
    return nn.Sequential(norm, *model)


RECTIFIERS: dict[str, Callable[[Tensor], Tensor]] = {
    "`torch.where(x > 0, x, 0)`": lambda x: torch.where(x > 0, x, 0),
    "`x.clamp(min=0)`": lambda x: x.clamp(min=0),
    "`x * (x > 0)`": lambda x: x * (x > 0),
    "`(x + x.abs()) / 2`": lambda x: (x + x.abs()) / 2,
    "`torch.maximum(x, 0)`": lambda x: torch.maximum(x, torch.zeros_like(x)),
    "`x.masked_fill(x < 0, 0)`": lambda x: x.masked_fill(x < 0, 0),
    "`x[x < 0] = 0`": lambda x: x.clone().index_put_((x < 0,), torch.zeros((), dtype=x.dtype)),
    "maximum of a stack with 0": lambda x: torch.stack([x, torch.zeros_like(x)]).amax(0),
    "`functional.threshold`": lambda x: functional.threshold(x, 0, 0),
    "an `autograd.Function`": Hidden.apply,
    "`nn.ReLU` with a forward of its own": OwnReLU(),
    "`nn.LeakyReLU(0)`": nn.LeakyReLU(0.0),
    "`nn.Hardtanh(0, 1e9)`": nn.Hardtanh(0, 1e9),
    "`nn.RReLU(0, 0)`": nn.RReLU(0.0, 0.0),
}
NORMALISATIONS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "`(x − mean) / deviation` in the model": Standardising,
    "torchvision's `Normalize` in the model": lambda model: nn.Sequential(Normalize(MEAN, DEVIATION), *model),
    "a batch norm that comes first": by_batch_norm,
}
GROUP = Group(
    "ReLU by other operations, inputs that the model normalises",
    "Truth: `nn.ReLU`; a 1 × 1 convolution that normalises.",
    (
        *(Specimen(name, partial(steps, relu=function)) for name, function in RECTIFIERS.items()),
        *(Specimen(name, partial(normalised, around)) for name, around in NORMALISATIONS.items()),
    ),
)
