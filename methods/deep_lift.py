"""DeepLIFT: differences from a baseline, handed back through multipliers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from attribug import methods
from attribug.errors import Unsupported
from attribug.query.hooks import forward_hooks
from attribug.query.preflight import POOLS, rounding
from attribug.query.query import Baseline, Query, exactly

SMALLEST = 1e-10  # differences of inputs below it take the gradient in place of the quotient, as in captum


@methods.register(
    "deep_lift",
    needs=("piecewise_linear", "pool_modules"),
    conserves=True,
    paper="Shrikumar et al. 2017, section 3.5.2: rescale rule",
)
def deep_lift(query: Query, *, baseline: Baseline = 0.0) -> Tensor:
    """DeepLIFT shows what each input value adds to the class's logit, compared with a baseline input.

    (x − b) ⊙ multipliers: ReLUs hand back Δoutput / Δinput in place of their slope, max-pooling alike.

    Works on networks that use one ReLU several times. `baseline`: a number or a tensor that broadcasts to the inputs.
    Completeness: maps sum to F_t(x) − F_t(b).
    """
    start = query.at_baseline(baseline)
    rows = max(1, query.rows // 2)  # every input brings its baseline along
    maps = []
    totals = query.gains(baseline)
    query.promise(totals)
    relus = [m for m in query.model.modules() if isinstance(m, nn.ReLU)]
    pools = [m for m in query.model.modules() if isinstance(m, POOLS)]
    with forward_hooks(relus, _relu), forward_hooks(pools, _pool):
        for first in range(0, len(query.inputs), rows):
            part = slice(first, first + rows)
            pair = torch.cat([query.inputs[part], start[part]])
            multipliers = query.input_gradient(pair, query.targets[part].repeat(2)).chunk(2)[0]
            maps.append((query.inputs[part] - start[part]) * multipliers)
    result = torch.cat(maps)
    _refuse_incomplete(result, totals, query.inputs, rounding(query))
    return result


def _refuse_incomplete(maps: Tensor, totals: Tensor, inputs: Tensor, eps: float) -> None:
    """Raises `Unsupported` unless maps of finite inputs add up to totals (N,) that are finite, within the square root
    of the model's rounding `eps`."""
    finite = totals.isfinite() & inputs.flatten(1).isfinite().all(1)
    missed = (maps.flatten(1).double().sum(1) - totals)[finite].abs()
    if len(missed) and not bool((missed <= eps**0.5 * (1 + totals[finite].abs().max())).all()):
        raise Unsupported(
            "multipliers do not add up to F(x) − F(b): the model mixes its examples, or hides a part from gradients"
        )


def _relu(module: nn.Module, args: tuple[Tensor], output: Tensor) -> Tensor:
    rescaled: Tensor = _Rescaled.apply(args[0], output)
    return rescaled


def _pool(module: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
    kind: Any = next(kind for kind in POOLS if isinstance(module, kind))
    pooled: Tensor = _Pooled.apply(args[0], output, lambda inputs: kind.forward(module, inputs))
    return pooled


class _Rescaled(torch.autograd.Function):
    """A rectifier on inputs and baselines together: both get the same multiplier."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, outputs: Tensor) -> Tensor:
        context.save_for_backward(inputs, outputs)
        return outputs.clone()

    @staticmethod
    def backward(context: Any, incoming: Tensor) -> tuple[Tensor, None]:
        inputs, outputs = (exactly(saved) for saved in context.saved_tensors)
        difference, change = _differences(inputs), _differences(outputs)
        slope = (inputs > 0).to(inputs)
        quotient = torch.where(difference.abs() < SMALLEST, 1, difference)
        multiplier = torch.where(difference.abs() < SMALLEST, slope, change / quotient)
        return (incoming * multiplier).to(incoming.dtype), None


class _Pooled(torch.autograd.Function):
    """Max-pooling: a window's change of maximum goes, in units of Δinput, to the places of both maxima."""

    @staticmethod
    def forward(context: Any, inputs: Tensor, outputs: Tensor, pool: Callable[[Tensor], Tensor]) -> Tensor:
        context.save_for_backward(inputs, outputs)
        context.pool = pool
        return outputs.clone()

    @staticmethod
    def backward(context: Any, incoming: Tensor) -> tuple[Tensor, None, None]:
        inputs, outputs = (exactly(saved) for saved in context.saved_tensors)
        dtype, incoming = incoming.dtype, exactly(incoming)
        with torch.enable_grad():
            leaf = inputs.detach().requires_grad_(True)
            pooled = context.pool(leaf)
        present, baseline = outputs.chunk(2)
        larger = torch.maximum(present, baseline)
        change = torch.cat([larger - baseline, present - larger])  # a maximum is charged with what it alone changes
        (charged,) = torch.autograd.grad(pooled, leaf, incoming * change, retain_graph=True)
        (slope,) = torch.autograd.grad(pooled, leaf, incoming)
        difference, total = _differences(inputs), torch.add(*charged.chunk(2))
        quotient = torch.where(difference.abs() < SMALLEST, 1, difference)
        multiplier = torch.cat([total, total]) / quotient
        return torch.where(difference.abs() < SMALLEST, slope, multiplier).to(dtype), None, None


def _differences(pair: Tensor) -> Tensor:
    """Input minus baseline, for both halves of a batch."""
    present, baseline = pair.chunk(2)
    return (present - baseline).repeat(2, *[1] * (pair.ndim - 1))
