"""What every attribution method must keep: checks of a registered method, whatever it computes."""

from __future__ import annotations

import contextlib
import copy
import gc
import inspect
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from attribug import metrics
from attribug.conformance.checks import ConformanceCheck, Nonconformant, expect, tries
from attribug.conformance.level_zero import expect_one_half, table
from attribug.conformance.specimens import (
    CLASSES,
    TARGETS,
    Failing,
    OnPurpose,
    Watch,
    awkward,
    changes,
    convolving,
    dense,
    images,
    network,
    oblong,
    sequences,
    state,
    uncontaminated,
    vectors,
)
from attribug.contracts import outputs
from attribug.contracts.data import Data
from attribug.errors import Unsupported, one_line
from attribug.maps.attribution import attributions
from attribug.maps.explain import explain
from attribug.maps.guard import evaluated
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.query.preflight import preflight
from attribug.query.query import Query
from attribug.scores.records import Settings
from attribug.streams import global_states_restored, seed_globally

if TYPE_CHECKING:
    from attribug.contracts.pieces import Method, Metric

FEW = {"samples": 24, "steps": 24, "n_samples": 24, "n_steps": 24}  # 3 examples × 24: more than one pass's 64 rows
PASSES_THAT_FAIL = 6
READING = ("spearman", "mass_accuracy", "total_variation")  # whichever read the output; else all that do
Make = Callable[[], nn.Module]
AWKWARD: tuple[Make, ...] = (awkward, partial(awkward, normalised=False), network)
NO_IMAGES: tuple[tuple[Make, Callable[..., Tensor]], ...] = ((dense, vectors), (convolving, sequences))
OTHER_SHAPES = ((1, (16, 16)), (3, (17, 17)), (2, (13, 18)))  # channels, size
IDS = torch.tensor([7, 40, 3])
PLAIN = "a BVD-CNN on (3, 3, 16, 16)"
STRANGE = "batch norm and dropout in mixed modes on (3, 3, 16, 16), else the same without batch norm, else a BVD-CNN"


@tries(PLAIN)
def check_runs_on_a_plain_network(method: Method) -> None:
    """A BVD-CNN, single precision, three channels: what every method of this benchmark explains."""
    try:
        explained(method, network(torch.float32), images(torch.float32))
    except Unsupported as reason:
        raise Nonconformant(f"expected maps of a plain BVD-CNN, found unsupported: {reason}") from reason


@tries(PLAIN)
def check_shape_type_device(method: Method) -> None:
    """Finite maps of the inputs' shape, type and device, in single and double precision; probabilities (N, K)."""
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device, dtype in itertools.product(devices, (torch.float32, torch.float64)):
        inputs = images(dtype).to(device)
        maps = explained(method, network(dtype).to(device), inputs, TARGETS.to(device))
        _expect_form(method, maps, inputs)


def check_says_something(method: Method) -> None:
    """No map is constant on a network with lively gradients."""
    maps = explained(method, network(), images()).flatten(1)
    constant = int((maps.amax(1) <= maps.amin(1)).sum())
    expect(not constant, f"expected maps that vary over the input, found {constant} of {len(maps)} constant")


def check_seed_decides(method: Method) -> None:
    """The seed, and nothing else random, decides; another seed matters exactly where the method says so."""
    with global_states_restored():
        one, again, other = (
            _with_global_seed(method, global_seed, seed) for global_seed, seed in ((1, 0), (2, 0), (2, 1))
        )
    expect(
        torch.equal(one, again),
        f"seed 0 twice gave maps that differ by up to {_distance(one, again)}: "
        "randomness must come from query.generators, memory from nowhere",
    )
    differs = not torch.equal(one, other)
    if method.stochastic:
        expect(differs, "declared stochastic, but seeds 0 and 1 gave the same maps: take stochastic=True away")
    else:
        expect(
            not differs,
            f"seeds 0 and 1 gave maps that differ by up to {_distance(one, other)}: declare stochastic=True",
        )


def check_batch_equals_one_by_one(method: Method) -> None:
    """An example's map depends on neither the others nor their order."""
    _expect_one_by_one(method, network(), images())


