"""Studies train and explain for real: planted methods whose numbers are known, and slow loops from the definitions."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

from attribug import tasks
from attribug.contracts.pieces import Method
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.maps.explain import explain
from attribug.models.checks import accuracy
from attribug.models.lab import Lab, logits
from attribug.models.memory import Memory
from attribug.query.query import Query
from attribug.studies import folds as parts
from attribug.studies import randomisation, stability

FOLDS, EXAMPLES, LAYERS = 3, 12, 8
SMALL = {"train": 300, "test": 20, "epochs": 12, "width": 6}
Study = Callable[..., pd.DataFrame]


@pytest.fixture(scope="module")
def task() -> Task:
    made: Task = tasks.get("digits").function(seed=0, other=lambda name: None, **SMALL)
    return made


@pytest.fixture(scope="module")
def lab() -> Lab:
    return Lab(Memory())


@pytest.fixture(scope="module")
def over_folds(task: Task, lab: Lab) -> Study:
    def study(*methods: str | Method, **options: Any) -> pd.DataFrame:
        options = {"folds": FOLDS, "examples": EXAMPLES, "lab": lab, **options}
        return stability.fold_study(task, methods, **options).set_index("method")

    return study


@pytest.fixture(scope="module")
def over_layers(task: Task, lab: Lab) -> Study:
    def study(*methods: str | Method, **options: Any) -> pd.DataFrame:
        options = {"seeds": 2, "examples": 6, "samples": 3, "lab": lab, **options}
        return randomisation.randomisation_study(task, methods, **options).set_index("method")

    return study


def planted(name: str, function: Callable[[Query], Tensor]) -> Method:
    return Method(name, function)


CONSTANT = planted("constant", lambda query: torch.ones_like(query.inputs))
THE_INPUT = planted("input", lambda query: query.inputs.clone())


def declining(query: Query) -> Tensor:
    raise Unsupported("never explains")


def breaking(query: Query) -> Tensor:
    with torch.no_grad():
        for parameter in query.model.parameters():
            parameter.zero_()
    raise RuntimeError("breaks")


def ramp(query: Query) -> Tensor:
    """One map for all, no two values alike."""
    return torch.linspace(-1, 1, query.inputs[0].numel()).reshape(query.inputs.shape[1:]).expand_as(query.inputs)


def ramp_where_right(query: Query) -> Tensor:
    """The ramp where the model predicts the target, its negative where it does not."""
    right = query.outputs().argmax(1) == query.targets
    return ramp(query) * torch.where(right, 1.0, -1.0)[:, None, None, None]


def other_where_right(query: Query) -> Tensor:
    """The ramp where the model predicts the target, an unrelated map where it does not."""
    right = (query.outputs().argmax(1) == query.targets)[:, None, None, None]
    noise = torch.randn(query.inputs.shape[1:], generator=torch.Generator().manual_seed(0)).expand_as(query.inputs)
    return torch.where(right, ramp(query), noise)


def fingerprint(model: nn.Module, layer: str) -> int:
    return int(model.get_submodule(layer).weight.double().sum().item() * 1e6) % 2**31


def knows_one_layer(layer: str) -> Method:
    """A map that depends on the weights of one layer and on nothing else."""

    def function(query: Query) -> Tensor:
        stream = torch.Generator().manual_seed(fingerprint(query.model, layer))
        return torch.randn(query.inputs.shape[1:], generator=stream).expand_as(query.inputs).contiguous()

    return planted(f"knows_{layer}", function)


# --- folds ---


def test_maps_that_know_no_model_are_perfectly_stable_and_tell_nothing(over_folds):
    found = over_folds("edges", "random", THE_INPUT, "gradient")
    for name in ("edges", "random", "input"):
        row = found.loc[name]
        assert (row["mege"], row["mege_signed"], row["undefined"], row["reason"]) == (1, 1, 0, "")
        assert (row["reco"], row["reco_signed"], row["reco_chance"]) == (0, 0, 0)
        assert row["mege_floor"] < 0.75
    gradient = found.loc["gradient"]
    assert gradient["mege"] < 0.9
    assert gradient["reco_chance"] > 0
    assert min(gradient["same"], gradient["different"]) >= 4


def test_constant_maps_are_undefined(over_folds):
    row = over_folds(CONSTANT).loc["constant"]
    assert row[["mege", "mege_signed", "mege_floor", "reco", "reco_signed", "reco_chance"]].isna().all()
    assert row["undefined"] == 1
    assert row["reason"].endswith("undefined 100 %")


def test_a_map_that_tells_right_from_wrong_is_consistent_and_the_sign_may_be_all_that_tells(over_folds):
    found = over_folds(planted("other", other_where_right), planted("sign", ramp_where_right))
    assert found["mege"].tolist() == [1, 1]
    assert found.loc["other", ["reco", "reco_signed"]].tolist() == [1, 1]
    assert found.loc["sign", ["reco", "reco_signed"]].tolist() == [0, 1]
    assert found.loc["other", "reco_chance"] < 0.6


def test_fold_study_is_the_plain_loop(task, lab, over_folds):
    train = task.examples("train")
    data, fold, seed = train.load(), parts.folds_of(SMALL["train"], FOLDS, 0), 0
    models = [lab.model(spec) for spec in stability._fold_models(task, lab, FOLDS, seed)]
    predicted = [logits(model, data.inputs).argmax(1) for model in models]
    maps = [explain("gradient", model, data.inputs, data.labels).sum(1).flatten(1).numpy() for model in models]
    same, different = [], []
    order = parts.order(len(data), seed).tolist()
    right = torch.stack([each == data.labels for each in predicted]).tolist()
    contradicted = [n for n in order if any(right[j][n] != right[int(fold[n])][n] for j in range(FOLDS))][:EXAMPLES]
    for i, j in combinations(range(FOLDS), 2):
        for n in range(len(data)):
            rho = stats.spearmanr(maps[i][n], maps[j][n]).statistic if int(fold[n]) in {i, j} else math.nan
            if int(fold[n]) in {i, j} and right[i][n] and right[j][n] and n in order[:EXAMPLES]:
                same.append(math.sqrt(1 - abs(rho)))
            if int(fold[n]) in {i, j} and right[i][n] != right[j][n] and n in contradicted:
                different.append(math.sqrt(1 - abs(rho)))
    row = over_folds("gradient").loc["gradient"]
    assert (row["same"], row["different"]) == (len(same), len(different))
    assert row["mege"] == pytest.approx(1 / (1 + np.mean(same)), rel=1e-6)
    assert row["reco"] == pytest.approx(max(0, stats.ks_2samp(same, different, alternative="greater").statistic))
    held_out = [float(right[int(fold[n])][n]) for n in range(len(data))]
    assert row["accuracy"] == pytest.approx(np.mean(held_out))


def test_a_model_has_not_seen_its_fold_and_starts_from_its_own_seed(task, lab):
    models = stability._fold_models(task, lab, FOLDS, 4)
    fold = parts.folds_of(SMALL["train"], FOLDS, 4)
    ids = task.examples("train").load().ids
    for number, model in enumerate(models):
        assert model.seed == 4 + number
        assert not set(model.examples.load().ids.tolist()) & set(ids[fold == number].tolist())
        assert len(model.examples.load()) == int((fold != number).sum())


# --- layers ---


def test_maps_that_know_no_model_do_not_notice(over_layers):
    found = over_layers("edges", "random", THE_INPUT, "gradient")
    for name in ("edges", "random", "input"):
        row = found.loc[name]
        assert [row[f"bottom_{number}"] for number in range(1, LAYERS + 1)] == pytest.approx([1] * LAYERS, abs=1e-9)
        assert (row["smprt"], row["smprt_sem"]) == (pytest.approx(1), pytest.approx(0, abs=1e-9))
        assert (row["emprt"], row["emprt_se"], row["emprt_sem"]) == (0, 0, 0)
        assert row["smprt_floor"] < 0.75
    assert found.loc["gradient", "smprt"] < 0.8
    assert found.loc["gradient", "emprt"] != 0
    assert not found["reason"].any()


def test_constant_maps_are_undefined_after_randomisation_too(over_layers):
    row = over_layers(CONSTANT).loc["constant"]
    assert row[["smprt", "smprt_sem", "smprt_floor", "emprt", "emprt_se", "emprt_sem", "bottom_1"]].isna().all()
    assert (row["smprt_undefined"], row["emprt_undefined"]) == (1, 1)
    assert row["reason"].startswith("smprt: no similarity in layer 1, 2, 3, 4, 5, 6, 7, 8; undefined 100 %; emprt: ")


@pytest.mark.parametrize(("layer", "kept"), [("conv1", 0), ("conv3", 2), ("dense3", 7)])
def test_layers_are_randomised_from_the_input_on_and_keep_their_draw(over_layers, layer, kept):
    row = over_layers(knows_one_layer(layer)).loc[f"knows_{layer}"]
    similar = np.array([row[f"bottom_{number}"] for number in range(1, LAYERS + 1)])
    assert similar[:kept] == pytest.approx(np.ones(kept))
    assert (np.abs(similar[kept:]) < 0.2).all()
    assert np.ptp(similar[kept:]) < 1e-9, "one draw of a layer in all that follow"
    assert row["smprt"] == pytest.approx(similar.mean())


def test_randomisation_without_noise_is_the_plain_loop(task, lab, over_layers):
    test = task.examples("test").load()
    inputs = test.inputs[:6]
    similar, rises = np.zeros((2, LAYERS)), np.zeros((2, 6))
    for seed in range(2):
        original, *randomised = randomisation._randomised(task, lab, seed)
        targets = logits(lab.model(original), inputs).argmax(1)
        chain = [lab.model(model) for model in (original, *randomised)]
        maps = [explain("gradient", model, inputs, targets).sum(1).flatten(1).numpy() for model in chain]
        for layer in range(LAYERS):
            rho = [stats.spearmanr(a, b).statistic for a, b in zip(maps[0], maps[layer + 1], strict=True)]
            similar[seed, layer] = np.mean(rho)
        for n in range(6):
            before, after = (stats.entropy(np.histogram(each[n].astype(float), 100)[0]) for each in (maps[0], maps[-1]))
            rises[seed, n] = (after - before) / before
    row = over_layers("gradient", noise=0.0, samples=2).loc["gradient"]
    layers = [row[f"bottom_{number}"] for number in range(1, LAYERS + 1)]
    assert layers == pytest.approx(similar.mean(0).tolist(), abs=1e-5)
    assert row["smprt"] == pytest.approx(similar.mean(), abs=1e-5)
    assert row["smprt_sem"] == pytest.approx(np.std(similar.mean(1), ddof=1) / math.sqrt(2), abs=1e-5)
    assert row["emprt"] == pytest.approx(rises.mean(), abs=1e-5)
    assert row["emprt_se"] == pytest.approx(np.std(rises.mean(0), ddof=1) / math.sqrt(6), abs=1e-5)
    assert row["emprt_sem"] == pytest.approx(np.std(rises.mean(1), ddof=1) / math.sqrt(2), abs=1e-5)


def test_all_layers_of_the_last_model_are_fresh_and_the_original_is_as_trained(task, lab):
    original, *randomised = randomisation._randomised(task, lab, 0)
    trained = copy.deepcopy(lab.model(original).state_dict())
    assert len(randomised) == LAYERS
    for number, model in enumerate(randomised, start=1):
        weights = lab.model(model).state_dict()
        changed = [name for name in weights if not torch.equal(weights[name], trained[name])]
        assert len(changed) == 2 * number, "weight and bias of every layer"
    assert accuracy(lab.outputs(original, task.examples("train")), task.examples("train").load().labels) > 0.7
    assert original == task.clean(0)


def test_every_model_gets_the_same_noise_of_the_stated_width(over_layers, task):
    seen: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {}

    def watching(query: Query) -> Tensor:
        seen.setdefault(len(query.inputs), []).append((query.inputs, query.ids, query.targets))
        return query.inputs.clone()

    over_layers(planted("watching", watching), seeds=1, examples=2, samples=200, noise=0.3)
    (noisy, ids, targets), *others = seen[400]
    assert len(others) == LAYERS
    assert all(torch.equal(noisy, inputs) and torch.equal(targets, same) for inputs, _, same in others)
    assert len(ids.unique()) == 400
    clean = task.examples("test").load().inputs[:2]
    noise = noisy.unflatten(0, (2, 200)) - clean[:, None]
    widths = 0.3 * (clean.flatten(1).amax(1) - clean.flatten(1).amin(1))
    assert noise.flatten(1).std(1) == pytest.approx(widths, rel=0.01)
    assert noise.mean(1).abs().max() < 5 * widths.max() / math.sqrt(200)
    assert not torch.equal(noise[0] / widths[0], noise[1] / widths[1])


# --- both ---

BOTH = pytest.mark.parametrize("study", ["over_folds", "over_layers"])


@BOTH
def test_a_method_that_declines_or_breaks_costs_its_own_row_only(study, request):
    run = request.getfixturevalue(study)
    broken = [planted("declining", declining), planted("breaking", breaking), "predictions"]
    found, alone = run(*broken, "gradient"), run("gradient")
    assert found.index.tolist() == ["declining", "breaking", "predictions", "gradient"]
    assert found["reason"].tolist() == [
        "unsupported: never explains",
        "failed: RuntimeError: breaks",
        "unsupported: it gives probabilities, not maps",
        "",
    ]
    assert found.iloc[:3].select_dtypes("float").drop(columns="accuracy", errors="ignore").isna().all(axis=None)
    pd.testing.assert_frame_equal(found.loc[["gradient"]], alone)


@BOTH
def test_a_repeated_call_trains_nothing_and_gives_the_same_numbers(study, request, task, lab):
    class Counting(Memory):
        writes = 0

        def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
            self.writes += 1
            super().save_weights(key, weights)

    run, store = request.getfixturevalue(study), Counting()
    torch.manual_seed(1)
    first = run("random", "smoothgrad", method_options={"smoothgrad": {"samples": 3}}, lab=Lab(store))
    writes, state = store.writes, torch.get_rng_state()
    torch.manual_seed(2)
    again = run("random", "smoothgrad", method_options={"smoothgrad": {"samples": 3}}, lab=Lab(store))
    assert (writes, store.writes) == ((FOLDS, FOLDS) if study == "over_folds" else (2, 2))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    other = run("random", "smoothgrad", method_options={"smoothgrad": {"samples": 2}}, lab=Lab(store))
    assert not first.loc["smoothgrad"].equals(other.loc["smoothgrad"])
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state()), "the global stream was drawn from"


@BOTH
def test_one_thread_inside_and_as_many_as_before_afterwards(study, request):
    threads = []

    def counting(query: Query) -> Tensor:
        threads.append(torch.get_num_threads())
        return query.inputs.clone()

    torch.set_num_threads(2)
    try:
        request.getfixturevalue(study)(planted("counting", counting))
        assert set(threads) == {1}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)


@BOTH
def test_other_metrics_read_other_parts_of_maps(study, request):
    found = request.getfixturevalue(study)("gradient", metric="spearman@abs_sum")
    signed = request.getfixturevalue(study)("gradient", metric="spearman@sum")
    name = "mege" if study == "over_folds" else "smprt"
    assert found.loc["gradient", name] != signed.loc["gradient", name]


@pytest.mark.parametrize(
    ("study", "options", "message"),
    [
        ("over_folds", {"folds": 1}, "folds: expected 2 to 300, the number of training examples, found 1"),
        ("over_folds", {"folds": 301}, "folds: expected 2 to 300, the number of training examples, found 301"),
        ("over_folds", {"examples": 1}, "examples: expected at least 2, so that maps of different images meet, found"),
        ("over_layers", {"examples": 1}, "examples: expected at least 2, so that maps of different images meet, found"),
        ("over_folds", {"metric": "iou@abs_sum"}, "metric: expected a similarity of maps, found 'iou@abs_sum'"),
        ("over_folds", {"metric": "total_variation"}, "metric: expected a similarity of maps, found 'total_variation'"),
        ("over_folds", {"metric": "spearmen"}, "unknown metric 'spearmen'; did you mean 'spearman'"),
        ("over_folds", {"task_options": {"train": 50}}, "task_options: expected none beside a task that is made "),
        ("over_folds", {"method_options": {"lime": {}}}, "method_options: unknown name 'lime'"),
        ("over_folds", {"method_options": {"gradient": {"s": 1}}}, "method_options.gradient: unknown option 's'"),
        ("over_layers", {"metric": "iou@abs_sum"}, "metric: expected a similarity of maps, found 'iou@abs_sum'"),
        ("over_layers", {"seeds": 0}, "seeds: expected at least 1, found 0"),
        ("over_layers", {"samples": 0}, "samples: expected at least 1, found 0"),
        ("over_layers", {"noise": -0.1}, "noise: expected at least 0, found -0.1"),
        ("over_layers", {"noise": math.nan}, "noise: expected at least 0, found nan"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_trained(study, options, message, request):
    store = Memory()
    with pytest.raises(InputError) as error:
        request.getfixturevalue(study)("gradient", lab=Lab(store), **options)
    assert str(error.value).startswith(message)
    assert not store


def test_unknown_names_are_refused(over_folds):
    with pytest.raises(InputError, match=r"^unknown method 'gradients'; did you mean 'gradient'"):
        over_folds("gradients")
    with pytest.raises(InputError, match=r"^methods: expected every method once, found one twice$"):
        over_folds("gradient", "gradient")
    with pytest.raises(InputError, match=r"^unknown task 'digit'; did you mean 'digits'\?$"):
        stability.fold_study("digit")
    with pytest.raises(InputError, match=r"^task_options: unknown option 'trian'; did you mean 'train'\?$"):
        stability.fold_study("digits", task_options={"trian": 50})


def test_models_lie_in_the_cache_by_default(tmp_path, monkeypatch):
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path))
    options = {"task_options": {**SMALL, "epochs": 1}, "examples": 2}
    found = stability.fold_study("digits", ["edges"], folds=2, **options)
    assert found.columns.tolist() == list(stability.FOLD_COLUMNS)
    assert len(list((tmp_path / "models").glob("*.safetensors"))) == 2
    found = randomisation.randomisation_study("digits", ["edges"], seeds=1, samples=1, **options)
    layers = [f"bottom_{number}" for number in range(1, LAYERS + 1)]
    assert found.columns.tolist() == [*randomisation.RANDOMISATION_COLUMNS, *layers, "reason"]
    assert len(list((tmp_path / "models").glob("*.safetensors"))) == 3
    assert found.loc[0, "smprt_sem":"smprt_sem"].isna().all()  # one model
