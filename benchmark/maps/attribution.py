"""Method × query → maps: preflight, guard, and checks of what comes back."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attribug import methods
from attribug.contracts import outputs
from attribug.errors import Unsupported
from attribug.maps import threads
from attribug.maps.guard import MethodFault, evaluated, guarded
from attribug.methods import adapters
from attribug.plugin_files import written_beside
from attribug.query.preflight import preflight
from attribug.query.settings import ordinary_passes

if TYPE_CHECKING:
    from attribug.contracts.pieces import Method
    from attribug.query.query import Query

HALVES = (torch.float16, torch.bfloat16)
OUT_OF_MEMORY = ("can't allocate memory", "out of memory", "ALLOC_FAILED")  # words of the CPU's, CUDA's and cuBLAS's


@dataclass
class Census:
    """What is wrong with a method's maps, counted over all that it made for a record."""

    maps: int = 0
    nonfinite: int = 0
    """Maps with NaN or infinite values."""
    constant: int = 0
    """Maps that say nothing: one value everywhere."""
    promised: float = 0.0
    """Σ |what a map ought to sum to|, of maps that promise a sum: see `Query.promise`."""
    missed: float = 0.0
    """Σ |sum of a map − what it ought to be|, of the same."""

    def count(self, maps: Tensor, promised: Tensor | None) -> None:
        """Adds maps (N, *shape) and their promised sums (N,)."""
        flat = maps.flatten(1)
        self.maps += len(flat)
        self.nonfinite += int((~flat.isfinite().all(1)).sum())
        self.constant += int((flat.amax(1) == flat.amin(1)).sum())
        if promised is not None:
            expected, found = promised.double(), flat.double().sum(1)
            finite = expected.isfinite() & found.isfinite()
            self.promised += float(expected[finite].abs().sum())
            self.missed += float((found - expected)[finite].abs().sum())

    def add(self, other: Census) -> None:
        """Adds another census to this one."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)

    @property
    def imbalance(self) -> float:
        """Share of their promised sums that maps miss; 0 where they promise nothing."""
        return self.missed / self.promised if self.promised else 0.0


def attributions(method: Method, query: Query, parameters: Mapping[str, Any]) -> Tensor:
    """Runs a method on a query; returns detached maps, (N, *shape), or what else the method's kind of
    output is, such as probabilities (N, K).

    When memory runs out, the query's passes are halved until they fit; last bits may then differ. Passes run in one of
    torch's threads, or in as many as it is set to, see `attribug.maps.threads`; the setting is put back.

    Raises `Unsupported` where the method declines or the preflight finds that it would be silently wrong, and
    `MethodFault` for garbage.
    """
    while True:
        try:
            return _attributed(method, query, parameters)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or query.rows == 1:
                raise
        query.rows //= 2
        query.forget_passes()
        if query.inputs.is_cuda:
            torch.cuda.empty_cache()


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on a device or in the process."""
    if isinstance(error, MemoryError | torch.cuda.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)


def _attributed(method: Method, query: Query, parameters: Mapping[str, Any]) -> Tensor:
    query.promised = None
    model = query.model
    _refuse_unfit_tensors(model)
    held = model, query.inputs, query.targets, query.ids
    own: set[str] = query.kept.setdefault("buffers that passes write", set())
    ours = _is_ours(method.function)
    query.sharing = ours  # others may change weights for a moment
    with ordinary_passes(), guarded(*held, copying=not ours, own=own) as excuse:
        with evaluated(model), _eagerly(model):
            most = threads.before_passes(query)
            preflight(query, method.needs)
            excuse()
            threads.for_passes(query, most)
            result = method.function(query, **parameters)
        return _checked(method, query, result)


def _is_ours(function: Any) -> bool:
    """Whether a function is written in attribug's own methods, which their tests hold to leave weights alone: a call of
    one needs no copy of them. Adapters, which call others, are not."""
    return written_beside(function, methods.__file__) and function.__code__.co_filename != adapters.__file__


def _refuse_unfit_tensors(model: nn.Module) -> None:
    tensors = [*model.parameters(), *model.buffers()]
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors):
        raise Unsupported("the model has lazy modules that have no weights yet; let it run once")
    if any(tensor.is_inference() for tensor in tensors):
        raise Unsupported("the model's weights were made under torch.inference_mode, which allows no gradients")


def _eagerly(model: nn.Module) -> AbstractContextManager[Any]:
    """Compiled models run as they are written, since compiled code knows no hooks that were added later."""
    compiled = any(type(m).__name__ == "OptimizedModule" or m._compiled_call_impl is not None for m in model.modules())
    if not compiled:
        return nullcontext()
    if not hasattr(torch.compiler, "set_stance"):  # before torch 2.6
        raise Unsupported("the model is compiled; give it as it was before torch.compile")
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _checked(method: Method, query: Query, result: Any) -> Tensor:
    if not isinstance(result, Tensor):
        raise MethodFault(f"expected a tensor, found {type(result).__name__}")
    if type(result) is not Tensor:
        result = _plain(result)
    if result.layout != torch.strided:
        raise MethodFault(f"expected dense maps, found {result.layout}")
    if not result.is_floating_point():
        raise MethodFault(f"expected floating-point maps, found {result.dtype}")
    if result.dtype in HALVES and query.inputs.dtype in HALVES:
        result = query.exactly(result)
    wrong = outputs.get(method.output).wrong(result, query.exactly(query.inputs), None)
    if wrong:
        raise MethodFault(wrong)
    maps: Tensor = result.detach().contiguous()
    return maps


def _plain(result: Tensor) -> Tensor:
    """A subclass's values: what it makes of operations on them must not reach metrics."""
    with torch._C.DisableTorchFunctionSubclass():
        plain: Tensor = result.as_subclass(Tensor)
    return plain
