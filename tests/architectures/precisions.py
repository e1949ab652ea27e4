"""Other dtypes than float64, autocast, and modes of torch in which a model is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from architectures.specimens import Group, Pair, Specimen, Truth, beside, copied, images, network

Around = Callable[[], AbstractContextManager[Any]]


class Between(nn.Module):
    """A float64 network that takes and returns another dtype."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits in the inputs' dtype."""
        return self.model(inputs.double()).to(inputs.dtype)


class Autocast(nn.Module):
    """A network that casts itself."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits in the lower dtype."""
        with torch.autocast("cpu", self.dtype):
            return self.model(inputs)


class Lowered(nn.Module):
    """A network of a lower dtype that takes and returns float32."""

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.model, self.dtype = model, dtype

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits in float32."""
        return self.model(inputs.to(self.dtype)).float()


def doubled(model: nn.Module, inputs: Tensor, **facts: Any) -> Pair:
    """A network beside its float64 copy. What draws at random gets the same draws, those of the inputs' dtype."""
    twin = copied(model).double().eval()
    drawing = Truth(Between(copied(twin)).eval())
    return Pair(model, Truth(twin, Tensor.double), inputs, drawing, **{"dtype": inputs.dtype, **facts})


def of(dtype: torch.dtype) -> Pair:
    """The network in a dtype."""
    return doubled(network().to(dtype), images(dtype))


def casting(around: Callable[[nn.Module], nn.Module], dtype: torch.dtype) -> Pair:
    """A float32 network that casts itself, beside one that does not."""
    truth = network().float()
    return Pair(around(copied(truth)).eval(), Truth(truth), images(torch.float32), dtype=dtype)


def within(around: Around, dtype: torch.dtype | None = None) -> Pair:
    """A network that is explained in a mode of torch; float32 where a dtype's tolerance is given."""
    truth, inputs = network(), images()
    truth, inputs = (truth, inputs) if dtype is None else (truth.float(), inputs.float())
    return Pair(copied(truth), Truth(truth), inputs, around=around, dtype=dtype or torch.float64)


@contextmanager
def default_dtype() -> Iterator[None]:
    """New tensors are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def made_in_inference_mode(*, weights: bool) -> Pair:
    """Weights or inputs that were made in inference mode."""
    truth, inputs = network(), images()
    with torch.inference_mode():
        made = copied(truth) if weights else truth
        tensors = inputs if weights else inputs.clone()
    return Pair(made, Truth(truth if weights else copied(truth), torch.clone), tensors)


def training() -> Pair:
    """A network that was left in training mode."""
    truth = network(normalised=True)
    return beside(copied(truth).train(), truth)


LOW = {"float16": torch.float16, "bfloat16": torch.bfloat16}
GROUP = Group(
    "Dtypes and modes of torch",
    "Truth: the float64 copy of the same, rounded weights and inputs; float32 without autocast; outside of the mode.",
    (
        Specimen("float32", partial(of, torch.float32), plain=True),
        *(Specimen(name, partial(of, dtype)) for name, dtype in LOW.items()),
        *(Specimen(f"{n} inside, float32 outside", partial(casting, lambda m, d=d: Lowered(m.to(d), d), d)) for n, d in LOW.items()),
        *(Specimen(f"autocast to {n} in the model", partial(casting, lambda m, d=d: Autocast(m, d), d)) for n, d in LOW.items()),
        *(Specimen(f"called under autocast to {n}", partial(within, partial(torch.autocast, "cpu", d), d)) for n, d in LOW.items()),
        Specimen("called in `torch.no_grad`", partial(within, torch.no_grad), plain=True),
        Specimen("called in `torch.inference_mode`", partial(within, torch.inference_mode)),
        Specimen("inputs made in `torch.inference_mode`", partial(made_in_inference_mode, weights=False)),
        Specimen("weights made in `torch.inference_mode`", partial(made_in_inference_mode, weights=True)),
        Specimen("called under `set_default_dtype(float64)`", partial(within, default_dtype)),
        Specimen("left in training mode", training, plain=True),
    ),
)