def _expect_one_by_one(method: Method, model: nn.Module, inputs: Tensor) -> None:
    together = explained(method, model, inputs, ids=IDS)
    for row in range(len(inputs)):
        one = slice(row, row + 1)
        alone = explained(method, model, inputs[one], TARGETS[one], ids=IDS[one])
        _expect_close(alone, together[one], f"example {row} alone and in a batch of {len(inputs)}")
    order = torch.tensor([1, 2, 0])
    turned = explained(method, model, inputs[order], TARGETS[order], ids=IDS[order])
    _expect_close(turned, together[order], "a batch and the same examples in another order")


def check_order_of_requests(method: Method) -> None:
    """Alone, after other passes, twice, before or after another method in one list: the same bits, for both."""
    model, inputs = network(), images()
    query, other, fresh = (_query(model, inputs) for _ in range(3))
    for each in (query, other, fresh):
        preflight(each, ())  # settles the memory format of passes
    alone, gradient = explained(method, model, inputs), other.gradient()
    query.outputs(), query.gradient(), query.path_gradients(2), query.noisy_gradients(2, 1.0)
    after = attributions(method, query, few(method))
    _expect_same(after, alone, "alone and after passes that other methods share")
    _expect_same(attributions(method, query, few(method)), alone, "once and once more in the same query")
    _expect_same(query.gradient(), gradient, "another method's gradient before and after this one")
    _expect_same(attributions(method, fresh, few(method)), alone, "before other methods and alone")
    _expect_same(fresh.gradient(), gradient, "the gradient alone and after this method")


def check_target_is_respected(method: Method) -> None:
    """The maps change with the target exactly where the method says that it uses it."""
    model, inputs = network(), images()
    one, other = (explained(method, model, inputs, targets) for targets in (TARGETS, (TARGETS + 1) % CLASSES))
    for row in range(len(inputs)):
        same = torch.equal(one[row], other[row])
        if method.uses_target:
            expect(not same, f"example {row} has one map for two targets: use query.targets, or uses_target=False")
        else:
            expect(same, f"example {row} has another map for another target: take uses_target=False away")


def check_a_logit_is_explained(method: Method) -> None:
    """What uses a target explains its logit: the other classes' weights do not matter, as they would after softmax."""
    model, inputs = network(), images()
    for row, target in enumerate(TARGETS.tolist() if method.uses_target else []):
        alone = copy.deepcopy(model)
        with torch.no_grad():
            for parameter in alone.get_submodule("dense3").parameters():
                parameter[torch.arange(CLASSES) != target] = 0
        one, ids = slice(row, row + 1), torch.tensor([row])
        found, expected = (explained(method, each, inputs[one], TARGETS[one], ids=ids) for each in (model, alone))
        _expect_close(found, expected, "with and without the other classes' weights (explain a logit, not a softmax)")


@tries(STRANGE)
def check_eval_mode_is_explained(method: Method) -> str:
    """A model in training mode is explained as in eval mode, under no_grad and with frozen weights as without."""

    def check(make: Make) -> None:
        model = make()
        found: list[Tensor] = []
        for prepare in (model.train, model.eval, partial(model.requires_grad_, False)):
            prepare()
            with global_states_restored(), torch.set_grad_enabled(bool(found)):
                torch.manual_seed(len(found))  # so that dropout, where it is at work, differs
                found.append(explained(method, model, images()))
        training, evaluating, frozen = found
        _expect_same(training, evaluating, "a model in training mode under no_grad and in eval mode")
        _expect_same(frozen, evaluating, "a model with and without frozen weights")

    return _on_awkward_models(check)


def check_everything_is_left_alone(method: Method) -> str:
    """Model, inputs, training examples and global random states are as they were: after a call through the benchmark,
    which puts back what it can, and after the bare function (save for what `backward()` leaves on weights)."""
    return _on_awkward_models(partial(_expect_left_alone, method))


def check_failing_models_are_left_alone(method: Method) -> str:
    """The same, when the model raises in mid-run, at its first pass or at a later one."""

    def check(make: Make) -> None:
        counting = Failing(make())
        explained(method, counting, images())
        passes = range(counting.calls)
        for after in dict.fromkeys([*passes[:PASSES_THAT_FAIL], *passes[-1:]]):
            _expect_left_alone(method, make, after=after)

    return _on_awkward_models(check)


