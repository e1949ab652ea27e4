"""Looks at a model before a method runs: whatever would make the method silently wrong is refused with its reason."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from attribug.errors import InputError, Unsupported, one_line
from attribug.query.hooks import hooks
from attribug.query.query import Query, as_logits, gradient_at
from attribug.query.trace import HANDING_ON, WEIGHTED, Trace, graph, is_script, operation, reaches, spelled, trace

LAST_STEPS = {spelled(name) for name in HANDING_ON} | {"Clamp", "Index", ""}
"""Operations that may follow a softmax at a model's end, by their names in the autograd graph."""
PROBABILITIES = {"Softmax", "LogSoftmax", "Sigmoid", "LogSigmoid"}
ROUNDINGS = 8  # how many roundings of its type a sum may be off
OF_TYPES = ("dtype", "scalar type", "should be the same", "must match")  # words of torch's about number types
POOLS = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
SUMS_TO_ONE = 1e-4  # how near to 1 the outputs of unlike inputs must sum to be taken for probabilities


def preflight(query: Query, needs: tuple[str, ...]) -> None:
    """Raises `Unsupported` unless the model gives logits that depend on the input, and has what a method `needs`;
    `InputError` for targets that the model has no logit for."""
    passed = _passed(query)
    passed.watched = bool(needs)
    for need in ("logits", *needs):
        if need not in PREFLIGHT:
            raise ValueError(f"needs: expected one of {', '.join(sorted(PREFLIGHT))}, found {need!r}")
        require(query, need, PREFLIGHT[need])
    query.channels_last = passed.channels_last
    if not 0 <= int(query.targets.min()) <= int(query.targets.max()) < passed.classes:
        found = f"{int(query.targets.min())} to {int(query.targets.max())}"
        raise InputError(f"targets: expected classes from 0 to {passed.classes - 1}, found {found}")


def require(query: Query, need: str, check: Callable[[Query], None]) -> None:
    """Raises `Unsupported` if `check` does. A refusal is remembered with the query; what passed, where the query says
    that its model's owner keeps it as it is: see `Query`."""
    passed = _passed(query)
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
    """What a model has been found to have, for inputs of a form."""

    needs: set[str] = field(default_factory=set)
    classes: int = 0
    channels_last: bool = False
    watched: bool = False
    """Whether the first pass shall be looked into: some need will ask."""
    seen: Trace | None = None
    """What was seen then, without tensors."""


def _passed(query: Query) -> _Passed:
    form = tuple(query.inputs.shape[1:]), query.inputs.dtype, query.inputs.device, hooks(query.model)
    found: _Passed = query.kept.setdefault(("preflight", form), _Passed())
    return found


def logits(query: Query) -> None:
    """Refuses outputs that are no logits (N, K), or probabilities, or the same whatever the input, or an example's
    that depend on its company. The model meets the owner's inputs and no others, two at a time: some take no less."""
    first, other = query.specimens()
    alone = other is first
    outputs, leaf, gradient = _both(query, torch.cat([first, other]))
    passed = _passed(query)
    passed.classes, passed.channels_last = outputs.shape[1], query.channels_last
    values = outputs.detach()
    with torch.no_grad():
        again = values[1:] if alone else _outputs(query, torch.cat([first, first]))[:1]
    near = torch.finfo(values.dtype).eps ** 0.5 * _largest(values)
    same = torch.allclose(again, values[:1], rtol=0, atol=near, equal_nan=True)
    if not same or (gradient is not None and bool((gradient[1:].nan_to_num() != 0).any())):
        raise Unsupported("an example's outputs depend on the other examples of its batch, or on chance")
    _refuse_probabilities(outputs, leaf)
    told = not torch.equal(first, other)  # else nothing can depend on it
    if told and not reaches(graph(outputs), leaf) and torch.equal(values[:1], values[1:]):
        raise Unsupported("the model's output does not depend on its input")


