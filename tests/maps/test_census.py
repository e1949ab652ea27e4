"""What is counted about maps: not finite, constant, off the sums they promise; passes halved when memory runs out."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
from torch import Tensor, nn

import attribug
from attribug import methods
from attribug.conformance.methods import few
from attribug.conformance.specimens import TARGETS, images, network
from attribug.contracts.pieces import Method
from attribug.maps.attribution import Census, attributions, out_of_memory
from attribug.query.query import Query
from attribug.results.schema import VERDICTS, read_results
from attribug.scores.records import Record
from attribug.tables.results import TOLERANCE, _warn_of_imbalance
from doubles.engine import used
from doubles.pieces import forgotten

PLUGINS = Path(__file__).parents[1] / "plugins"
RAN_OUT: dict[str, Callable[[], BaseException]] = {
    "cuda": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "cpu": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 B"),
    "process": MemoryError,
}

# --- counts ---


def counted(maps: Tensor, promised: Tensor | None = None) -> Census:
    census = Census()
    census.count(maps, promised)
    return census


def test_maps_that_are_not_finite_or_constant_are_counted():
    maps = torch.arange(6 * 8.0).reshape(6, 2, 2, 2)
    maps[1, 0, 0, 1], maps[2, 1, 1, 1] = math.nan, math.inf
    maps[3], maps[4] = 7.0, 0.0
    assert counted(maps) == Census(maps=6, nonfinite=2, constant=2)
    assert counted(maps[[0, 5]]) == Census(maps=2)


def test_the_deviation_from_what_is_promised_is_a_slow_sum():
    stream = torch.Generator().manual_seed(0)
    maps, promised = torch.randn(5, 3, 4, generator=stream), torch.randn(5, generator=stream)
    census = counted(maps, promised)
    sums = [math.fsum(each.double().flatten().tolist()) for each in maps]
    missed = sum(abs(each - float(p)) for each, p in zip(sums, promised, strict=True))
    total = sum(abs(float(p)) for p in promised)
    assert census.missed == pytest.approx(missed, rel=1e-12)
    assert census.promised == pytest.approx(total, rel=1e-12)
    assert census.imbalance == pytest.approx(missed / total, rel=1e-12)


def test_what_is_kept_counts_nothing_and_signs_do_not_cancel():
    maps = torch.tensor([[1.0, 2.0], [-3.0, 1.0]])
    assert counted(maps, maps.sum(1)).imbalance == 0
    assert counted(maps, maps.sum(1) + torch.tensor([1.0, -1.0])).missed == 2
    assert counted(maps, torch.tensor([3.0, 2.0])).imbalance == pytest.approx(4 / 5)  # the second has the wrong sign
    assert counted(maps, None).imbalance == counted(maps, torch.zeros(2)).imbalance == 0


def test_a_map_that_is_not_finite_does_not_hide_what_others_miss():
    maps, promised = torch.tensor([[1.0, 2.0], [math.nan, 1.0], [1.0, 1.0]]), torch.tensor([4.0, 5.0, math.inf])
    assert (counted(maps, promised).missed, counted(maps, promised).promised) == (1, 4)


def test_float32_maps_are_summed_in_float64():
    maps = torch.full((1, 3, 224, 224), 0.1)
    assert counted(maps, maps.double().sum((1, 2, 3))).missed == 0


def test_censuses_add_up():
    maps, promised = torch.randn(6, 4), torch.ones(6)
    maps[1], maps[3, 0] = 2.0, math.inf
    promised[3] = math.inf
    parts = Census()
    for part in (slice(0, 2), slice(2, 3), slice(4, 6)):
        parts.add(counted(maps[part], promised[part]))
    whole = counted(maps[[0, 1, 2, 4, 5]], promised[[0, 1, 2, 4, 5]])
    assert (parts.maps, parts.nonfinite, parts.constant) == (whole.maps, whole.nonfinite, whole.constant) == (5, 0, 1)
    assert parts.imbalance == pytest.approx(whole.imbalance)


# --- promises ---


def query(model: nn.Module | None = None, **options: Any) -> Query:
    return Query(network() if model is None else model, images(), TARGETS, train=lambda: SimpleNamespace(
        inputs=images(seed=9), labels=TARGETS), **options)  # fmt: skip


def test_a_promise_is_the_methods_at_work_alone():
    asked = query()

    def promising(q: Query) -> Tensor:
        q.promise(q.inputs.clone().requires_grad_(True).sum((1, 2, 3)))
        return q.gradient()

    attributions(Method("promising", promising), asked, {})
    assert asked.promised is not None
    assert not asked.promised.requires_grad
    torch.testing.assert_close(asked.promised, images().sum((1, 2, 3)))
    attributions(methods.get("gradient"), asked, {})
    assert asked.promised is None


PROMISE = {"integrated_gradients": 1e-10, "kernel_shap": 1e-10, "deep_lift": 1e-10, "lrp_epsilon": 1e-4}
"""What methods may miss on a network without biases, which take their share of relevance: ε takes some as well."""


@pytest.mark.parametrize("name", PROMISE)
def test_methods_promise_completeness_or_conservation(name):
    asked, model = query(), network()
    maps = attributions(methods.get(name), asked, {})
    logits, at_zero = (model(x).gather(1, TARGETS[:, None])[:, 0].detach() for x in (images(), 0 * images()))
    expected = logits if name.startswith("lrp") else logits - at_zero
    torch.testing.assert_close(asked.promised, expected, rtol=1e-9, atol=1e-12)
    with torch.no_grad():
        for name_, parameter in model.named_parameters():
            parameter.mul_("bias" not in name_)
    maps = attributions(methods.get(name), bare := query(model), {})
    assert counted(maps, bare.promised).imbalance < PROMISE[name]
    assert counted(maps * 1.1, bare.promised).imbalance == pytest.approx(0.1, rel=1e-2)


# --- the table ---


def warned(verdicts: list[str], *censuses: Census, method: str = "m", took: bool = True) -> pd.DataFrame:
    """A table of rows of method m, one a verdict, after records of one cell each."""
    places = {"task": "t", "bug": "b", "level": "1", "method": method}
    results = pd.DataFrame([{**places, "verdict": verdict, "reason": "why" * bool(n)}
                            for n, verdict in enumerate(verdicts)])  # fmt: skip
    cells = [SimpleNamespace(task="t", bug="b", level="1")] * len(censuses)
    records = {(number, "m"): Record(census=census) for number, census in enumerate(censuses)}
    outcome = SimpleNamespace(plan=SimpleNamespace(cells=cells), records=records, took=lambda number: took)
    return _warn_of_imbalance(results, outcome)  # type: ignore[arg-type]


def missing(share: float, promised: float = 10.0) -> Census:
    return Census(maps=1, promised=promised, missed=share * promised)


@pytest.mark.parametrize("verdict", VERDICTS)
def test_only_decided_rows_tell_a_large_deviation(verdict):
    warning = "maps miss the sum they promise by 30%"
    decided = verdict in {"detects", "blind", "inverted", "inconclusive"}
    reasons = warned([verdict, verdict], missing(0.3))["reason"].tolist()
    assert reasons == ([warning, f"why; {warning}"] if decided else ["", "why"])


@pytest.mark.parametrize(("share", "told"), [(0.0, ""), (TOLERANCE, ""), (0.0501, "5%"), (0.237, "24%"), (8.0, "800%")])
def test_small_deviations_are_not_told(share, told):
    (reason,) = warned(["detects"], missing(share))["reason"]
    assert reason == (f"maps miss the sum they promise by {told}" if told else "")


def test_deviations_of_all_models_count_together():
    """By their promises: .2 of 10 and none of 30 are .05."""
    assert warned(["blind"], missing(0.2), missing(0.0, 30))["reason"].tolist() == [""]
    assert warned(["blind"], missing(0.2), missing(0.0, 20))["reason"].tolist() == [
        "maps miss the sum they promise by 7%"
    ]
    assert warned(["blind"], missing(0.2), method="other")["reason"].tolist() == [""]
    assert warned(["blind"], missing(0.2), took=False)["reason"].tolist() == [""]
    assert warned(["blind"], Census(maps=3))["reason"].tolist() == [""]


PLUGIN = """
import torch
from attribug import methods, metrics

