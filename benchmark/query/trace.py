"""What a model does with an example: its operations on values that depend on the input, and which module does each.

Operations are seen as they run, below autograd, so that frozen weights, `no_grad` and detached tensors hide none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from attribug.errors import Unsupported
from attribug.query.plain import deviation, running_calls
from attribug.query.query import as_logits

HANDING_ON = {
    "alias", "as_strided", "cat", "channel_shuffle", "clone", "constant_pad_nd", "copy", "detach", "expand", "flip",
    "lift_fresh", "max_pool2d_with_indices", "max_pool3d_with_indices", "native_channel_shuffle", "permute",
    "pixel_shuffle", "pixel_unshuffle", "repeat", "reshape_alias", "roll", "select", "slice", "split",
    "split_with_sizes", "squeeze", "stack", "t", "to_copy", "transpose", "unbind", "unfold", "unsafe_view", "unsqueeze",
    "view",
}  # fmt: skip
"""Operations that hand values on."""
LINEAR = {
    "adaptive_avg_pool2d", "adaptive_avg_pool3d", "add", "addmm", "addmv", "avg_pool2d", "avg_pool3d", "baddbmm",
    "batch_norm_no_update", "bmm", "convolution", "cudnn_batch_norm", "cudnn_convolution", "cumsum", "div", "dot",
    "gather", "im2col", "index", "index_select", "linear", "masked_fill", "mean", "miopen_batch_norm", "mm", "mul",
    "mv", "native_batch_norm", "native_batch_norm_legit", "native_batch_norm_legit_no_training", "neg",
    "reflection_pad1d", "reflection_pad2d", "reflection_pad3d", "replication_pad1d", "replication_pad2d",
    "replication_pad3d", "rsub", "sub", "sum", "upsample_bicubic2d", "upsample_bicubic2d_aa", "upsample_bilinear2d",
    "upsample_bilinear2d_aa", "upsample_linear1d", "upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d",
    "upsample_nearest_exact1d", "upsample_nearest_exact2d", "upsample_nearest_exact3d", "upsample_trilinear3d",
    "where", "zero",
}  # fmt: skip
"""Operations that are linear in one operand as long as the others do not depend on the input; anything that is in
neither set may hide a rectifier or an activation."""
ADDITIVE = {"add", "cat", "copy", "masked_fill", "rsub", "stack", "sub", "where"}
"""Those that several operands may enter that depend on the input."""
LOOKING = {
    "all", "any", "bitwise_and", "bitwise_not", "bitwise_or", "eq", "ge", "gt", "is_nonzero", "isfinite", "isinf",
    "isnan", "le", "logical_and", "logical_not", "logical_or", "lt", "ne",
}  # fmt: skip
"""Questions about values: a model may check them, and what it makes of the answers shows as an operation of its own."""
ELEMENTWISE = {"add", "clone", "copy", "div", "mul", "neg", "rsub", "sub", "to_copy"}
"""Those that give every entry a value of its own, where the other operands do not depend on the input."""


def spelled(name: str) -> str:
    """An operation's name as autograd spells it: `LeakyRelu` of `leaky_relu`."""
    return "".join(part.capitalize() for part in name.split("_"))


@dataclass(frozen=True)
class Step:
    """An operation on values that depend on the input."""

    name: str
    """Torch's name of it, such as `relu` or `max_pool2d_with_indices`."""
    module: nn.Module | None
    """The innermost module without children that runs it."""
    linear: bool
    """Whether it is linear in what depends on the input, handing on included."""
    own_statistics: bool = False
    """Whether it is a norm by the example's own statistics."""
    spatial: bool = False
    """Whether it gives something with more than one position, (N, C, H, W)."""
    reads: frozenset[int] = frozenset()
    """Numbers of the memory that it reads what depends on the input from."""
    writes: frozenset[int] = frozenset()
    """Numbers of the memory that it gives."""

    @property
    def hands_on(self) -> bool:
        """Whether it gives the values themselves, in another order or shape."""
        return self.linear and self.name in HANDING_ON

    @property
    def entrywise(self) -> bool:
        """Whether it scales and shifts every entry by numbers that do not depend on the input."""
        return self.linear and self.name in ELEMENTWISE and self.module is None

    @property
    def title(self) -> str:
        """The name as autograd spells it: `LeakyRelu`."""
        return spelled(self.name)