def _both(query: Query, pair: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """Outputs (2, K) of two examples, the leaf that they come from, and the gradient of the first one's there; None
    where there is none.

    Images come with channels last where the model takes them, forward and backward.
    """
    query.channels_last = pair.ndim == 4 and pair.device.type == "cpu"
    with torch.enable_grad():
        try:
            return _differentiated(query, pair)
        except RuntimeError as error:
            if not query.channels_last or "view size is not compatible" not in str(error):
                raise _told(query, error) from error
        query.channels_last = False
        return _differentiated(query, pair)


def _differentiated(query: Query, pair: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    passed, outputs, leaf = _passed(query), None, pair
    if passed.watched and query.rows > 1 and not is_script(query.model):
        with contextlib.suppress(NotImplementedError):  # of operations that nobody may watch: `_seen` will tell
            seen = _traced(query, pair)
            outputs, leaf, passed.seen = seen.outputs, seen.leaf, seen.without_tensors()
    if outputs is None:
        leaf = pair.detach().clone().requires_grad_(True)
        outputs = _outputs(query, leaf)
    if not outputs.requires_grad:
        return outputs, leaf, None
    weights = torch.arange(1, outputs.shape[1] + 1, device=outputs.device) / outputs.shape[1]
    try:
        return outputs, leaf, gradient_at(leaf, (outputs[0] * weights).sum(), retain_graph=True)
    except Unsupported:  # methods that need no gradient may go on
        return outputs, leaf, None


def _traced(
    query: Query, inputs: Tensor, *, plain: tuple[type[nn.Module], ...] = (nn.ReLU, *POOLS), changed: bool = False
) -> Trace:
    with query.at_default_device():
        return trace(query.model, inputs, plain=plain, changed=changed, laid_out=query.laid_out)


def _seen(query: Query) -> Trace:
    """What the model does with an example, without tensors."""
    passed = _passed(query)
    if passed.seen is None:
        try:
            passed.seen = _traced(query, query.first()).without_tensors()
        except NotImplementedError as error:
            raise Unsupported(f"the model's operations cannot be watched: {one_line(error)}") from error
    return passed.seen


def _told(query: Query, error: RuntimeError) -> Exception:
    """The error itself, or the plain reason for it: another number type than the model's."""
    if not any(words in str(error) for words in OF_TYPES):
        return error
    kinds = {weight.dtype for weight in query.model.parameters() if weight.is_floating_point()}
    if not kinds or query.inputs.dtype in kinds:
        return error
    names = " or ".join(sorted(map(str, kinds)))
    return InputError(f"inputs: expected {names} as the model's weights are, found {query.inputs.dtype}")


def _outputs(query: Query, inputs: Tensor) -> Tensor:
    with query.at_default_device():
        return torch.cat([as_logits(query.model(query.laid_out(part))) for part in inputs.split(query.rows)])


def _largest(values: Tensor) -> float:
    return float(values.abs().max()) if values.isfinite().all() else 1.0


def _refuse_probabilities(outputs: Tensor, leaf: Tensor) -> None:
    """Raises `Unsupported` where a model ends in a softmax or kin, or its outputs are what one gives."""
    last = outputs.grad_fn
    while last is not None and operation(last) in LAST_STEPS and last.next_functions:
        last = last.next_functions[0][0]
    if last is not None and operation(last) in PROBABILITIES:
        raise Unsupported(f"the model ends in {operation(last)}; give it without, so that it returns logits")
    values = outputs.detach()
    near = max(SUMS_TO_ONE, ROUNDINGS * torch.finfo(values.dtype).eps)
    shares = bool((values >= 0).all() and ((values.sum(1) - 1).abs() < near).all())
    logarithms = bool((values.logsumexp(1).abs() < near).all())
    if values.shape[1] > 1 and (shares or logarithms) and _constant_sum(outputs, leaf, logarithms):
        raise Unsupported("the model returns probabilities (they sum to 1) or their logarithms; let it return logits")


def _constant_sum(outputs: Tensor, leaf: Tensor, logarithms: bool) -> bool:
    """Whether the sum of outputs that looks like that of probabilities stays so when the input changes, to first order:
    few examples may sum to 1 by chance. True where gradients cannot tell."""
    if not outputs.requires_grad:
        return True
    sums = outputs.logsumexp(1) if logarithms else outputs.sum(1)
    try:
        of_sum, of_one = (gradient_at(leaf, each.sum(), retain_graph=True) for each in (sums, outputs[:, 0]))
    except Unsupported:
        return True
    if of_sum is None or of_one is None:
        return True
    of_sum, of_one = of_sum.double().abs().max(), of_one.double().abs().max()
    return not of_sum > torch.finfo(outputs.dtype).eps ** 0.5 * of_one


def piecewise_linear(query: Query) -> None:
    """Refuses models with other operations than linear ones, max-pooling and `nn.ReLU` modules, which hooks find."""
    _rectifiers(query)


def relu_modules(query: Query) -> None:
    """Refuses models in which hooks on `nn.ReLU` modules would miss a rectifier or meet another activation, or find
    none."""
    if not _rectifiers(query):
        raise Unsupported("the model has no ReLU")


def _rectifiers(query: Query) -> int:
    """How often `nn.ReLU` modules run; raises `Unsupported` where anything else than they is not linear."""
    seen = _seen(query)
    rectifiers = [step for step in seen.steps if step.name == "relu"]
    other = [step for step in seen.steps if step.name != "relu" and not step.linear]
    if other:
        raise Unsupported(f"is defined for ReLU networks; the model uses {seen.told(other[0])}")
    functional = sum(not isinstance(step.module, nn.ReLU) for step in rectifiers)
    if functional:
        raise Unsupported(f"{functional} ReLU(s) are function calls that hooks cannot see; use nn.ReLU modules")
    refuse_deviations(seen, nn.ReLU)
    if seen.custom:
        raise Unsupported(f"the function {seen.custom} says itself how it is differentiated, which rules cannot follow")
    return len(rectifiers)


def refuse_deviations(seen: Trace, *types: Any) -> None:
    """Raises `Unsupported` where a module (of the types, where some are named) computes something else than its type
    says."""
    for module, reason in seen.deviations.items():
        if not types or isinstance(module, types):
            raise Unsupported(f"{seen.called(module)} {reason}")


def rounding(query: Query) -> float:
    """The coarsest relative rounding of a model's operations: that of a half type where it computes in one inside."""
    return _seen(query).rounding


def layers_run_once(query: Query) -> None:
    """Refuses models that use one module several times, for methods that keep what a module saw."""
    seen = _seen(query)
    counts = Counter(module for module, _, _ in seen.calls)
    reused = [module for module, count in counts.items() if count > 1]
    if reused:
        name = seen.names[reused[0]]
        raise Unsupported(f"module {name!r} runs {counts[reused[0]]} times; give each use its own module")


def pool_modules(query: Query) -> None:
    """Refuses models whose max-pooling is not all done by modules of `POOLS` that return values alone."""
    seen = _seen(query)
    refuse_deviations(seen, *POOLS)
    if any(step.name.startswith("max_pool") and not isinstance(step.module, POOLS) for step in seen.steps):
        raise Unsupported("max-pooling is a function call that hooks cannot see; use nn.MaxPool2d modules")


def plain_layers(query: Query) -> None:
    """Refuses models in which a convolution or a dense layer computes something else than its type does with its own
    weight and bias, for methods that put other weights there."""
    refuse_deviations(_traced(query, query.first(), plain=WEIGHTED, changed=True))


def convolution_modules(query: Query) -> None:
    """Refuses models whose last convolution with a spatial map hooks would not find."""
    seen = _seen(query)
    convolutions = [step for step in seen.steps if step.name == "convolution" and step.spatial]
    last = convolutions[-1].module if convolutions else None
    if last is not None and not isinstance(last, nn.Conv2d):
        raise Unsupported(f"the last convolution is in {seen.called(last)}, and the definition needs an nn.Conv2d")
    if convolutions and last is None:
        raise Unsupported("the last convolution is a function call that hooks cannot see; use nn.Conv2d modules")


PREFLIGHT: dict[str, Callable[[Query], None]] = {
    "logits": logits,
    "piecewise_linear": piecewise_linear,
    "relu_modules": relu_modules,
    "layers_run_once": layers_run_once,
    "pool_modules": pool_modules,
    "convolution_modules": convolution_modules,
    "plain_layers": plain_layers,
}
"""What a method's `needs` may name."""
