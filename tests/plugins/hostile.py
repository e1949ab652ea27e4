"""Methods that do what no method should: each breaks something, and `EXPECTED` says what must become of its rows."""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from attribug import methods
from attribug.errors import StorageError
from attribug.query.query import Query

EXPECTED: dict[str, str] = {}
"""By name: `failed: ` and how its reason begins, `honest` for the rows of `gradient`, or `no hit`."""
MESSAGE = "first\nsecond \x00\x1b[31m\udcff"
MEGABYTES = 1

Act = Callable[[Query], Any]


def hostile(expected: str, **facts: Any) -> Callable[[Act], Act]:
    """Registers a method under its function's name."""

    def enter(act: Act) -> Act:
        EXPECTED[act.__name__] = expected
        return methods.register(act.__name__, **facts)(act)

    return enter


def raising(name: str, error: BaseException, expected: str) -> None:
    """Registers a method that raises; what is no `Exception` ends a block, so these have one of their own."""

    def act(query: Query, *, error: BaseException = error) -> Tensor:
        raise error

    act.__name__ = act.__qualname__ = name
    hostile(f"failed: {expected}", uses="" if isinstance(error, Exception) else "raising")(act)


def giving(name: str, make: Act, expected: str) -> None:
    """Registers a method that returns what `make` makes of a query."""

    def act(query: Query, *, make: Act = make) -> Any:
        return make(query)

    act.__name__ = act.__qualname__ = name
    hostile(expected)(act)


# Raising


class Unspeakable(Exception):
    """Has no message."""

    def __str__(self) -> str:
        raise RuntimeError("no message either")


class Foreign(BaseException):
    """Not an `Exception`."""


raising("raises_value_error", ValueError("no good"), "ValueError: no good")
raising("raises_storage_error", StorageError("its_file", "No space left on device"), "MethodFault: its_file: cannot be")
raising("raises_memory_error", MemoryError(), "MemoryError")
raising("raises_keyboard_interrupt", KeyboardInterrupt(), "KeyboardInterrupt")
raising("raises_system_exit", SystemExit(0), "SystemExit: 0")
raising("raises_generator_exit", GeneratorExit(), "GeneratorExit")
raising("raises_stop_iteration", StopIteration(), "StopIteration")
raising("raises_foreign", Foreign("base"), "Foreign: base")
raising("raises_unspeakable", Unspeakable(), "Unspeakable: its message cannot be told")
raising("raises_lines", ValueError(MESSAGE), "ValueError: first")
raising("raises_binary", ValueError(MESSAGE[6:]), "ValueError: second")
raising("raises_volumes", ValueError("x" * 10**6), "ValueError: xxx")
raising("raises_no_space", OSError(28, "No space left on device", "map"), "OSError: [Errno 28]")
raising("raises_broken_pipe", BrokenPipeError(), "BrokenPipeError")
raising("raises_end_of_file", EOFError(), "EOFError")


@hostile("failed: RecursionError")
def recurses(query: Query) -> Tensor:
    """Calls itself for ever."""
    return recurses(query)


@hostile("failed: InputError: not yours")
def raises_input_error(query: Query) -> Tensor:
    """What ends a run where attribug raises it."""
    from attribug.errors import InputError

    raise InputError("not yours")


# Returning


class Painted(Tensor):
    """A subclass that answers every operation with ones."""

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = super().__torch_function__(function, types, args, kwargs or {})
        return torch.ones_like(found) if isinstance(found, Tensor) and found.is_floating_point() else found


class Lazy:
    """Fails when it is looked at."""

    @property
    def __class__(self) -> type:  # type: ignore[override]
        raise RuntimeError("looked at")


def some(query: Query, value: float) -> Tensor:
    """The gradient with a value in the first pixel of every other map."""
    maps = query.gradient()
    maps[::2, 0, 0, 0] = value
    return maps