def check_no_graph_is_kept(method: Method) -> None:
    """When the maps are gone, nothing holds the autograd graph of a pass: it would fill the memory, block by block."""
    model, watch = network(), Watch()
    model.get_submodule("conv1").register_forward_hook(watch)
    maps = _bare(method, model, images(), TARGETS)
    expect(not maps.requires_grad, "the maps carry their autograd graph: return them detached")
    del maps
    gc.collect()
    kept = watch.alive()
    expect(not kept, f"{kept} pass(es) left their autograd graph in memory: keep no activations or logits")


@tries("BVD-CNNs on (3, 1, 16, 16) and (3, 3, 17, 17), a convolution with pooling on (3, 2, 13, 18)")
def check_other_shapes(method: Method) -> str:
    """One channel, odd and oblong images: finite maps of the right shape, or a refusal."""
    refused = []
    for channels, size in OTHER_SHAPES:
        inputs = images(channels=channels, size=size)
        model = oblong(channels) if size[0] != size[1] else network(channels=channels, pixels=size[0])
        try:
            _expect_form(method, explained(method, model, inputs), inputs)
        except Unsupported as reason:
            refused.append(str(reason))
        except Exception as error:  # foreign code may raise anything
            found = str(error) if isinstance(error, Nonconformant) else one_line(error)
            raise Nonconformant(f"inputs {tuple(inputs.shape)}: expected maps or Unsupported, found {found}") from error
    return f"unsupported: {refused[0]}" if refused else ""


@tries("dense layers on (3, 7), a convolution on (3, 2, 12)")
def check_vectors_and_sequences(method: Method) -> str:
    """Of a network for vectors (N, D) and one for sequences (N, C, L): maps of the right form, that depend on neither
    the batch nor its order and leave everything alone. It may decline, or break down; then it has no rows."""
    refused = []
    for make, draw in NO_IMAGES:
        inputs = draw()
        try:
            maps = explained(method, make(), inputs)
        except Unsupported as reason:
            refused.append(f"unsupported: {reason}")
            continue
        except Exception as error:  # foreign code may raise anything
            refused.append(f"inputs {tuple(inputs.shape)}: expected maps or Unsupported, found {one_line(error)}")
            continue
        try:
            _expect_form(method, maps, inputs)
            _expect_one_by_one(method, make(), inputs)
            _expect_left_alone(method, make, draw=draw)
        except Nonconformant as error:
            raise Nonconformant(f"inputs {tuple(inputs.shape)}: {error}") from error
    return "; ".join(refused)


@tries("BVD-CNNs on (6, 1, 16, 16)")
def check_level_zero_says_one_half(method: Method) -> str:
    """Contaminated and control models are the same: the whole pipeline, from training to table, must say exactly .5."""
    settings = Settings(seed=0, examples=6, chunk=4, rows=64)
    lab, contrasts = Lab(Memory()), [uncontaminated(seed) for seed in range(3)]
    measured = [pair for pair in _reading(method.output) if pair[0].applies(contrasts[0])]
    if not measured:
        return f"no metric reads {method.output}"
    for visible in (None, 0.0):
        try:
            expect_one_half(table(contrasts, [(method, few(method))], measured, lab, settings, visible))
        except Unsupported as reason:
            return f"unsupported: {reason}"
    return ""


CHECKS: list[ConformanceCheck] = [
    check_runs_on_a_plain_network, check_shape_type_device, check_says_something, check_seed_decides,
    check_batch_equals_one_by_one, check_order_of_requests, check_target_is_respected, check_a_logit_is_explained,
    check_eval_mode_is_explained, check_everything_is_left_alone, check_failing_models_are_left_alone,
    check_no_graph_is_kept, check_other_shapes, check_vectors_and_sequences, check_level_zero_says_one_half,
]  # fmt: skip


def few(method: Method) -> dict[str, Any]:
    """Small parameters, of those that the method has."""
    known = inspect.signature(method.function).parameters
    return {name: value for name, value in FEW.items() if name in known}


def explained(method: Method, model: nn.Module, inputs: Tensor, targets: Tensor = TARGETS, **options: Any) -> Tensor:
    """Its maps, as `attribug.explain` gives them, with few samples and training examples of the inputs' shape."""
    options = {"train_inputs": _examples(inputs), **few(method), **options}
    maps: Tensor = explain(method.name, model, inputs, targets, **options)
    return maps


