"""Looks at a model before a method runs: whatever would make the method silently wrong is refused with its reason."""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

import torch
from torch import Tensor, nn

from attribug.errors import InputError, Unsupported
from attribug.query.hooks import hooks
from attribug.query.query import Query, as_logits
from attribug.query.trace import graph, operation, reaches, trace

ROUTING = {
    "AccumulateGrad", "Alias", "BackwardHookFunction", "Cat", "Clone", "ConstantPadNd", "Expand",
    "MaxPool2DWithIndices", "Permute", "ReshapeAlias", "Select", "Slice", "Split", "Squeeze", "Stack", "T", "ToCopy",
    "Transpose", "UnsafeView", "Unsqueeze", "View",
}  # fmt: skip
"""Operations that hand values on, by their names in the autograd graph."""
PIECEWISE_LINEAR = ROUTING | {
    "Add", "Addmm", "AvgPool2D", "AdaptiveAvgPool2D", "Convolution", "CudnnBatchNorm", "Mean", "Mm", "NativeBatchNorm",
    "Relu", "Sub", "Sum",
}  # fmt: skip
"""What ReLU networks are made of; anything else is refused by methods made for these, since a rectifier may hide in it
(where, clamp, a product with a mask)."""
SHUFFLING = {"Clamp", "Flip", "Index", "Roll"}  # at a model's end these hide no more than routing does
PROBABILITIES = {"Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid"}
PLAIN = (bool, int, float, str, tuple, FunctionType, MethodType, BuiltinFunctionType)  # what a forward may depend on
SUMS_TO_ONE = 1e-4  # how near to 1 the outputs of three unlike inputs must sum to be taken for probabilities


def preflight(query: Query, needs: tuple[str, ...]) -> None:
    """Raises `Unsupported` unless the model gives logits that depend on the input, and has what a method `needs`;
    `InputError` for targets that the model has no logit for."""
    for need in ("logits", *needs):
        if need not in PREFLIGHT:
            raise ValueError(f"needs: expected one of {', '.join(sorted(PREFLIGHT))}, found {need!r}")
        require(query, need, PREFLIGHT[need])
        if need == "logits":
            classes, query.channels_last = _passed[query.model].classes, _passed[query.model].channels_last
    if not 0 <= int(query.targets.min()) <= int(query.targets.max()) < classes:
        found = f"{int(query.targets.min())} to {int(query.targets.max())}"
        raise InputError(f"targets: expected classes from 0 to {classes - 1}, found {found}")


def require(query: Query, need: str, check: Callable[[Query], None]) -> None:
    """Raises `Unsupported` if `check` does. A refusal is remembered with the query; what passed, with the model as long
    as it is what it was: see `stamp`."""
    passed = _passed.get(query.model)
    if passed is None or not passed.holds_for(query):
        passed = _passed[query.model] = _Passed.of(query)
    if need in passed.needs:
        return
    if need not in query.refusals:
        try:
            check(query)
            passed.needs.add(need)
            return
        except Unsupported as reason:
            query.refusals[need] = str(reason)
    raise Unsupported(query.refusals[need])


@dataclass
class _Passed:
    """What a model has been found to have."""

    modules: tuple[weakref.ref[nn.Module], ...]
    stamp: tuple[Any, ...]
    form: tuple[Any, ...]
    needs: set[str] = field(default_factory=set)
    classes: int = 0
    channels_last: bool = False

    @staticmethod
    def of(query: Query) -> _Passed:
        """A query's model as it stands."""
        modules = tuple(weakref.ref(module) for module in query.model.modules())
        return _Passed(modules, stamp(query.model), _form(query))

    def holds_for(self, query: Query) -> bool:
        """Whether the model still is what was looked at."""
        modules = list(query.model.modules())
        same = len(modules) == len(self.modules)
        same = same and all(known() is module for known, module in zip(self.modules, modules, strict=True))
        return same and (self.stamp, self.form) == (stamp(query.model), _form(query))


_passed: weakref.WeakKeyDictionary[nn.Module, _Passed] = weakref.WeakKeyDictionary()


def stamp(model: nn.Module) -> tuple[Any, ...]:
    """What tells whether a model is still the same: its tensors with their versions, its modules' plain attributes and
    functions. Weights written through `.data` do not show."""
    tensors = tuple((id(t), t._version, t.data_ptr()) for t in [*model.parameters(), *model.buffers()])
    plain = tuple(
        (name, value)
        for module in model.modules()
        for name, value in vars(module).items()
        if name != "training" and (value is None or isinstance(value, PLAIN))
    )
    return tensors, plain, tuple(getattr(type(module), "forward", None) for module in model.modules())


