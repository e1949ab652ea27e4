"""One pass of one example: which modules run, and the autograd graph behind the outputs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from attribug.errors import Unsupported
from attribug.query.hooks import forward_hooks
from attribug.query.query import as_logits


@dataclass(frozen=True)
class Trace:
    """One pass of one example: the autograd graph behind the outputs, and the calls of modules without children."""

    outputs: Tensor
    leaf: Tensor
    nodes: set[Any]
    calls: list[tuple[nn.Module, tuple[Any, ...], Any]]
    """Module, arguments, output; in order."""


def trace(model: nn.Module, inputs: Tensor) -> Trace:
    """Runs a model on its first input and looks at what happens; refuses TorchScript, which takes no hooks."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise Unsupported("the model is TorchScript, whose modules take no hooks")
    calls: list[tuple[nn.Module, tuple[Any, ...], Any]] = []
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]

    def note(module: nn.Module, arguments: tuple[Any, ...], output: Any) -> None:
        calls.append((module, arguments, output))

    leaf = inputs[:1].detach().clone().requires_grad_(True)
    with forward_hooks(leaves, note), torch.enable_grad():
        outputs = as_logits(model(leaf))
    return Trace(outputs, leaf, graph(outputs), calls)


def operation(node: Any) -> str:
    """What a node of the autograd graph differentiates: `Relu` for `ReluBackward0`."""
    name: str = node.name()
    return name.rpartition("::")[2].partition("Backward")[0]


def graph(outputs: Tensor, without: Any = None) -> set[Any]:
    """All operations (nodes) of the autograd graph behind a tensor; of those only behind the node `without`, none."""
    seen: set[Any] = set()
    waiting: list[Any] = [outputs.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node is not without and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return seen


def reaches(nodes: set[Any], leaf: Tensor) -> bool:
    """Whether operations lead back to a leaf."""
    return any(getattr(node, "variable", None) is leaf for node in nodes)