@dataclass
class Trace:
    """One pass of a few examples."""

    outputs: Tensor
    leaf: Tensor
    steps: list[Step]
    """In order."""
    calls: list[tuple[nn.Module, tuple[Any, ...], Any]]
    """Modules without children, their arguments and outputs, in order."""
    overwritten: set[nn.Module] = field(default_factory=set)
    """Modules whose output something works on in place afterwards: what `calls` shows of it is not what they gave."""
    deviations: dict[nn.Module, str] = field(default_factory=dict)
    """Why modules compute something else than their type says; see `attribug.query.plain.deviation`."""
    names: dict[nn.Module, str] = field(default_factory=dict)
    cut: nn.Module | None = None
    """A module that gets what depends on the input, but no gradient flows back from it."""
    rounding: float = 0.0
    """The coarsest relative rounding of its operations, by the types of what they give."""
    custom: str = ""
    """Name of a function on the way from the input that says itself how it is differentiated."""

    def without_tensors(self) -> Trace:
        """The same to keep: what ran, and nothing that it gave."""
        nothing = self.outputs.new_empty(0)
        calls: list[tuple[nn.Module, tuple[Any, ...], Any]] = [(module, (), None) for module, _, _ in self.calls]
        return replace(self, outputs=nothing, leaf=nothing, calls=calls)

    def told(self, step: Step) -> str:
        """A step as a user reads of it."""
        title = f"a norm by the example's own statistics, {step.title}" if step.own_statistics else step.title
        if step.module is None or not self.names.get(step.module):
            return title
        return f"{title} ({type(step.module).__name__} {self.names[step.module]!r})"

    def called(self, module: nn.Module) -> str:
        """A module as a user reads of it."""
        return f"module {self.names.get(module, '')!r} ({type(module).__name__})"


def trace(
    model: nn.Module,
    inputs: Tensor,
    *,
    plain: tuple[type[nn.Module], ...] = (),
    changed: bool = False,
    laid_out: Callable[[Tensor], Tensor] = torch.clone,
) -> Trace:
    """Runs a model on inputs, as `laid_out` lays them out, and looks at what happens; refuses TorchScript, which takes
    no hooks.

    Modules of the types in `plain` are held to what these types compute; with `changed` also under other weights.
    """
    refuse_scripts(model)
    leaf = inputs.detach().clone().requires_grad_(True)
    watch = _Watch(leaf)
    seen = Trace(leaf, leaf, watch.steps, [], names={module: name for name, module in model.named_modules()})
    gave: list[tuple[int, dict[str, Any]]] = []

    def ended(module: nn.Module, arguments: tuple[Any, ...], output: Any, version: int) -> None:
        gave.append((_version(output), dict(module._parameters)))
        seen.calls.append((module, arguments, output))
        given = arguments[0] if arguments else None
        if isinstance(given, Tensor) and watch.depends(given) and not given.requires_grad:
            seen.cut = seen.cut or module
        if isinstance(module, plain) and module not in seen.deviations:
            with watch.paused(), torch.no_grad():
                found = deviation(module, arguments, output, changed=changed)
            found = found or ("works in place on what it is given" if _version(given) != version else "")
            if found:
                seen.deviations[module] = found

    watched = [module for module in model.modules() if _is_leaf(module) or isinstance(module, WEIGHTED)]
    with running_calls(watched, watch.running, ended), torch.enable_grad(), watch:
        seen.outputs = as_logits(model(laid_out(leaf)))
    _look_back(seen, gave, plain)
    seen.steps, seen.rounding = watch.behind(seen.outputs), watch.rounding
    seen.custom = _custom_function(seen.outputs, leaf)
    return seen


def _look_back(seen: Trace, gave: list[tuple[int, dict[str, Any]]], plain: tuple[type[nn.Module], ...]) -> None:
    """Notes, after the pass, which outputs are not what modules gave, and which weights were not a module's own."""
    for (module, _, output), (version, parameters) in zip(seen.calls, gave, strict=True):
        if _version(output) != version:
            seen.overwritten.add(module)
        if isinstance(module, plain) and any(module._parameters.get(n) is not p for n, p in parameters.items()):
            seen.deviations.setdefault(module, "runs with other weights than its own")


WEIGHTED = (nn.modules.conv._ConvNd, nn.Linear)
"""Layers that are watched even if other modules lie in them."""


def _version(value: Any) -> int:
    return value._version if isinstance(value, Tensor) else 0


def _custom_function(outputs: Tensor, leaf: Tensor) -> str:
    """Name of a Python function between the input and the outputs, but for those that torch puts there for hooks."""
    custom = [node for node in graph(outputs) if isinstance(node, torch.autograd.function.BackwardCFunction)]
    names = [operation(node) for node in custom if any(reaches(behind(p), leaf) for p, _ in node.next_functions)]
    return next((name for name in names if name not in OF_TORCH), "")


OF_TORCH = {"", "CheckpointFunction"}


def refuse_scripts(model: nn.Module) -> None:
    """Raises `Unsupported` for TorchScript."""
    if is_script(model):
        raise Unsupported("the model is TorchScript, whose modules take no hooks; give it as it was before")