def promising(share):
    def method(query):
        maps = query.gradient()
        sums = maps.sum((1, 2, 3))
        query.promise(sums / (1 + share))
        return maps
    return method

methods.register("census_exact", conserves=True)(promising(0.0))
methods.register("census_near", conserves=True)(promising(0.04))
methods.register("census_far", conserves=True)(promising(0.07))

@methods.register("census_flat")
def flat(query):
    return torch.ones_like(query.inputs)

@methods.register("census_holes")
def holes(query):
    maps = query.gradient()
    maps[query.ids % 4 == 0, :, 0, 0] = torch.nan
    return maps

@methods.register("census_starved")
def starved(query):
    if query.rows > 5:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")
    return query.gradient()

@metrics.register("census_failing")
def failing(a, b):
    raise KeyError("nothing")
"""
SIDES = 4  # of the tiny suite's contrasts: three clean models, one shaken
EXAMPLES = 8


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A run of the tiny suite with methods that give the census something to count."""
    folder = tmp_path_factory.mktemp("census")
    (folder / "counted.py").write_text(PLUGIN)
    names = [f"census_{name}" for name in ("exact", "near", "far", "flat", "holes", "starved")]
    with forgotten(), used():
        yield attribug.run(
            str(PLUGINS / "tiny.yaml"), methods=["gradient", *names], metrics=["spearman", "census_failing"],
            plugins=[str(PLUGINS / "tiny.py"), str(folder / "counted.py")], out=folder / "run",
        )  # fmt: skip