def _form(query: Query) -> tuple[Any, ...]:
    return tuple(query.inputs.shape[1:]), query.inputs.dtype, query.inputs.device, hooks(query.model)


def logits(query: Query) -> None:
    """Refuses outputs that are no logits (N, K), or probabilities, or the same whatever the input."""
    first = query.inputs[:1]
    leaf = torch.cat([first, first.amax() + first.amin() - first, first.flip(-1)]).requires_grad_(True)  # data's range
    query.channels_last = leaf.ndim == 4 and leaf.device.type == "cpu"
    with torch.enable_grad():
        try:
            outputs = _all_outputs(query, leaf)
            if outputs.requires_grad:
                torch.autograd.grad(outputs.sum(), leaf, allow_unused=True, retain_graph=True)
        except RuntimeError as error:
            if not query.channels_last or "view size is not compatible" not in str(error):
                raise
            query.channels_last = False
            outputs = _all_outputs(query, leaf)
    passed = _passed[query.model]
    passed.classes, passed.channels_last = outputs.shape[1], query.channels_last
    last = outputs.grad_fn
    while last is not None and operation(last) in ROUTING | SHUFFLING and last.next_functions:
        last = last.next_functions[0][0]
    values = outputs.detach()
    with torch.no_grad():
        twice = _all_outputs(query, first.repeat(2, *[1] * (first.ndim - 1)))[:1]
    near = torch.finfo(values.dtype).eps ** 0.5 * _largest(values)
    if not torch.allclose(twice, values[:1], rtol=0, atol=near, equal_nan=True):
        raise Unsupported("an example's outputs depend on the other examples of its batch, or on chance")
    ones = (values >= 0).all() and ((values.sum(1) - 1).abs() < SUMS_TO_ONE).all()
    ones = ones or (values.logsumexp(1).abs() < SUMS_TO_ONE).all()  # of their logarithms
    if last is not None and operation(last) in PROBABILITIES:
        raise Unsupported(f"the model ends in {operation(last)}; give it without, so that it returns logits")
    if ones and values.shape[1] > 1:
        raise Unsupported("the model returns probabilities (they sum to 1) or their logarithms; let it return logits")
    told = not torch.equal(leaf[:1], leaf[1:2])  # else nothing can depend on it
    if told and not reaches(graph(outputs), leaf) and torch.equal(values, values[:1].expand_as(values)):
        raise Unsupported("the model's output does not depend on its input")


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.isfinite().all() else 1.0


def _all_outputs(query: Query, inputs: Tensor) -> Tensor:
    return torch.cat([as_logits(query.model(query.laid_out(part))) for part in inputs.split(query.rows)])


def relu_modules(query: Query) -> None:
    """Refuses models in which hooks on `nn.ReLU` modules would miss a rectifier or meet another activation."""
    seen = trace(query.model, query.inputs)
    other = sorted({operation(node) for node in seen.nodes} - PIECEWISE_LINEAR)
    if other:
        raise Unsupported(f"is defined for ReLU networks; the model uses {other[0]}")
    rectified = {getattr(output, "grad_fn", None) for module, _, output in seen.calls if isinstance(module, nn.ReLU)}
    rectifiers = [node for node in seen.nodes if operation(node) == "Relu"]
    functional = sum(node not in rectified for node in rectifiers)
    if functional:
        raise Unsupported(f"{functional} ReLU(s) are function calls that hooks cannot see; use nn.ReLU modules")
    if not rectifiers:
        raise Unsupported("the model has no ReLU")


def layers_run_once(query: Query) -> None:
    """Refuses models that use one module several times, for methods that keep what a module saw."""
    counts = Counter(module for module, _, _ in trace(query.model, query.inputs).calls)
    reused = [module for module, count in counts.items() if count > 1]
    if reused:
        names = {module: name for name, module in query.model.named_modules()}
        raise Unsupported(f"module {names[reused[0]]!r} runs {counts[reused[0]]} times; give each use its own module")


def pool_modules(query: Query) -> None:
    """Refuses models whose max-pooling is not all done by `nn.MaxPool2d` modules that return values alone."""
    seen = trace(query.model, query.inputs)
    pooled = {getattr(output, "grad_fn", None) for module, _, output in seen.calls if isinstance(module, nn.MaxPool2d)}
    if any(operation(node).startswith("MaxPool") and node not in pooled for node in seen.nodes):
        raise Unsupported("max-pooling is a function call that hooks cannot see; use nn.MaxPool2d modules")


PREFLIGHT: dict[str, Callable[[Query], None]] = {
    "logits": logits,
    "relu_modules": relu_modules,
    "layers_run_once": layers_run_once,
    "pool_modules": pool_modules,
}
"""What a method's `needs` may name."""