def is_script(model: nn.Module) -> bool:
    """Whether a model, or a part of it, is TorchScript."""
    return any(isinstance(module, torch.jit.ScriptModule) for module in model.modules())


def _is_leaf(module: nn.Module) -> bool:
    """Whether no module but its own parametrizations lies in a module."""
    return all(name == "parametrizations" for name, _ in module.named_children())


class _Watch(TorchDispatchMode):
    """Sees every operation, and follows which memory holds values that depend on the input."""

    def __init__(self, leaf: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.steps: list[Step] = []
        self.running: list[nn.Module] = []
        """Modules without children that run, innermost last."""
        self.rounding = 0.0
        self._off = False
        self._dependent: dict[int, Any] = {}
        """By address; the storages are kept, so that no other gets an address."""
        self._mark(leaf)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if not self._off:
            self._note(func, args, kwargs, result)
        return result

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Operations inside are not the model's."""
        self._off = True
        try:
            yield
        finally:
            self._off = False

    def _note(self, func: Any, args: Any, kwargs: Any, result: Any) -> None:
        operands = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        dependent = [each for each in operands if self.depends(each)]
        name = func._schema.name.partition("::")[2].strip("_")
        if not dependent or name.endswith("_like") or name.startswith(("new_", "sym_")):
            return
        given = [each for each in tree_leaves(result) if isinstance(each, Tensor)]
        for each in given:
            self._mark(each)
            if each.is_floating_point():
                self.rounding = max(self.rounding, torch.finfo(each.dtype).eps)
        asked = name in {"local_scalar_dense", "item"} and dependent[0].dtype == torch.bool
        if name not in LOOKING and not asked:
            module = self.running[-1] if self.running else None
            own = _own_statistics(func, args, kwargs)
            linear = _is_linear(name, args, dependent) and not own
            spatial = isinstance(result, Tensor) and result.ndim == 4 and result.shape[2:].numel() > 1
            reads, writes = _memory(dependent), _memory(given)
            self.steps.append(Step(name, module, linear, own, spatial, reads, writes))

    def behind(self, outputs: Tensor) -> list[Step]:
        """The steps that outputs descend from, in order; all where that does not show."""
        if not self.depends(outputs):
            return list(self.steps)
        wanted, found = {outputs.untyped_storage()._cdata}, []
        for step in reversed(self.steps):
            if not step.writes or step.writes & wanted:  # a number that is read may go anywhere
                found.append(step)
                wanted |= step.reads
        return found[::-1]

    def depends(self, tensor: Tensor) -> bool:
        """Whether a tensor's memory holds what depends on the input."""
        return tensor.layout == torch.strided and tensor.untyped_storage()._cdata in self._dependent

    def _mark(self, tensor: Tensor) -> None:
        if tensor.layout == torch.strided:
            storage = tensor.untyped_storage()
            self._dependent[storage._cdata] = storage


def _memory(tensors: list[Tensor]) -> frozenset[int]:
    return frozenset(each.untyped_storage()._cdata for each in tensors if each.layout == torch.strided)


def _is_linear(name: str, args: Any, dependent: list[Tensor]) -> bool:
    if name not in HANDING_ON and name not in LINEAR:
        return False
    if name not in HANDING_ON - {"copy", "to_copy"} and not all(each.is_floating_point() for each in dependent):
        return False
    if name == "div":
        return len(dependent) == 1 and args[0] is dependent[0]
    return name in ADDITIVE or len(dependent) == 1


def _own_statistics(func: Any, args: Any, kwargs: Any) -> bool:
    """Whether an operation is a batch norm that computes its statistics now."""
    names = [argument.name for argument in func._schema.arguments]
    for name in ("training", "train"):
        if name in names:
            place = names.index(name)
            return bool(kwargs.get(name, args[place] if place < len(args) else False))
    return "batch_norm_with_update" in func._schema.name


def operation(node: Any) -> str:
    """What a node of the autograd graph differentiates: `Relu` for `ReluBackward0`, empty for a hook's."""
    name: str = node.name()
    return name.rpartition("::")[2].partition("Backward")[0]


def graph(outputs: Tensor, without: Any = None) -> set[Any]:
    """All operations (nodes) of the autograd graph behind a tensor; of those only behind the node `without`, none."""
    return behind(outputs.grad_fn, without)


def behind(start: Any, without: Any = None) -> set[Any]:
    """A node of the autograd graph and all behind it, but for those only behind the node `without`."""
    seen: set[Any] = set()
    waiting: list[Any] = [start]
    while waiting:
        node = waiting.pop()
        if node is not None and node is not without and node not in seen:
            seen.add(node)
            waiting += [parent for parent, _ in node.next_functions]
    return seen


def reaches(nodes: set[Any], leaf: Tensor) -> bool:
    """Whether operations lead back to a leaf."""
    return any(getattr(node, "variable", None) is leaf for node in nodes)