giving("returns_none", lambda query: None, "failed: MethodFault: expected a tensor, found NoneType")
giving("returns_list", lambda query: list(query.gradient()), "failed: MethodFault: expected a tensor, found list")
giving("returns_array", lambda query: query.gradient().numpy(), "failed: MethodFault: expected a tensor, found ndarray")
giving("returns_lazy", lambda query: Lazy(), "failed: RuntimeError: looked at")
giving("returns_shape", lambda query: query.gradient()[:, :, 1:], "failed: MethodFault: expected maps")
giving("returns_fewer", lambda query: query.gradient()[1:], "failed: MethodFault: expected maps")
giving("returns_nothing", lambda query: query.gradient()[:0], "failed: MethodFault: expected maps")
giving("returns_scalar", lambda query: query.gradient().sum(), "failed: MethodFault: expected maps")
giving("returns_integers", lambda query: query.gradient().long(), "failed: MethodFault: expected floating-point")
giving("returns_complex", lambda query: query.gradient() * 1j, "failed: MethodFault: expected floating-point")
giving("returns_double", lambda query: query.gradient().double(), "failed: MethodFault: expected torch.float32")
giving("returns_sparse", lambda query: query.gradient().to_sparse(), "failed: MethodFault: expected dense maps")
giving("returns_meta", lambda query: query.gradient().to("meta"), "failed: MethodFault: expected torch.float32 on cpu")
giving("returns_nan", lambda query: query.gradient() * torch.nan, "no hit")
giving("returns_some_nan", lambda query: some(query, torch.nan), "no hit")
giving("returns_infinity", lambda query: some(query, torch.inf), "no hit")
giving("returns_less_than_anything", lambda query: some(query, -torch.inf), "no hit")
giving("returns_subclass", lambda query: query.gradient().as_subclass(Painted), "honest")
giving("returns_parameter", lambda query: torch.nn.Parameter(query.gradient()), "honest")
giving("returns_with_graph", lambda query: query.gradient().requires_grad_() * 1, "honest")
giving("returns_inputs", lambda query: query.inputs, "no hit")


# Changing what is not its own


@hostile("failed: MethodFault: changed the model's weights")
def changes_weights(query: Query) -> Tensor:
    """In place, behind autograd."""
    for parameter in query.model.parameters():
        parameter.data.zero_()
    return query.gradient()


@hostile("failed: MethodFault: changed its inputs")
def changes_inputs(query: Query) -> Tensor:
    """In place."""
    maps = query.gradient()
    query.inputs.zero_()
    return maps


@hostile("failed: MethodFault: changed its inputs")
def changes_targets(query: Query) -> Tensor:
    """In place, before it asks."""
    query.targets.fill_(0)
    return query.gradient()


@hostile("failed: MethodFault: changed the model's weights")
def removes_weights(query: Query) -> Tensor:
    """Puts other parameters in their place."""
    maps = query.gradient()
    query.model[0].weight = torch.nn.Parameter(torch.zeros_like(query.model[0].weight))
    return maps


@hostile("honest")
def leaves_hooks(query: Query) -> Tensor:
    """That double what the first layer says, and what every layer says."""
    maps = query.gradient()
    query.model[0].register_forward_hook(lambda module, inputs, outputs: outputs * 2)
    torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, outputs: outputs * 2)
    return maps


@hostile("no hit")
def hooks_and_asks(query: Query) -> Tensor:
    """Its own passes, which nobody may share, are of a doubled model."""
    torch.nn.modules.module.register_module_forward_hook(lambda module, inputs, outputs: outputs.cos())
    return query.gradient()


@hostile("honest")
def trains(query: Query) -> Tensor:
    """Leaves the model in training mode, without gradients."""
    maps = query.gradient()
    query.model.train()
    for parameter in query.model.parameters():
        parameter.requires_grad_(False)
    return maps


@hostile("honest")
def seeds_globally(query: Query) -> Tensor:
    """All three generators."""
    torch.manual_seed(7)
    np.random.seed(7)
    return query.gradient()