def _examples(inputs: Tensor) -> Tensor:
    """Training examples (8, *shape), the same for every batch."""
    stream = torch.Generator().manual_seed(2)
    return torch.rand(8, *inputs.shape[1:], generator=stream, dtype=inputs.dtype).to(inputs.device)


def _query(model: nn.Module, inputs: Tensor, targets: Tensor = TARGETS, *, train: Tensor | None = None) -> Query:
    examples = _examples(inputs) if train is None else train
    ids = torch.arange(len(examples))
    return Query(model, inputs, targets, train=lambda: Data(examples, torch.zeros_like(ids), ids))


def _reading(output: str) -> list[tuple[Metric, str]]:
    """Metrics that read a kind of output, under their default posts."""
    for names in (READING, metrics.names()):
        found = [pair for name in names for pair in metrics.measured_as(name) if pair[0].reads == output]
        if found:
            return found
    return []


def _bare(method: Method, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """What the function itself returns, without the benchmark's guard around it."""
    maps: Tensor = method.function(_query(model, inputs, targets), **few(method))
    return maps


def _with_global_seed(method: Method, global_seed: int, seed: int) -> Tensor:
    seed_globally(global_seed)
    return explained(method, network(), images(), seed=seed)


def _on_awkward_models(check: Callable[[Make], None]) -> str:
    """Runs a check on the first model that the method takes, at last the plain one; the first refusal is the note."""
    note = ""
    for make in AWKWARD:
        try:
            check(make)
        except Unsupported as reason:
            note = note or f"unsupported: {reason}"
        else:
            break
    return note


def _expect_left_alone(
    method: Method, make: Make, *, after: int | None = None, draw: Callable[..., Tensor] = images
) -> None:
    """Compares states around a call through the benchmark and around the bare function; raises `Unsupported` if the
    method declines."""
    where = "" if after is None else f" when the model raises after {after} pass(es)"
    for bare in (False, True):
        model = make() if after is None else Failing(make(), after)
        tensors = (draw().requires_grad_(), TARGETS.clone(), torch.arange(3), draw(seed=2))
        refusal: Unsupported | None = None
        with contextlib.ExitStack() as ready, global_states_restored():
            if bare:
                ready.enter_context(evaluated(model))
            before = state(model, tensors, gradients=not bare)
            try:
                with contextlib.suppress(OnPurpose):  # which the model raises, not the method
                    _call(method, model, tensors, bare=bare)
            except Unsupported as reason:
                refusal = reason
            changed = changes(before, state(model, tensors, gradients=not bare))
        expect(not changed, f"not as before{where}: {', '.join(changed[:3])}")
        if refusal is not None:  # the bare function may be wrong where the benchmark has refused the model
            raise refusal


def _call(method: Method, model: nn.Module, tensors: Sequence[Tensor], *, bare: bool) -> None:
    inputs, targets, ids, train = tensors
    if not bare:
        explained(method, model, inputs, targets, ids=ids, train_inputs=train)
        return
    query = _query(model, inputs, targets, train=train)
    query.ids = ids
    method.function(query, **few(method))


def _expect_form(method: Method, maps: Tensor, inputs: Tensor) -> None:
    wrong = outputs.get(method.output).wrong(maps, inputs, CLASSES)
    expect(not wrong, wrong)
    form, found = ((str(tensor.dtype), str(tensor.device)) for tensor in (inputs, maps))
    expect(form == found, f"expected {' on '.join(form)}, found {' on '.join(found)}")
    broken = int((~maps.isfinite()).sum())
    expect(not broken, f"expected finite maps, found {broken} of {maps.numel()} values NaN or infinite")
    expect(not maps.requires_grad, "expected detached maps, found maps that require grad")


def _expect_same(one: Tensor, other: Tensor, what: str) -> None:
    expect(torch.equal(one, other), f"expected the same bits {what}, found maps that differ by {_distance(one, other)}")


def _expect_close(one: Tensor, other: Tensor, what: str) -> None:
    """Equal up to the rounding of float64 sums in another order."""
    close = torch.allclose(one, other, rtol=1e-8, atol=1e-10 * float(other.abs().max()))
    expect(close, f"expected equal maps {what}, found a difference of up to {_distance(one, other)}")


def _distance(one: Tensor, other: Tensor) -> str:
    return f"{float((one - other).abs().max()):.2g}" if one.shape == other.shape else "shape"
