"""LIME and KernelSHAP: exact Shapley values by enumerated permutations, scikit-learn's Ridge on the very coalitions
that the model has seen, captum, and games whose values are known."""

import itertools

import numpy as np
import pytest
import torch
from captum import attr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import distance
from scipy.stats import chisquare
from sklearn.linear_model import Ridge
from torch import nn

import attribug
from attribug.methods import coalitions

PLAYERS = 8
ALL = 2**PLAYERS - 2  # coalitions that are neither empty nor full
TARGETS = torch.tensor([2, 0, 1])
SURROGATES = ["lime", "kernel_shap"]
GAPS = torch.tensor([
    [40, 40, -3, -3],
    [7, 7, 7, 11],
    [12, 13, 13, 90],
    [12, 41, 41, 90],
])  # 8 segments in a 4 × 4 image


def bent(features: int, seed: int = 0) -> nn.Module:
    """A network in which features interact, float64, three logits."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(features, 6), nn.Tanh(), nn.Linear(6, 3)).double()
    stream = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=stream, dtype=torch.float64))
    return model


def vectors(features: int = PLAYERS, rows: int = 3, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def images() -> torch.Tensor:
    return torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


class Recording(nn.Module):
    """Hands on what it is given, and keeps it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.seen: list[torch.Tensor] = []

    def forward(self, inputs):
        self.seen.append(inputs.detach().clone())
        return self.model(inputs)


def asked_about(name: str, players: int, samples: int, *, rows: int = 1, seed: int = 0) -> np.ndarray:
    """The coalitions (rows, M, players) under which a method asks, read off a model that sees inputs of ones."""
    model = Recording(bent(players))
    ones = torch.ones(rows, players, dtype=torch.float64)
    attribug.explain(name, model, ones, TARGETS[:rows], samples=samples, seed=seed)
    masked = torch.cat(model.seen[1 if rows == 1 else 2 :])  # after the preflight
    return masked.reshape(rows, -1, players).numpy()