@hostile("honest")
def leaves_settings(query: Query) -> Tensor:
    """Type, threads, gradients, determinism, floating-point errors."""
    maps = query.gradient()
    torch.set_default_dtype(torch.float64)
    torch.set_num_threads(4)
    torch.set_grad_enabled(False)
    torch.use_deterministic_algorithms(True)
    torch.set_default_device("meta")
    np.seterr(all="raise")
    return maps


@hostile("failed: ")
def asks_on_another_device(query: Query) -> Tensor:
    """What it cannot compute, nobody else is given."""
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    query.noisy_gradients(2, 0.1)
    query.path_gradients(2)
    raise RuntimeError("at the latest here")


# Using up and breaking the process


@hostile("failed: RuntimeError")
def exhausts_memory(query: Query) -> Tensor:
    """More than there is anywhere."""
    return torch.empty(1 << 50)


@hostile("honest")
def moves_away(query: Query) -> Tensor:
    """Into a folder of which paths mean something else, in an empty environment."""
    os.chdir("/")
    os.environ.clear()
    return query.gradient()


@hostile("honest")
def closes_output(query: Query) -> Tensor:
    """Nothing can be printed any more."""
    with contextlib.suppress(OSError):
        os.close(1)
    return query.gradient()


@hostile("honest")
def reads_input(query: Query) -> Tensor:
    """Where jobs might be read; there is none."""
    assert os.read(0, 100) == b""
    return query.gradient()


@hostile("honest")
def prints(query: Query) -> Tensor:
    """Megabytes, in places where answers might be read."""
    for target in (1, 2):
        with contextlib.suppress(OSError):
            os.write(target, b"\x80\x04\x95" + b"x" * (MEGABYTES << 20))
    return query.gradient()


@hostile("honest")
def leaves_a_thread(query: Query) -> Tensor:
    """That never ends, and is in everyone's way."""
    threading.Thread(target=time.sleep, args=(10**6,)).start()
    return query.gradient()


@hostile("honest")
def forks(query: Query) -> Tensor:
    """A child that outlives everyone, with a copy of everything open."""
    if os.fork() == 0:
        time.sleep(10**6)
    return query.gradient()


@hostile("honest")
def doubles(query: Query) -> Tensor:
    """From here on two of them do the same work, and answer."""
    os.fork()
    return query.gradient()


@hostile("failed: its worker ended with code 0", uses="ends_well")
def ends_well(query: Query) -> Tensor:
    """As if nothing had happened."""
    os._exit(0)


@hostile("failed: its worker ended with code 7", uses="gradient")
def ends_beside_gradient(query: Query) -> Tensor:
    """In the block of the method that everyone looks at, and with a child that holds its pipes open."""
    if os.fork() == 0:
        time.sleep(10**6)
    os._exit(7)


@hostile("failed: its worker was ended by signal 9 ", uses="kills_itself")
def kills_itself(query: Query) -> Tensor:
    """As the system does when memory runs out."""
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)
    return query.gradient()


@hostile("failed: its worker was ended by signal 11", uses="reads_nowhere")
def reads_nowhere(query: Query) -> Tensor:
    """C code gone wrong."""
    ctypes.string_at(0)
    return query.gradient()


@hostile("failed: its worker was ended by signal 6", uses="aborts")
def aborts(query: Query) -> Tensor:
    """A failed assertion in C."""
    os.abort()


@hostile("failed: timeout after ", uses="loop")
def loops(query: Query) -> Tensor:
    """In C, where nobody can interrupt it."""
    return torch.tensor(sum(range(10**15)))


@hostile("failed: timeout after ", uses="sleep")
def sleeps(query: Query) -> Tensor:
    """For an hour, with a child that does so too."""
    os.fork()
    time.sleep(3600)
    return query.gradient()


sys.setrecursionlimit(500)  # quick to reach