@pytest.mark.slow
def test_results_tell_what_misses_its_promise(run):
    results = read_results(run.folder / "results.csv")
    rows = {key: rows.iloc[0] for key, rows in results.groupby(["method", "metric"])}
    warning = "maps miss the sum they promise by 7%"
    assert rows["census_far", "spearman"]["verdict"] in {"detects", "blind", "inverted", "inconclusive"}
    assert rows["census_far", "spearman"]["reason"].endswith(warning)
    assert rows["census_far", "census_failing"]["verdict"] == "failed"
    assert rows["census_far", "census_failing"]["reason"] == "KeyError: 'nothing'"
    others = results[(results["method"] != "census_far") | (results["metric"] != "spearman")]
    assert not others["reason"].str.contains("promise").any()


@pytest.mark.slow
def test_run_json_tells_what_was_counted(run):
    facts = json.loads((run.folder / "run.json").read_text())
    cells = [f"tiny / shaken 1 / seed {seed}" for seed in range(3)]
    assert facts["constant_maps"] == {f"{cell} / census_flat": SIDES * EXAMPLES for cell in cells}
    assert facts["nonfinite_maps"] == {f"{cell} / census_holes": SIDES * EXAMPLES // 4 for cell in cells}
    assert facts["halved_passes"] == {f"{cell} / census_starved": 4 for cell in cells}
    assert set(facts["imbalance"]) == {f"{cell} / census_{name}" for cell in cells for name in ("exact", "near", "far")}
    for cell in cells:
        assert facts["imbalance"][f"{cell} / census_exact"] < 1e-5
        assert facts["imbalance"][f"{cell} / census_near"] == pytest.approx(0.04, abs=1e-5)
        assert facts["imbalance"][f"{cell} / census_far"] == pytest.approx(0.07, abs=1e-5)


# --- passes halved when memory runs out ---


class Cramped(nn.Module):
    """A model that runs out of memory above some number of examples, and keeps the sizes of its passes."""

    def __init__(self, most: int, error: Callable[[], BaseException] = RAN_OUT["cuda"]) -> None:
        super().__init__()
        self.model, self.most, self.error = network(), most, error
        self.sizes: list[int] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.sizes.append(len(inputs))
        if len(inputs) > self.most:
            raise self.error()
        return self.model(inputs)


def maps_and_rows(name: str, model: nn.Module, rows: int = 64) -> tuple[Tensor, int]:
    asked, method = query(model, rows=rows), methods.get(name)
    return attributions(method, asked, few(method)), asked.rows


@pytest.mark.parametrize("name", methods.names())
def test_maps_are_the_same_after_passes_were_halved(name):
    method = methods.get(name)
    inputs = torch.cat([images(), images(seed=2), images(seed=3)])
    targets = TARGETS.repeat(3)
    train = SimpleNamespace(inputs=images(seed=9), labels=TARGETS)
    found = []
    for most in (10**9, 5):
        model = Cramped(most)
        asked = Query(model, inputs, targets, train=lambda: train)
        found.append(attributions(method, asked, few(method)))
        assert asked.rows == (4 if max(model.sizes) > most else 64)
        if most == 5 and name not in {"random", "edges"}:
            assert asked.rows == 4, "the method passes all nine examples at once"
    torch.testing.assert_close(found[1], found[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("error", RAN_OUT)
def test_every_way_to_run_out_is_known(error):
    model = Cramped(4, RAN_OUT[error])
    found, rows = maps_and_rows("smoothgrad", model)
    assert rows == 4
    assert out_of_memory(RAN_OUT[error]())
    torch.testing.assert_close(found, maps_and_rows("smoothgrad", network())[0], rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), KeyError("memory"), ValueError("odd")]
)
def test_other_errors_are_not_tried_again(error):
    def raises() -> BaseException:
        return error

    model = Cramped(4, raises)
    with pytest.raises(type(error)):
        maps_and_rows("smoothgrad", model)
    assert len([size for size in model.sizes if size > 4]) == 1
    assert not out_of_memory(error)


def test_a_single_example_that_does_not_fit_raises():
    """Passes of 64, 32, 16, 8, 4, 2, 1: then there is nothing left to halve."""
    tried: list[int] = []

    def greedy(asked: Query) -> Tensor:
        tried.append(asked.rows)
        raise RAN_OUT["cpu"]()

    asked = query()
    with pytest.raises(RuntimeError, match="can't allocate memory"):
        attributions(Method("greedy", greedy), asked, {})
    assert tried == [64, 32, 16, 8, 4, 2, 1]
    assert asked.rows == 1


def test_another_bound_than_powers_of_two_is_halved_as_well():
    assert maps_and_rows("smoothgrad", Cramped(6), rows=50)[1] == 6
    assert maps_and_rows("smoothgrad", Cramped(3), rows=7)[1] == 3
    assert maps_and_rows("smoothgrad", Cramped(64))[1] == 64


def test_the_next_method_keeps_the_bound_that_fits():
    model = Cramped(4)
    asked, method = query(model), methods.get("smoothgrad")
    attributions(method, asked, few(method))
    model.sizes.clear()
    attributions(methods.get("integrated_gradients"), asked, {"steps": 8})
    assert max(model.sizes) == 4


def test_passes_of_attempts_that_failed_cost_nothing():
    inputs = torch.cat([images(), images(seed=2), images(seed=3)])
    asked = Query(Cramped(4), inputs, TARGETS.repeat(3))
    with asked.costing() as costing:
        attributions(methods.get("gradient"), asked, {})
    assert asked.rows == 4
    assert costing.cost.forward == costing.cost.backward == 9


def test_the_preflight_fits_where_one_example_does():
    asked = Query(Cramped(1), images(), TARGETS)
    attributions(methods.get("gradient"), asked, {})
    assert asked.rows == 1
