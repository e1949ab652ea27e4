"""Queries: random streams, shared primitives, bounded passes, what a method costs, refusals."""

import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import attribug
from attribug.contracts.data import Data
from attribug.methods.integrated_gradients import gradients_from_training_examples
from attribug.query.query import Query

N, CLASSES = 5, 3


class Counting(nn.Module):
    """A small nonlinear network that counts the examples it has passed, and its passes."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(2 * 4 * 4, 8), nn.Tanh(), nn.Linear(8, CLASSES))
        stream = torch.Generator().manual_seed(0)
        for parameter in self.parameters():
            nn.init.normal_(parameter, generator=stream)
        self.double()
        self.sizes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.sizes.append(len(inputs))
        return self.layers(inputs)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


TRAIN = Data(drawn(7, 6, 2, 4, 4), torch.zeros(6, dtype=torch.int64), torch.arange(6))
BASELINE = drawn(8, 2, 4, 4)


def query(model: nn.Module | None = None, *, n: int = N, **options) -> Query:
    options = {"train": lambda: TRAIN, **options}
    return Query(model or Counting(), drawn(1, n, 2, 4, 4), torch.arange(n) % CLASSES, **options)


# --- random streams ---


def first_draws(asked: Query, *name) -> list[float]:
    return [torch.rand(1, generator=stream).item() for stream in asked.generators(*name)]


def test_streams_follow_seed_name_and_example():
    ids = torch.tensor([3, 900, 0, 12, 5])
    draws = first_draws(query(ids=ids, seed=4), "mine", 2)
    assert len(set(draws)) == N
    assert first_draws(query(ids=ids, seed=4), "mine", 2) == draws
    assert first_draws(query(ids=ids.flip(0), seed=4), "mine", 2) == draws[::-1]
    for other in (first_draws(query(ids=ids, seed=5), "mine", 2), first_draws(query(ids=ids, seed=4), "mine", 3)):
        assert not set(other) & set(draws)


def test_ids_count_from_zero_unless_given():
    assert first_draws(query(), "mine") == first_draws(query(ids=torch.arange(N)), "mine")


def test_streams_begin_anew_at_each_request():
    asked = query()
    assert first_draws(asked, "mine") == first_draws(asked, "mine")


def test_streams_leave_the_global_one_alone():
    asked, state = query(), torch.get_rng_state()
    first_draws(asked, "mine")
    asked.noisy_gradients(3, 0.1)
    assert torch.equal(torch.get_rng_state(), state)


# --- primitives ---

PRIMITIVES = {
    "outputs": lambda asked: asked.outputs(),
    "gradient": lambda asked: asked.gradient(),
    "noisy_gradients": lambda asked: asked.noisy_gradients(4, 0.2).variance,
    "path_gradients": lambda asked: asked.path_gradients(4),
    "path_gradients from a baseline": lambda asked: asked.path_gradients(4, BASELINE),
    "expected_gradients": lambda asked: gradients_from_training_examples(asked, 4, 0.0),
    "expected_gradients with noise": lambda asked: gradients_from_training_examples(asked, 4, 0.2),
    "baseline_outputs": lambda asked: asked.baseline_outputs(0.25),
    "baseline_outputs of a tensor": lambda asked: asked.baseline_outputs(BASELINE),
    "masked_outputs": lambda asked: asked.masked_outputs(torch.eye(4, dtype=torch.bool).expand(3, 4, 4)),
}
EXAMPLES_PASSED = {
    "outputs": N,
    "gradient": N,
    "noisy_gradients": 4 * N,
    "path_gradients": 4 * N,
    "path_gradients from a baseline": 4 * N,
    "expected_gradients": 4 * N,
    "expected_gradients with noise": 4 * N,
    "baseline_outputs": 1,  # all examples share it
    "baseline_outputs of a tensor": N,
    "masked_outputs": 3 * N,
}
SHARED = [name for name in PRIMITIVES if name != "masked_outputs"]


@pytest.mark.parametrize("name", SHARED)
def test_primitives_run_once_and_nobody_can_change_what_others_get(name):
    model = Counting()
    asked = query(model)
    expected = PRIMITIVES[name](query())
    for _ in range(3):
        found = PRIMITIVES[name](asked)
        assert torch.equal(found, expected)
        found.zero_()
    assert sum(model.sizes) == EXAMPLES_PASSED[name]


def test_whoever_hooks_the_model_gets_passes_of_its_own():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 6), nn.ReLU(), nn.Linear(6, 2))
    asked = Query(model, torch.randn(N, 3, 2, 2), torch.ones(N, dtype=torch.int64))
    plain = asked.gradient()
    handle = model[2].register_full_backward_hook(lambda module, above, below: (2 * above[0],))
    assert torch.equal(asked.gradient(), 2 * plain)
    handle.remove()
    assert torch.equal(asked.gradient(), plain)


def test_primitives_with_other_arguments_run_again():
    asked = query()
    assert not torch.equal(asked.noisy_gradients(4, 0.2).mean, asked.noisy_gradients(4, 0.3).mean)
    assert not torch.equal(asked.noisy_gradients(4, 0.2).mean, asked.noisy_gradients(5, 0.2).mean)
    assert not torch.equal(asked.path_gradients(1), asked.path_gradients(2))
    assert not torch.equal(asked.path_gradients(2), asked.path_gradients(2, 0.5))
    assert not torch.equal(asked.path_gradients(2, 0.5), asked.path_gradients(2, BASELINE))
    assert not torch.equal(asked.baseline_outputs(), asked.baseline_outputs(0.5))
    assert not torch.equal(
        gradients_from_training_examples(asked, 4, 0.2), gradients_from_training_examples(asked, 4, 0.3)
    )
    assert not torch.equal(
        gradients_from_training_examples(asked, 4, 0.2), gradients_from_training_examples(asked, 5, 0.2)
    )


def test_equal_arguments_are_one_request():
    model = Counting()
    asked = query(model)
    for zero in (0, 0.0):
        asked.baseline_outputs(zero)
        asked.path_gradients(4, zero)
        gradients_from_training_examples(asked, 4, zero)
    assert sum(model.sizes) == 1 + 4 * N + 4 * N
    assert torch.equal(
        gradients_from_training_examples(query(), 4, 1), gradients_from_training_examples(query(), 4, 1.0)
    )
    assert torch.equal(query().noisy_gradients(4, 1).mean, query().noisy_gradients(4, 1.0).mean)


def test_samples_do_not_depend_on_who_else_is_explained():
    ids = torch.tensor([3, 900, 0, 12, 5])
    whole = gradients_from_training_examples(query(ids=ids), 4, 0.2)
    for row in (0, 3):
        one = slice(row, row + 1)
        asked = Query(Counting(), query().inputs[one], query().targets[one], ids=ids[one], train=lambda: TRAIN)
        torch.testing.assert_close(gradients_from_training_examples(asked, 4, 0.2), whole[one], rtol=1e-12, atol=1e-14)
    assert not torch.equal(gradients_from_training_examples(query(ids=ids + 1), 4, 0.2)[0], whole[0])


@pytest.mark.parametrize("rows", [1, 2, 3, 64])
@pytest.mark.parametrize("name", PRIMITIVES)
def test_passes_are_bounded_and_their_size_does_not_matter(name, rows):
    model = Counting()
    found = PRIMITIVES[name](query(model, rows=rows))
    assert max(model.sizes) <= rows
    assert sum(model.sizes) == EXAMPLES_PASSED[name]
    torch.testing.assert_close(found, PRIMITIVES[name](query(rows=7)), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("name", PRIMITIVES)
def test_primitives_carry_no_graph(name):
    assert not PRIMITIVES[name](query()).requires_grad
    with torch.no_grad():
        found = PRIMITIVES[name](query())
    assert torch.equal(found, PRIMITIVES[name](query()))


def test_outputs_are_logits():
    model = Counting()
    torch.testing.assert_close(query(model).outputs(), model(query().inputs).detach(), rtol=1e-12, atol=1e-14)


def test_a_model_that_changes_its_input_does_not_change_ours():
    class Greedy(Counting):
        def forward(self, inputs):
            if not inputs.requires_grad:
                inputs.mul_(0.5)
            return super().forward(inputs)

    asked = query(Greedy())
    before = asked.inputs.clone()
    asked.outputs()
    assert torch.equal(asked.inputs, before)


def test_masked_outputs_are_a_slow_loop():
    model, asked = Counting(), query()
    keep = torch.rand(6, 4, 4, generator=torch.Generator().manual_seed(2)) > 0.5
    found = query(model, rows=4).masked_outputs(keep)
    assert found.shape == (N, 6)
    for i in range(N):
        for m in range(6):
            masked = torch.where(keep[m], asked.inputs[i], 0)
            torch.testing.assert_close(
                found[i, m], model(masked[None])[0, asked.targets[i]].detach(), rtol=1e-10, atol=1e-12
            )


@pytest.mark.parametrize("form", ["shares", "vectors"])
def test_masks_may_be_shares_and_inputs_vectors(form):
    keep = drawn(2, 6, 4, 4) if form == "shares" else drawn(2, 6, 8) > 0.5
    if form == "shares":
        model, inputs = Counting(), query().inputs
    else:
        model, inputs = nn.Sequential(nn.Linear(8, 4), nn.Tanh(), nn.Linear(4, CLASSES)).double(), drawn(3, N, 8)
    asked = Query(model, inputs, torch.arange(N) % CLASSES, rows=4)
    found = asked.masked_outputs(keep)
    for i in range(N):
        for m in range(6):
            expected = model((inputs[i] * keep[m])[None])[0, asked.targets[i]].detach()
            torch.testing.assert_close(found[i, m], expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("baseline", [0, 0.25, BASELINE, BASELINE[:, :1, :1], drawn(9, N, 2, 4, 4)])
def test_baseline_outputs_are_the_targets_logits_there(baseline):
    model, asked = Counting(), query(rows=2)
    points = torch.zeros_like(asked.inputs) + baseline
    expected = model(points).gather(1, asked.targets[:, None])[:, 0].detach()
    torch.testing.assert_close(asked.baseline_outputs(baseline), expected, rtol=1e-12, atol=1e-14)
    assert torch.equal(asked.at_baseline(baseline), points)


@pytest.mark.parametrize("shape", [(3, 4, 4), (N + 1, 2, 4, 4), (1, N, 2, 4, 4)])
def test_baselines_that_do_not_broadcast_are_refused(shape):
    expected = rf"baseline: expected a number or \(5, 2, 4, 4\), found \({', '.join(map(str, shape))}\)"
    for ask in (query().at_baseline, query().baseline_outputs, lambda b: query().path_gradients(2, b)):
        with pytest.raises(attribug.InputError, match=expected):
            ask(torch.zeros(shape))


def test_baselines_take_the_inputs_type():
    asked = query()
    single = BASELINE.float()
    assert asked.at_baseline(single).dtype == torch.float64
    assert torch.equal(asked.path_gradients(2, single), asked.path_gradients(2, single.double()))


def test_path_gradients_from_a_baseline_integrate_polynomials_exactly():
    """∫₀¹ 3(b + α(x − b))² dα of F = Σ x³ is (x³ − b³) / (x − b)."""

    class Cubes(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1).pow(3).sum(1, keepdim=True).expand(-1, CLASSES)

    asked = query(Cubes())
    for b in (-0.5, -BASELINE):
        expected = (asked.inputs**3 - b**3) / (asked.inputs - b)
        torch.testing.assert_close(asked.path_gradients(2, b), expected, rtol=1e-12, atol=1e-14)
        assert (asked.path_gradients(1, b) - expected).abs().max() > 1e-3


def test_a_promise_is_kept_without_its_graph():
    asked = query()
    assert asked.promised is None
    asked.promise(torch.ones(N, requires_grad=True) * 2)
    assert torch.equal(asked.promised, torch.full((N,), 2.0))
    assert not asked.promised.requires_grad


def test_path_gradients_integrate_polynomials_exactly():
    """∫₀¹ ∇F(αx) dα of F = Σ x³ is x²: two Gauss–Legendre points integrate it exactly, one does not."""

    class Cubes(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1).pow(3).sum(1, keepdim=True).expand(-1, CLASSES)

    asked = query(Cubes())
    torch.testing.assert_close(asked.path_gradients(2), asked.inputs.square(), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(asked.path_gradients(1), asked.inputs.square() * 3 / 4, rtol=1e-12, atol=1e-14)


def test_variance_keeps_its_digits_under_a_large_mean():
    """Gradients of 10⁸ + small: the mean of squares minus the squared mean alone would keep no digit."""

    class Steep(nn.Module):
        def forward(self, inputs):
            flat = inputs.flatten(1)
            return (1e8 * flat + flat.square() / 2).sum(1, keepdim=True).expand(-1, CLASSES)

    moments = query(Steep()).noisy_gradients(20, 0.1)
    stack = []
    for i, stream in enumerate(query().generators("noisy_gradients", 20, 0.1)):
        x = query().inputs[i]
        draws = torch.stack([torch.randn(x.shape, generator=stream, dtype=torch.float32) for _ in range(20)]).to(x)
        stack.append((0.1 * (x.max() - x.min()) * draws).var(0, correction=0))
    torch.testing.assert_close(moments.variance, torch.stack(stack), rtol=1e-4, atol=0)


@pytest.mark.parametrize("ask", [
    lambda q: q.noisy_gradients(0, 0.1), lambda q: q.path_gradients(0),
    lambda q: gradients_from_training_examples(q, 0, 0.1),
])  # fmt: skip
def test_nothing_to_average_is_refused(ask):
    with pytest.raises(attribug.InputError, match="expected at least 1, found 0"):
        ask(query())


# --- costs ---


def cost(asked: Query, *names: str):
    with asked.costing() as costing:
        for name in names:
            PRIMITIVES[name](asked)
    return costing.cost


@pytest.mark.parametrize("name", PRIMITIVES)
def test_passes_are_counted_by_examples(name):
    model = Counting()
    found = cost(query(model, rows=3), name)
    assert found.forward == sum(model.sizes) == EXAMPLES_PASSED[name]
    assert found.backward == (EXAMPLES_PASSED[name] if "gradient" in name else 0)
    assert found.seconds > 0


@pytest.mark.parametrize("name", SHARED)
def test_shared_passes_are_charged_to_each_user_in_full(name):
    model = Counting()
    asked = query(model)
    first = cost(asked, name)
    passed = sum(model.sizes)
    for _ in range(2):
        again = cost(asked, name)
        assert (again.forward, again.backward) == (first.forward, first.backward)
        assert again.seconds > 0
    assert sum(model.sizes) == passed


def test_nobody_pays_twice_for_what_runs_once():
    """A method that asks twice would run the passes once, were it alone."""
    asked = query()
    alone = cost(query(), "gradient", "gradient", "outputs")
    cost(asked, "gradient", "outputs")
    later = cost(asked, "gradient", "gradient", "outputs")
    assert (alone.forward, alone.backward) == (later.forward, later.backward) == (2 * N, N)


def test_a_methods_bill_does_not_depend_on_who_ran_before():
    alone = cost(query(), "gradient", "path_gradients")
    asked = query()
    cost(asked, "noisy_gradients", "gradient")
    later = cost(asked, "gradient", "path_gradients")
    assert (alone.forward, alone.backward) == (later.forward, later.backward) == (5 * N, 5 * N)


def test_shared_seconds_are_charged_too():
    class Slow(Counting):
        def forward(self, inputs):
            time.sleep(0.02)
            return super().forward(inputs)

    asked = query(Slow(), rows=1)
    first, second = cost(asked, "gradient").seconds, cost(asked, "gradient").seconds
    assert min(first, second) >= 0.02 * N


def test_anew_means_anew():
    model = Counting()
    asked = query(model)
    with asked.costing() as costing:
        asked.input_gradients()
        asked.input_gradients()
    assert (costing.cost.forward, costing.cost.backward) == (2 * N, 2 * N)
    assert sum(model.sizes) == 2 * N


# --- refusals ---


class Returning(nn.Module):
    def __init__(self, answer) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, inputs):
        return self.answer(inputs)


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (lambda x: (x.flatten(1), x), "found tuple"),
        (lambda x: {"logits": x.flatten(1)}, "found dict"),
        (lambda x: x.flatten(1).sum(1), r"found \(5,\)"),
        (lambda x: x, r"found \(5, 2, 4, 4\)"),
    ],
)
@pytest.mark.parametrize("name", ["outputs", "gradient"])
def test_models_without_logits_are_refused(name, answer, found):
    with pytest.raises(attribug.Unsupported, match=r"expected logits \(N, K\) from the model, " + found):
        PRIMITIVES[name](query(Returning(answer)))


@pytest.mark.parametrize(
    "answer",
    [
        lambda x: torch.zeros(len(x), CLASSES),
        lambda x: x.detach().flatten(1),
        lambda x: torch.zeros(len(x), CLASSES, requires_grad=True) + 1,
    ],
)
def test_models_that_ignore_their_input_are_refused(answer):
    with pytest.raises(attribug.Unsupported, match="output does not depend on its input"):
        query(Returning(answer)).gradient()


def test_training_examples_are_refused_where_there_are_none():
    with pytest.raises(attribug.Unsupported, match="needs training examples, and none were given"):
        _ = query(train=None).train
    with pytest.raises(attribug.Unsupported, match="needs training examples, and none were given"):
        gradients_from_training_examples(query(train=None), 2, 0.0)
    data = Data(torch.rand(2, 2, 4, 4), torch.tensor([0, 1]), torch.arange(2))
    assert query(train=lambda: data).train is data


@pytest.mark.parametrize(
    ("targets", "found"),
    [
        (torch.tensor([0, 1]), r"found torch.int64 \(2,\)"),
        (torch.zeros(N), r"found torch.float32 \(5,\)"),
        (torch.zeros(N, 1, dtype=torch.int64), r"found torch.int64 \(5, 1\)"),
        (torch.zeros(N, dtype=torch.int32), r"found torch.int32 \(5,\)"),
        ([0] * N, "found list"),
        (np.zeros(N, dtype=np.int64), "found ndarray"),
    ],
)
@pytest.mark.parametrize("name", ["targets", "ids"])
def test_targets_and_ids_are_one_an_input(name, targets, found):
    given = {"targets": torch.zeros(N, dtype=torch.int64), "ids": torch.arange(N), name: targets}
    with pytest.raises(
        attribug.InputError, match=rf"{name}: expected a torch.int64 tensor \(5,\), one number an input, {found}"
    ):
        Query(Counting(), query().inputs, given["targets"], ids=given["ids"])
