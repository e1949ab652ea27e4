"""Query: what an attribution method gets. Its primitives are memoised, so methods share passes without knowing it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from attribug.contracts.shapes import channel_axis, expect_images
from attribug.errors import InputError, Unsupported
from attribug.query.passes import Cost, Costing, Passes, primitive
from attribug.streams import generator

if TYPE_CHECKING:
    from attribug.contracts.data import Data
    from attribug.query.below import Below
    from attribug.query.passes import R

Baseline = float | Tensor
Place = Tensor | GradientEdge
"""Where a gradient is asked: a tensor, or what an operation of the autograd graph gave."""


@dataclass(frozen=True)
class Moments:
    """Mean and mean of squares of noisy gradients, each (N, *shape)."""

    mean: Tensor
    mean_square: Tensor
    variance: Tensor


class Query:
    """One model, the inputs to explain and the classes asked about.

    inputs (N, *shape), targets (N,) int64, ids (N,) int64. `rows` bounds the examples of a single pass; it belongs to
    the suite, because another bound may change last bits. Raises `InputError` for no inputs, and unless targets and ids
    are one an input.

    Numbers are kept in `dtype`, the inputs' type but no smaller than float32, which holds squares, sums and maps of
    models in half precision; passes give the model its own type.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        *,
        ids: Tensor | None = None,
        seed: int = 0,
        rows: int = 64,
        train: Callable[[], Data] | None = None,
        kept: dict[Any, Any] | None = None,
        below: Below | None = None,
        threads: int | None = None,
    ) -> None:
        """`kept`: what queries of this model may remember of it, from whoever keeps the model as it is; None: nothing
        outlives this query. `below`: what the model shares with one that it was made of. `threads`: how many of
        torch's the passes get; None: see `attribug.maps.threads`."""
        self.model = model
        self.inputs = ordinary(inputs.detach())
        self.dtype = at_least_single(inputs.dtype)
        self.kept = {} if kept is None else kept
        self.default_device = torch.get_default_device()
        self.targets = ordinary(targets)
        if not len(inputs):
            raise InputError("inputs: expected at least one example, found none")
        self.ids = torch.arange(len(inputs), device="cpu") if ids is None else ids
        _one_an_input("targets", self.targets, len(inputs))
        _one_an_input("ids", self.ids, len(inputs))
        self.seed = seed
        self.rows = rows
        self._below = below
        self.sharing = True
        self.threads = threads
        self._train = train
        self.promised: Tensor | None = None
        """What the maps of the method at work ought to sum to, (N,), where it said so: see `promise`."""
        self.channels_last = False
        """Whether passes get images with channels last, which convolutions on a CPU are faster with: see preflight."""
        self.refusals: dict[str, str] = {}
        """Reasons why the model lacks what a method may need, by need."""
        self.memo: dict[Any, Any] = {}
        self.passes = Passes()

    @property
    def train(self) -> Data:
        """The explained model's own training examples; raises `Unsupported` where there are none."""
        if self._train is None:
            raise Unsupported("needs training examples, and none were given")
        return self._train()

    @property
    def train_inputs(self) -> Tensor:
        """Inputs of the training examples, (M, *shape); raises `InputError` where there are none of that shape, or some
        are not finite: a single one would spoil what all maps rest on."""
        inputs = ordinary(self.train.inputs.detach())
        if inputs.shape[1:] != self.inputs.shape[1:] or not len(inputs):
            expected = _text(self.inputs.shape[1:])
            raise InputError(f"training examples: expected (M, {expected}), found {tuple(inputs.shape)}")
        unfit = int((~inputs.flatten(1).isfinite().all(1)).sum())
        if unfit:
            raise InputError(f"training examples: expected finite values, found others in {unfit} of {len(inputs)}")
        return inputs

    def priced(self, make: Callable[[], R]) -> tuple[R, Cost]:
        """What `make` makes, and what it costs in seconds and passes of this query."""
        started, before = time.perf_counter(), (self.passes.total.forward, self.passes.total.backward)
        value = make()
        forward, backward = self.passes.total.forward - before[0], self.passes.total.backward - before[1]
        return value, Cost(time.perf_counter() - started, forward, backward)

    @property
    def below(self) -> Below | None:
        """What the model shares with the one that it was made of; None under methods that must not use it."""
        return self._below if self.sharing else None

    def forget_passes(self) -> None:
        """Sets the passes of the method at work back to none, before it is tried again."""
        self.passes.total, self.passes.saved, self.passes.charged = Cost(), Cost(), set()

    def charge(self, cost: Cost) -> None:
        """Adds what something kept from an earlier query has cost to the method at work."""
        self.passes.saved.add(cost)

    def promise(self, totals: Tensor) -> None:
        """States what each example's map sums to by its method's definition (completeness, conservation), (N,): the
        deviation is measured, stored, and reported where it is large."""
        self.promised = totals.detach()

    def generators(self, *name: Any) -> list[torch.Generator]:
        """One CPU generator an example, from the stream (suite seed, name, example id): the same on every side."""
        return [generator("example", self.seed, *name, int(example)) for example in self.ids]

    def first(self) -> Tensor:
        """The first example whose values are all finite, else the first, (1, *shape): models are looked at with it."""
        return self.specimens()[0]

    def specimens(self) -> tuple[Tensor, Tensor]:
        """The first two examples whose values are all finite, each (1, *shape); the same one twice where there is one
        alone."""
        finite = self.inputs.flatten(1).isfinite().all(1).nonzero()[:2, 0].tolist() or [0]
        first, other = finite[0], finite[-1]
        one = self.inputs[first : first + 1]
        return one, one if other == first else self.inputs[other : other + 1]

    def forward(self, inputs: Tensor, *, through: nn.Module | None = None) -> Tensor:
        """Logits (B, K) of one bounded pass, of type `dtype`; raises `Unsupported` when the model returns anything
        else. The model gets a copy, which it may work on in place. `through`: the model in another form."""
        self.passes.total.forward += len(inputs)
        with self.at_default_device():
            if through is not None or self.below is None:
                outputs = (self.model if through is None else through)(self.laid_out(inputs))
            else:
                outputs, spared = self.below.outputs(self.model, self.laid_out(inputs))
                self.passes.saved.seconds += spared
        return as_logits(outputs).to(self.dtype)

    def at_default_device(self) -> AbstractContextManager[Any]:
        """Context for passes of the model, which may make tensors on the device that was the default one."""
        return nullcontext() if self.default_device.type == "cpu" else self.default_device

    def laid_out(self, inputs: Tensor) -> Tensor:
        """A copy of inputs in the model's own type and the memory format in which it is fastest."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return inputs.to(self.inputs.dtype, memory_format=layout, copy=True)

    def target_logits(self, inputs: Tensor, targets: Tensor, *, through: nn.Module | None = None) -> Tensor:
        """The logit of each row's target, (B,)."""
        return self.forward(inputs, through=through).gather(1, targets[:, None])[:, 0]

    def input_gradient(self, inputs: Tensor, targets: Tensor) -> Tensor:
        """Gradient of the targets' logits at `inputs`, (B, *shape), in one pass without side effects."""
        leaf = self.exactly(inputs.detach()).requires_grad_(True)
        with torch.enable_grad():
            logits = self.target_logits(leaf, targets)
            if not logits.requires_grad:
                raise Unsupported("the model's output does not depend on its input")
        return self.backward(logits, leaf).contiguous()

    def backward(self, logits: Tensor, at: Tensor) -> Tensor:
        """Gradient of the summed `logits` (B,) with respect to the tensor `at`, whose shape it has, of type `dtype`."""
        return self.gradients(logits, (at,))[0]

    def gradients(self, logits: Tensor, at: Sequence[Place]) -> tuple[Tensor, ...]:
        """Gradients of the summed `logits` (B,) with respect to several places in one pass, of type `dtype`.

        Through a model in float16 a multiple of them flows, whose small values do not underflow; where that overflows,
        the gradients themselves.
        """
        self.passes.total.backward += len(logits)
        ones, scaled = torch.ones_like(logits), self.inputs.dtype == torch.float16
        found = _complete(gradients_at(at, logits, ones * HALF_SCALE if scaled else ones, retain_graph=scaled))
        if scaled and all(bool(gradient.isfinite().all()) for gradient in found):
            return tuple(self.exactly(gradient) / HALF_SCALE for gradient in found)
        if scaled:
            found = _complete(gradients_at(at, logits, ones, retain_graph=False))
        return tuple(self.exactly(gradient) for gradient in found)

    def exactly(self, values: Tensor) -> Tensor:
        """Values in `dtype`."""
        return values.to(self.dtype)

    def parts(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Inputs and targets of one bounded pass after another."""
        return zip(self.inputs.split(self.rows), self.targets.split(self.rows), strict=True)

    def input_gradients(self) -> Tensor:
        """Gradient of every target's logit in bounded passes, anew at each call: for methods that alter the passes."""
        return torch.cat([self.input_gradient(inputs, targets) for inputs, targets in self.parts()])

    @primitive
    def outputs(self) -> Tensor:
        """Logits (N, K)."""
        with torch.no_grad():
            return torch.cat([self.forward(rows) for rows in self.inputs.split(self.rows)])

    def target_outputs(self) -> Tensor:
        """The logit of each example's target, (N,), from `outputs`."""
        return self.outputs().gather(1, self.targets[:, None])[:, 0]

    def gains(self, baseline: Baseline = 0.0) -> Tensor:
        """F_t(x) − F_t(b), (N,): what complete maps sum to."""
        return self.target_outputs() - self.baseline_outputs(baseline)

    @primitive
    def gradient(self) -> Tensor:
        """Gradient of the target's logit, (N, *shape)."""
        return self.input_gradients()

    @primitive
    def noisy_gradients(self, samples: int, noise: float) -> Moments:
        """Moments of gradients at inputs with Gaussian noise of `noise` · (max − min) of each input (Smilkov et al.
        2017, eq. 2). All examples' samples run in one stream of bounded passes; sums are kept in float64."""
        at_least_one("samples", samples)
        streams = self.generators("noisy_gradients", samples, float(noise))  # 1 and 1.0 are one argument: one stream
        not_negative("noise", noise)
        dtype, spread = self.dtype, self.spread(noise)
        first = torch.zeros_like(self.inputs, dtype=torch.float64)  # its deviations keep a constant's variance at 0
        total, squares, square_deviations = (torch.zeros_like(first) for _ in range(3))
        for start, index in self.repeated(samples):
            rows = index.to(self.inputs.device)
            gradient = self.input_gradient(self.noisy(index, streams, spread), self.targets[rows]).double()
            begins = (start + torch.arange(len(rows), device=rows.device)) % samples == 0
            first[rows[begins]] = gradient[begins]
            deviation = gradient - first[rows]
            total.index_add_(0, rows, deviation)
            square_deviations.index_add_(0, rows, deviation.square_())
            squares.index_add_(0, rows, gradient.square_())
        variance = (square_deviations / samples - (total / samples).square()).clamp_(min=0)
        return Moments((first + total / samples).to(dtype), (squares / samples).to(dtype), variance.to(dtype))

    @primitive
    def path_gradients(self, steps: int, baseline: Baseline = 0.0) -> Tensor:
        """Mean gradient on the straight path from a baseline b to the input, ∫₀¹ ∇F(b + α(x − b)) dα by
        Gauss–Legendre, (N, *shape). `baseline`: a number, or a tensor that broadcasts to the inputs."""
        at_least_one("steps", steps)
        start_point = self.at_baseline(baseline)
        difference = self.inputs - start_point
        nodes, areas = np.polynomial.legendre.leggauss(steps)
        alphas = torch.as_tensor((nodes + 1) / 2, dtype=self.dtype, device=self.inputs.device)
        weights = torch.as_tensor(areas / 2, device=self.inputs.device)
        total = torch.zeros_like(self.inputs, dtype=torch.float64)
        ones = [1] * (self.inputs.ndim - 1)
        for start, index in self.repeated(steps):
            rows = index.to(self.inputs.device)
            step = (start + torch.arange(len(rows), device=rows.device)) % steps
            point = start_point[rows] + difference[rows] * alphas[step].reshape(-1, *ones)
            gradient = self.input_gradient(point, self.targets[rows])
            total.index_add_(0, rows, gradient.double() * weights[step].reshape(-1, *ones))
        return total.to(self.dtype)

    @primitive
    def baseline_outputs(self, baseline: Baseline = 0.0) -> Tensor:
        """Logits of the targets at the baseline, (N,): one pass where all examples share it."""
        points = self.at_baseline(baseline)
        with torch.no_grad():
            if isinstance(baseline, Tensor) and len(points) > 1:
                rows = points.split(self.rows)
                outputs = torch.cat([self.forward(each) for each in rows])
            else:
                outputs = self.forward(points[:1]).expand(len(points), -1)
        return outputs.gather(1, self.targets[:, None])[:, 0]

    def at_baseline(self, baseline: Baseline) -> Tensor:
        """The baseline as inputs, (N, *shape); raises `InputError` for a tensor that does not broadcast."""
        if not isinstance(baseline, Tensor):
            return torch.full_like(self.exactly(self.inputs[:1]), baseline).expand_as(self.inputs)
        try:
            return baseline.to(self.inputs.device, self.dtype).expand_as(self.inputs)
        except RuntimeError:
            shape = _text(self.inputs.shape)
            raise InputError(f"baseline: expected a number or ({shape}), found {tuple(baseline.shape)}") from None

    def masked_outputs(self, keep: Tensor) -> Tensor:
        """Logits of the targets with parts of the inputs set to zero, (N, M); `keep` (M, *spatial):
        what remains, bool or a share in [0, 1]."""
        outputs = torch.empty(len(self.inputs) * len(keep), dtype=self.dtype, device=self.inputs.device)
        keep = keep.to(self.inputs.device)
        channels = [1] * (self.inputs.ndim - keep.ndim)
        with torch.no_grad():
            for start, index in self.repeated(len(keep)):
                rows = index.to(self.inputs.device)
                mask = keep[(start + torch.arange(len(rows), device=rows.device)) % len(keep)]
                masked = self.inputs[rows] * mask.reshape(len(rows), *channels, *keep.shape[1:])
                outputs[start : start + len(rows)] = self.target_logits(masked, self.targets[rows])
        return outputs.reshape(len(self.inputs), len(keep))

    def spread(self, noise: float) -> Tensor:
        """Standard deviations `noise` · (max − min) of each input, (N, 1, …)."""
        flat = self.exactly(self.inputs.flatten(1))
        return (noise * (flat.amax(1) - flat.amin(1))).reshape(-1, *[1] * (self.inputs.ndim - 1))

    def noisy(self, index: Tensor, streams: list[torch.Generator], spread: Tensor) -> Tensor:
        """Inputs at `index` (B,) with Gaussian noise of `spread`, each drawn from its example's stream: in float32, so
        that it is the same for a model of another type."""
        rows, shape = index.to(self.inputs.device), self.inputs.shape[1:]
        draws = [torch.randn(shape, generator=streams[i], dtype=torch.float32) for i in index.tolist()]
        return self.inputs[rows] + spread[rows] * torch.stack(draws).to(spread)

    def refuse_all_but_images(self) -> None:
        """Raises `Unsupported` unless the inputs are images (N, C, H, W)."""
        expect_images(self.inputs.shape)

    def over_channels(self, maps: Tensor) -> Tensor:
        """Maps (N, *spatial) spread evenly over the inputs' channels, so that the channel sum is the map itself."""
        axis = channel_axis(self.inputs.shape)
        if axis is None:
            return maps
        return (maps / self.inputs.shape[axis]).unsqueeze(axis).expand_as(self.inputs)

    def repeated(self, samples: int) -> Iterator[tuple[int, Tensor]]:
        """Bounded passes over examples, each `samples` times in a row: first row's number, example indices (B,)."""
        everything = torch.arange(len(self.inputs)).repeat_interleave(samples)
        for start in range(0, len(everything), self.rows):
            yield start, everything[start : start + self.rows]

    def costing(self) -> Costing:
        """Context that measures one method: its own time, and the full price of primitives it found ready."""
        return Costing(self.passes)


def as_logits(outputs: Any) -> Tensor:
    """A model's outputs where they are logits (N, K); raises `Unsupported` for anything else."""
    if not isinstance(outputs, Tensor) or outputs.ndim != 2:
        found = tuple(outputs.shape) if isinstance(outputs, Tensor) else type(outputs).__name__
        raise Unsupported(f"expected logits (N, K) from the model, found {found}")
    if not outputs.is_floating_point():
        raise Unsupported(f"expected floating-point logits from the model, found {outputs.dtype}")
    return outputs


def _one_an_input(name: str, numbers: Any, count: int) -> None:
    if not isinstance(numbers, Tensor) or numbers.shape != (count,) or numbers.dtype != torch.int64:
        found = f"{numbers.dtype} {tuple(numbers.shape)}" if isinstance(numbers, Tensor) else type(numbers).__name__
        raise InputError(f"{name}: expected a torch.int64 tensor ({count},), one number an input, found {found}")


def _text(shape: torch.Size) -> str:
    return ", ".join(map(str, shape))


HALF_SCALE = 1024.0  # a power of two, so that nothing is rounded anew


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of one made under `torch.inference_mode`, which takes no part in gradients."""
    if not isinstance(tensor, Tensor) or not tensor.is_inference():
        return tensor
    with torch.inference_mode(False):
        return tensor.clone()


def gradient_at(at: Tensor, outputs: Tensor, incoming: Tensor | None = None, *, retain_graph: bool) -> Tensor | None:
    """Gradient of outputs at a tensor, None where they do not depend on it; raises as `gradients_at`."""
    return gradients_at((at,), outputs, incoming, retain_graph=retain_graph)[0]


def gradients_at(
    at: Sequence[Place], outputs: Tensor, incoming: Tensor | None = None, *, retain_graph: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of outputs at several places, None where they do not depend on one; raises `Unsupported` where a
    model's parts allow no gradient but that of its weights."""
    try:
        places = cast("Sequence[Tensor]", at)  # torch takes a mixture, and its annotation does not say so
        return torch.autograd.grad(outputs, places, incoming, allow_unused=True, retain_graph=retain_graph)
    except RuntimeError as error:
        if "use_reentrant" in str(error):
            raise Unsupported(
                "the model checkpoints its activations with use_reentrant=True, which allows no gradient at the input"
            ) from error
        raise


def _complete(gradients: tuple[Tensor | None, ...]) -> list[Tensor]:
    found = [gradient for gradient in gradients if gradient is not None]
    if len(found) < len(gradients):
        raise Unsupported("the model's output does not depend on its input")
    return found


def exactly(values: Tensor) -> Tensor:
    """Values in a type that holds differences, squares and quotients: float32 in place of a smaller one."""
    return values.to(at_least_single(values.dtype))


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """The type, or float32 in place of a smaller one."""
    return torch.promote_types(dtype, torch.float32) if dtype.is_floating_point else dtype


def at_least_one(name: str, number: int) -> None:
    """Raises `InputError` for a parameter below 1."""
    if number < 1:
        raise InputError(f"{name}: expected at least 1, found {number}")


def not_negative(name: str, number: float) -> None:
    """Raises `InputError` for a parameter below 0, infinite or NaN."""
    if not 0 <= number < float("inf"):
        raise InputError(f"{name}: expected a number from 0 on, found {number}")
