"""TorchScript beside the model that it was made of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from architectures.specimens import Group, Pair, Specimen, beside, copied, images, network

Compiler = Callable[[nn.Module], nn.Module]


def traced(model: nn.Module) -> nn.Module:
    """By example."""
    return torch.jit.trace(model, images())


def part(model: nn.Module) -> nn.Module:
    """TorchScript inside of a model that is none."""
    return nn.Sequential(torch.jit.script(model[:3]), *model[3:])


def made(compiler: Compiler, *, in_place: bool = False) -> Pair:
    """TorchScript beside the model, whose ReLUs are separate and do not work in place."""
    truth = network()
    model = copied(truth)
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = in_place
    return beside(compiler(model).eval(), truth)


GROUP = Group(
    "TorchScript",
    "Truth: the model that was scripted or traced, with ReLUs that do not work in place.",
    (
        Specimen("scripted", partial(made, torch.jit.script)),
        Specimen("scripted, in-place ReLU", partial(made, torch.jit.script, in_place=True)),
        Specimen("traced", partial(made, traced)),
        Specimen("traced, in-place ReLU", partial(made, traced, in_place=True)),
        Specimen("scripted and frozen", partial(made, lambda model: torch.jit.freeze(torch.jit.script(model)))),
        Specimen("scripted in part", partial(made, part)),
    ),
)
