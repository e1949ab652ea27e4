"""Other dtypes than float64, autocast, and modes of torch in which a model is explained."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from architectures.specimens import PIXELS, TOLERANCE, Form, Group, Pair, Specimen, beside, copied, images, network

FRAME = 3
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
        self.model, self.dtype = model.to(dtype), dtype

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits in float32."""
        return self.model(inputs.to(self.dtype)).float()


def doubled(model: nn.Module, inputs: Tensor, **facts: Any) -> Pair:
    """A network beside its float64 copy. What draws at random gets the same draws, those of the inputs' dtype."""
    twin = copied(model).double().eval()
    drawing = Form(Between(twin).eval())
    return Pair(model, Form(twin, Tensor.double), inputs, drawing, **{"tolerance": TOLERANCE[inputs.dtype], **facts})


def framed(dtype: torch.dtype) -> Tensor:
    """Images in a black frame, where they do not differ from a black baseline."""
    return functional.pad(images(pixels=PIXELS - 2 * FRAME), [FRAME] * 4).to(dtype)


def averaging(dtype: torch.dtype) -> nn.Sequential:
    """The network with average-pooling in place of max-pooling, whose winner would hang on the rounding."""
    model = network()
    model[2] = nn.AvgPool2d(2)
    return model.to(dtype)


def of(dtype: torch.dtype) -> Pair:
    """The network in a dtype."""
    return doubled(averaging(dtype), framed(dtype))


def casting(around: Callable[[nn.Module], nn.Module], dtype: torch.dtype) -> Pair:
    """A float32 network that casts itself, beside one that does not."""
    truth = averaging(torch.float32)
    return Pair(around(copied(truth)).eval(), Form(truth), framed(torch.float32), tolerance=TOLERANCE[dtype])


def within(around: Around, dtype: torch.dtype | None = None) -> Pair:
    """A network that is explained in a mode of torch; float32 where a dtype's tolerance is given."""
    given = torch.float64 if dtype is None else torch.float32
    truth, inputs = averaging(given), framed(given)
    return Pair(copied(truth), Form(truth), inputs, around=around, tolerance=TOLERANCE[dtype or torch.float64])


@contextmanager
def default_dtype() -> Iterator[None]:
    """New tensors are float64."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def cast_to(dtype: torch.dtype) -> Around:
    """Autocast."""
    return lambda: torch.autocast("cpu", dtype)


def made_in_inference_mode(*, weights: bool) -> Pair:
    """Weights or inputs that were made in inference mode."""
    truth, inputs = network(), images()
    with torch.inference_mode():
        made = copied(truth) if weights else truth
        tensors = inputs if weights else inputs.clone()
    return Pair(made, Form(truth if weights else copied(truth), torch.clone), tensors)


def training() -> Pair:
    """A network that was left in training mode."""
    truth = network(normalised=True)
    return beside(copied(truth).train(), truth)


LOW = {"float16": torch.float16, "bfloat16": torch.bfloat16}
GROUP = Group(
    "Dtypes and modes of torch",
    "Truth: the float64 copy of the same, rounded weights and inputs; float32 without autocast; outside of the mode.",
    (
        Specimen("float32", lambda: doubled(network().float(), images(torch.float32)), plain=True),
        *(Specimen(name, partial(of, dtype)) for name, dtype in LOW.items()),
        *(
            Specimen(f"{n} inside, float32 outside", partial(casting, partial(Lowered, dtype=d), d))
            for n, d in LOW.items()
        ),
        *(
            Specimen(f"autocast to {n} in the model", partial(casting, partial(Autocast, dtype=d), d))
            for n, d in LOW.items()
        ),
        *(Specimen(f"called under autocast to {n}", partial(within, cast_to(d), d)) for n, d in LOW.items()),
        Specimen("called in `torch.no_grad`", partial(within, torch.no_grad), plain=True),
        Specimen("called in `torch.inference_mode`", partial(within, torch.inference_mode)),
        Specimen("inputs made in `torch.inference_mode`", partial(made_in_inference_mode, weights=False)),
        Specimen("weights made in `torch.inference_mode`", partial(made_in_inference_mode, weights=True)),
        Specimen("called under `set_default_dtype(float64)`", partial(within, default_dtype)),
        Specimen("left in training mode", training, plain=True),
    ),
    always=False,
)