def segment_sums(maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sum of each map over channels and each segment, segments in the order of their numbers."""
    return torch.stack([maps[..., labels == number].flatten(1).sum(1) for number in labels.unique()], dim=1)


def shapley_values(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean, over all orders in which segments may come, of what each one adds on arrival."""
    numbers = labels.unique()
    count = len(numbers)
    worth = np.empty((len(inputs), 2**count))
    for coalition in range(2**count):
        keep = sum((labels == number) * (coalition >> player & 1) for player, number in enumerate(numbers))
        worth[:, coalition] = model(inputs * keep).gather(1, targets[:, None])[:, 0].detach().numpy()
    orders = np.array(list(itertools.permutations(range(count))))
    after = np.cumsum(1 << orders, axis=1)
    gains = worth[:, after] - worth[:, after - (1 << orders)]  # (N, orders, arrivals)
    return torch.tensor(np.stack([gains[:, orders == player].mean(1) for player in range(count)], axis=1))


def shares(labels: torch.Tensor) -> dict[str, object]:
    return {"segments": labels} if labels.ndim == 2 else {}


GAMES = {"vectors": (vectors(), torch.arange(PLAYERS), 8), "images": (images(), GAPS, 32)}


# --- KernelSHAP ---


@pytest.mark.parametrize("samples", [ALL, 1000])
@pytest.mark.parametrize("game", GAMES)
def test_kernel_shap_is_exact_where_all_coalitions_fit(game, samples):
    inputs, labels, features = GAMES[game]
    model = bent(features)
    maps = attribug.explain("kernel_shap", model, inputs, TARGETS, samples=samples, **shares(labels))
    expected = shapley_values(model, inputs, labels, TARGETS)
    torch.testing.assert_close(segment_sums(maps, labels), expected, rtol=1e-8, atol=1e-8)
    gradients = attribug.explain("input_x_gradient", model, inputs, TARGETS)
    assert (segment_sums(gradients, labels) - expected).abs().max() > 0.1  # the game is not linear


@pytest.mark.parametrize("fault", ["weights", "coalition"])
def test_the_oracle_refuses_other_weights_and_a_missing_coalition(fault, monkeypatch):
    right = coalitions.shapley_coalitions

    def wrong(count, samples, stream):
        present, weights = right(count, samples, stream)
        return (present, torch.ones_like(weights)) if fault == "weights" else (present[1:], weights[1:])

    monkeypatch.setattr(coalitions, "shapley_coalitions", wrong)
    found = attribug.explain("kernel_shap", bent(PLAYERS), vectors(), TARGETS, samples=ALL)
    expected = shapley_values(bent(PLAYERS), vectors(), torch.arange(PLAYERS), TARGETS)
    assert (found - expected).abs().max() > 1e-3


@settings(max_examples=25, deadline=None)
@given(players=st.integers(1, 7), seed=st.integers(0, 1000))
def test_kernel_shap_is_exact_for_any_number_of_players(players, seed):
    model, inputs = bent(players, seed), vectors(players, seed=seed + 1)
    found = attribug.explain("kernel_shap", model, inputs, TARGETS, samples=2**players)
    torch.testing.assert_close(
        found, shapley_values(model, inputs, torch.arange(players), TARGETS), rtol=1e-8, atol=1e-8
    )


@settings(max_examples=25, deadline=None)
@given(players=st.integers(1, 24), samples=st.integers(1, 60), seed=st.integers(0, 1000))
def test_kernel_shap_sums_to_the_whole_change_however_few_the_coalitions(players, samples, seed):
    model, inputs = bent(players, seed), vectors(players)
    found = attribug.explain("kernel_shap", model, inputs, TARGETS, samples=samples, seed=seed)
    change = (model(inputs) - model(0 * inputs)).gather(1, TARGETS[:, None])[:, 0].detach()
    assert found.isfinite().all()
    assert found.abs().max() < 100 * (1 + change.abs().max())
    torch.testing.assert_close(found.sum(1), change, rtol=1e-10, atol=1e-10)


def test_sampled_kernel_shap_is_unbiased_within_its_sampling_error():
    draws = torch.stack([
        attribug.explain("kernel_shap", bent(PLAYERS), vectors(), TARGETS, samples=100, seed=seed)
        for seed in range(150)
    ])  # fmt: skip
    expected = shapley_values(bent(PLAYERS), vectors(), torch.arange(PLAYERS), TARGETS)
    error = draws.std(0) / len(draws) ** 0.5
    score = ((draws.mean(0) - expected) / error).abs()
    assert score.max() < 4
    assert error.max() < 0.02 * expected.std()  # there is not much room
    assert (draws[0] - expected).abs().max() > 1e-3


def test_kernel_shap_of_a_linear_game_is_exact_once_coalitions_have_full_rank():
    stream = torch.Generator().manual_seed(3)
    model = nn.Linear(PLAYERS, 3).double()
    with torch.no_grad():
        model.weight.copy_(torch.randn(model.weight.shape, generator=stream, dtype=torch.float64))
    expected = vectors() * model.weight.detach()[TARGETS]
    outcomes = set()
    for samples in (2, 4, 6, 8, 10, 14, 20, 40):
        present = asked_about("kernel_shap", PLAYERS, samples)[0][2:]
        assert len(present) == samples
        full_rank = np.linalg.matrix_rank(present - present.mean(1, keepdims=True)) == PLAYERS - 1
        found = attribug.explain("kernel_shap", model, vectors(), TARGETS, samples=samples)
        exact = torch.allclose(found, expected, rtol=1e-8, atol=1e-8)
        assert exact == full_rank
        outcomes.add(exact)
    assert outcomes == {True, False}


def test_kernel_shap_knows_equals_and_dummies():
    """Players 2 and 5 do the same, player 0 nothing."""
    model, inputs = bent(PLAYERS), vectors()
    with torch.no_grad():
        model[1].weight[:, 5], model[1].weight[:, 0] = model[1].weight[:, 2], 0
    inputs[:, 5] = inputs[:, 2]
    found = attribug.explain("kernel_shap", model, inputs, TARGETS, samples=ALL)
    torch.testing.assert_close(found[:, 2], found[:, 5], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(found[:, 0], torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-12)
    assert (found[:, 2] - found[:, 3]).abs().min() > 1e-3


@pytest.mark.filterwarnings("ignore:You are providing multiple inputs")
def test_kernel_shap_tends_to_captums():
    model, inputs = bent(PLAYERS), vectors()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        expected = attr.KernelShap(model).attribute(
            inputs, target=TARGETS, n_samples=1000, perturbations_per_eval=100, baselines=0.0
        )
    for samples, least in ((ALL, 0.99), (100, 0.98)):
        found = attribug.explain("kernel_shap", model, inputs, TARGETS, samples=samples)
        for row in range(len(inputs)):
            assert np.corrcoef(found[row], expected[row])[0, 1] > least
    other = attribug.explain("kernel_shap", model, inputs, (TARGETS + 1) % 3)
    assert min(np.corrcoef(other[row], expected[row])[0, 1] for row in range(3)) < 0.9


def test_kernel_shap_draws_pairs_whose_sizes_follow_the_kernel():
    present = asked_about("kernel_shap", 30, 4000)[0]
    assert (present[0] == 0).all()
    assert (present[1] == 1).all()
    drawn, complements = present[2::2], present[3::2]
    np.testing.assert_array_equal(drawn + complements, 1)
    sizes = np.bincount(drawn.sum(1).astype(int), minlength=31)[1:30]
    mass = np.array([1 / (k * (30 - k)) for k in range(1, 30)])
    assert chisquare(sizes, mass / mass.sum() * sizes.sum()).pvalue > 1e-3
    assert chisquare(sizes, np.full(29, sizes.sum() / 29)).pvalue < 1e-6
    assert np.abs(drawn.mean(0) - 0.5).max() < 5 * 0.5 / 2000**0.5  # every player is in half of them


def test_an_odd_number_of_coalitions_leaves_the_last_one_alone():
    assert asked_about("kernel_shap", PLAYERS, 7).shape == (1, 2 + 7, PLAYERS)


# --- LIME ---


def ridge(present: np.ndarray, outputs: np.ndarray, penalty: float = 1.0, width: float = 0.25) -> np.ndarray:
    """scikit-learn's coefficients under LIME's weights, in cosine distances to the full coalition."""
    full = np.ones(present.shape[1])
    away = [distance.cosine(row, full) if row.any() else 1.0 for row in present]
    weights = np.exp(-np.square(away) / (2 * width**2))
    return Ridge(alpha=penalty, fit_intercept=True).fit(present, outputs, sample_weight=weights).coef_


@pytest.mark.parametrize("samples", [3, 50, 200])
@pytest.mark.parametrize("game", GAMES)
def test_lime_is_ridge_on_the_same_coalitions(game, samples):
    inputs, labels, features = GAMES[game]
    model = bent(features)
    found = segment_sums(
        attribug.explain("lime", model, inputs, TARGETS, samples=samples, seed=5, **shares(labels)), labels
    )
    present = asked_about("lime", PLAYERS, samples, seed=5)[0]
    assert present.shape == (samples, PLAYERS)
    spread = torch.tensor(present)[:, labels.unique(return_inverse=True)[1]]
    for row in range(len(inputs)):
        masked = inputs[row] * (spread[:, None] if inputs.ndim == 4 else spread)
        outputs = model(masked)[:, TARGETS[row]].detach().numpy()
        weights = found[row].numpy()
        np.testing.assert_allclose(weights, ridge(present, outputs), rtol=1e-8, atol=1e-8)
        if samples > 3:
            for other in (ridge(present, outputs, penalty=0.5), ridge(present, outputs, width=0.5)):
                assert np.abs(weights - other).max() > 1e-4


def test_lime_flips_fair_coins_after_the_input_itself():
    present = asked_about("lime", 40, 500, rows=3)
    np.testing.assert_array_equal(present, np.broadcast_to(present[:1], present.shape))  # the same for all examples
    assert set(np.unique(present)) == {0, 1}
    assert present[0, 0].all()
    coins = present[0, 1:]
    assert abs(coins.mean() - 0.5) < 5 * 0.5 / coins.size**0.5
    assert np.abs(coins.mean(0) - 0.5).max() < 5 * 0.5 / len(coins) ** 0.5


# --- both ---


@pytest.mark.parametrize("name", SURROGATES)
def test_the_seed_decides_and_ids_do_not_matter(name):
    model, inputs = bent(PLAYERS), vectors()

    def explained(**options):
        return attribug.explain(name, model, inputs, TARGETS, samples=30, **options)

    assert torch.equal(explained(), explained(ids=torch.tensor([9, 8, 70])))
    assert not torch.allclose(explained(), explained(seed=1), rtol=1e-3)


@pytest.mark.parametrize("name", SURROGATES)
def test_values_are_spread_evenly_over_their_segment(name):
    model, inputs = bent(32), images()
    maps = attribug.explain(name, model, inputs, TARGETS, segments=GAPS)
    assert torch.equal(maps, maps[:, :1].expand_as(maps))
    for number in GAPS.unique():
        inside = maps[..., number == GAPS].flatten(1)
        assert torch.equal(inside, inside[:, :1].expand_as(inside))
    assert len(maps[0].unique()) == PLAYERS


@pytest.mark.parametrize("name", SURROGATES)
def test_numbers_of_segments_may_have_gaps(name):
    model, inputs = bent(32), images()
    plain = GAPS.unique(return_inverse=True)[1]
    found, expected = (
        attribug.explain(name, model, inputs, TARGETS, segments=labels, samples=40) for labels in (GAPS, plain)
    )
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize(
    ("across", "labels"),
    [
        (2, [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]),
        (3, [[0, 0, 1, 2], [0, 0, 1, 2], [3, 3, 4, 5], [6, 6, 7, 8]]),
        (9, torch.arange(16).reshape(4, 4).tolist()),
        (1, [[0] * 4] * 4),
    ],
)
def test_a_number_of_segments_makes_a_grid(name, across, labels):
    model, inputs = bent(32), images()
    found, expected = (
        attribug.explain(name, model, inputs, TARGETS, segments=segments, samples=60)
        for segments in (across, torch.tensor(labels))
    )
    assert torch.equal(found, expected)


def test_eight_segments_across_an_image_are_the_default():
    inputs = torch.randn(3, 1, 9, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for name in SURROGATES:
        found = attribug.explain(name, bent(180), inputs, TARGETS)
        assert torch.equal(found, attribug.explain(name, bent(180), inputs, TARGETS, segments=8))
        assert len(found[0].unique()) == 64


def test_one_segment_gets_the_whole_change():
    model, inputs = bent(32), images()
    change = (model(inputs) - model(0 * inputs)).gather(1, TARGETS[:, None])[:, 0].detach()
    for segments in (1, torch.full((4, 4), 7)):
        found = attribug.explain("kernel_shap", model, inputs, TARGETS, segments=segments)
        expected = (change / 32)[:, None, None, None].expand_as(found)
        torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_one_feature_gets_the_whole_change():
    model, inputs = bent(1), vectors(1)
    change = (model(inputs) - model(0 * inputs)).gather(1, TARGETS[:, None]).detach()
    found = attribug.explain("kernel_shap", model, inputs, TARGETS)
    torch.testing.assert_close(found, change, rtol=1e-12, atol=0)
    assert torch.equal(attribug.explain("lime", model, inputs, TARGETS).sign(), change.sign())


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": 0}, "samples: expected at least 1, found 0"),
        ({"segments": 0}, "segments: expected a map of integers or a number across from 1 on, found 0"),
        ({"segments": torch.zeros(4, 5, dtype=torch.int64)}, r"of shape \(4, 4\), found torch.int64 \(4, 5\)"),
        ({"segments": torch.zeros(3, 4, 4, dtype=torch.int64)}, r"of shape \(4, 4\), found torch.int64 \(3, 4, 4\)"),
        (
            {"segments": torch.zeros(4, 4)},
            r"segments: expected integers of shape \(4, 4\), found torch.float32 \(4, 4\)",
        ),
    ],
)
def test_wrong_segments_and_samples_are_refused(name, options, message):
    with pytest.raises(attribug.InputError, match=message):
        attribug.explain(name, bent(32), images(), TARGETS, **options)


@pytest.mark.parametrize("name", SURROGATES)
@pytest.mark.parametrize("segments", [4, 100, torch.arange(16) // 3])
def test_a_sequence_is_an_image_of_one_row(name, segments):
    """Segments follow each other along the sequence: the same coalitions, so the same maps."""
    sequences = images().flatten(2)  # (3, 2, 16)
    across = segments if isinstance(segments, int) else segments[None]
    found = attribug.explain(name, bent(32), sequences, TARGETS, segments=segments)
    expected = attribug.explain(name, bent(32), sequences[:, :, None], TARGETS, segments=across)
    assert torch.equal(found, expected[:, :, 0])


@pytest.mark.parametrize("name", SURROGATES)
def test_other_shapes_are_refused(name):
    with pytest.raises(attribug.Unsupported, match=r"or vectors \(N, D\), found \(3, 2, 4, 2, 2\)"):
        attribug.explain(name, bent(32), images().reshape(3, 2, 4, 2, 2), TARGETS)
