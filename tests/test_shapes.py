"""Vectors (N, D) and sequences (N, C, L) from task to page: queries, scores, galleries, and a whole run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor, nn

import attribug
from attribug import bugs, methods, metrics, tasks
from attribug.conformance.bugs import READ
from attribug.conformance.checks import check
from attribug.conformance.specimens import TARGETS, convolving, dense, sequences, vectors
from attribug.contracts.contrasts import Contrast
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import Task
from attribug.maps.attribution import attributions
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.plugins import load_plugin
from attribug.query.query import Query
from attribug.reports.pages import page_contents, write_report
from attribug.results.bars import COLUMNS, ROWS, bars, lines
from attribug.results.figures import bars_told, gallery
from attribug.scores.blocks import score_block
from attribug.scores.records import SHOWN, Settings
from doubles.pieces import forgotten

torch.set_num_threads(1)
PLUGINS = Path(__file__).parent / "plugins"
TASKS = ("vectors", "sequences")
SETTINGS = Settings(seed=0, examples=8, chunk=3, rows=64)
KINDS = {"vectors": (dense, vectors), "sequences": (convolving, sequences)}


@pytest.fixture(scope="module")
def registered() -> Iterator[None]:
    """The plugins' tasks and bug, whose names are free again afterwards."""
    with forgotten():
        for name in ("shapes", "tiny"):
            load_plugin(str(PLUGINS / f"{name}.py"))
        yield


def contrast_of(task: str, bug: str = "shaken", level: Any = 1.0, seed: int = 0) -> Contrast:
    made = tasks.get(task).function(seed=0, other=None)
    contrast: Contrast = bugs.get(bug).function(made, level, seed, (0, 1))
    return contrast


# --- queries ---


@pytest.mark.parametrize("kind", KINDS)
def test_passes_take_them_as_they_are(kind):
    """Channels last is for images; the values of a pass are the model's own."""
    make, draw = KINDS[kind]
    model, inputs = make(), draw()
    query = Query(model, inputs, TARGETS)
    attributions(methods.get("gradient"), query, {})
    assert not query.channels_last
    torch.testing.assert_close(query.outputs(), model(inputs).detach(), rtol=0, atol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_masked_outputs_leave_whole_places_out(kind):
    make, draw = KINDS[kind]
    model, inputs = make(), draw()
    keep = torch.rand(5, inputs.shape[-1], generator=torch.Generator().manual_seed(0)) < 0.5
    found = Query(model, inputs, TARGETS, rows=4).masked_outputs(keep)
    for mask, outputs in zip(keep, found.T, strict=True):
        torch.testing.assert_close(outputs, model(inputs * mask).detach()[torch.arange(3), TARGETS])


@pytest.mark.parametrize("shape", [(6,), (3, 4)], ids=TASKS)
def test_maps_of_a_linear_model_are_its_weights(shape):
    layer = nn.Linear(int(np.prod(shape)), 3).double()
    model = nn.Sequential(nn.Flatten(), layer)
    inputs = torch.randn(3, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weights = layer.weight.detach()[TARGETS].reshape(inputs.shape)
    expected = {"gradient": weights, "integrated_gradients": weights * inputs, "input_x_gradient": weights * inputs}
    for name, maps in expected.items():
        torch.testing.assert_close(attribug.explain(name, model, inputs, TARGETS), maps)


@pytest.mark.parametrize("kind", KINDS)
def test_methods_of_images_say_so(kind):
    make, draw = KINDS[kind]
    for name in ("edges", "grad_cam", "occlusion", "rise"):
        with pytest.raises(attribug.Unsupported, match=r"expected images \(N, C, H, W\), found \(3, "):
            attribug.explain(name, make(), draw(), TARGETS)


# --- scores and galleries ---


@pytest.mark.parametrize("task", TASKS)
def test_scores_are_those_of_direct_maps(task, registered):
    """SciPy and NumPy on what `explain` gives, for every reference and example."""
    lab, contrast = Lab(Memory()), contrast_of(task)
    measured = [metrics.measured_as(name)[0] for name in ("spearman@sum", "mass_accuracy@abs_sum")]
    record = score_block(contrast, [(methods.get("gradient"), {})], measured, lab, SETTINGS)["gradient"]
    data = lab.data(contrast.contaminated.examples).select(torch.arange(8))
    sides = (contrast.references[0], contrast.contaminated)
    clean, shaken = (
        attribug.explain("gradient", lab.model(side.model), data.inputs, data.labels).double() for side in sides
    )
    one, other = ((each.sum(1) if task == "sequences" else each).numpy() for each in (clean, shaken))
    scores = record.scores.drop_duplicates(["metric", "example"]).set_index("metric")["value"]
    expected = [stats.spearmanr(*rows).statistic for rows in zip(one, other, strict=True)]
    np.testing.assert_allclose(scores["spearman"], expected, atol=1e-9)
    relevance = shaken.abs().sum(1) if task == "sequences" else shaken.abs()
    inside = (relevance * data.masks).sum(1) / relevance.sum(1)
    np.testing.assert_allclose(scores["mass_accuracy"], inside, atol=1e-9)


@pytest.mark.parametrize("task", TASKS)
def test_galleries_keep_channel_sums_and_inputs_of_any_range(task, registered):
    """float16 ends at 65,504, which a feature may exceed."""
    lab, contrast = Lab(Memory()), contrast_of(task)
    record = score_block(contrast, [(methods.get("gradient"), {})], [], lab, SETTINGS)["gradient"]
    data = lab.data(contrast.contaminated.examples)
    shown = record.gallery
    assert torch.equal(shown["inputs"], data.inputs[:SHOWN])
    assert shown["inputs"].dtype == torch.float32
    maps = attribug.explain(
        "gradient", lab.model(contrast.contaminated.model), data.inputs[:SHOWN], data.labels[:SHOWN]
    ).double()  # fmt: skip
    sums = maps.sum(1) if task == "sequences" else maps
    torch.testing.assert_close(shown["contaminated"], (sums / sums.abs().amax(1, keepdim=True)).half())


def test_inputs_of_an_unknown_kind_have_maps_without_a_gallery(registered):
    """Posts that leave channels alone still measure them."""
    lab, cubes = Lab(Memory()), Examples.of(unknown)
    task = Task("cubes", ("0", "1"), (1, 2, 2, 2), Recipe(flat, epochs=1), lambda split: cubes, None)  # type: ignore
    contrast = bugs.get("shaken").function(task, 1.0, 0, (0, 1))
    measured = [metrics.measured_as(name)[0] for name in ("spearman@sum", "spearman@none")]
    record = score_block(contrast, [(methods.get("random"), {})], measured, lab, SETTINGS)["random"]
    assert record.gallery == {}
    assert set(record.scores["post"]) == {"none"}
    verdict, reason = record.lost["spearman@sum"]
    assert verdict == "unsupported"
    assert reason.endswith("or vectors (N, D), found (3, 1, 2, 2, 2)")


def unknown() -> Data:
    """Cubes (1, 2, 2, 2)."""
    inputs = torch.rand(8, 1, 2, 2, 2, generator=torch.Generator().manual_seed(0))
    return Data(inputs, torch.arange(8) % 2, torch.arange(8))


def flat() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(8, 2))


# --- pictures ---


def test_bars_stand_on_zero_or_hang_from_it():
    numbers = bars(np.array([1.0, -1.0, 0.5, np.nan]))
    assert numbers.shape == (ROWS, COLUMNS)
    heights = [(numbers == number).any(1) for number in range(4)]
    middle = ROWS // 2
    assert heights[0][:middle].all()
    assert not heights[0][middle + 1 :].any()
    assert heights[1][middle:].all()
    assert not heights[1][: middle - 1].any()
    assert heights[2].sum() == pytest.approx(ROWS / 4, abs=2)
    assert heights[3].all(), "what is undefined fills its column"
    assert (numbers[:, COLUMNS // 4 - 1] == -1).all(), "bars are apart"


@pytest.mark.parametrize(
    "values", [np.zeros(5), np.full(3, 1e300), -np.arange(1.0, 64), np.full(2, np.nan), np.ones(1)]
)
def test_every_bar_is_seen(values):
    numbers = bars(values)
    assert set(np.unique(numbers)) - {-1} == set(range(len(values)))


def test_lines_pass_the_values_without_a_gap():
    steps = lines(np.array([[0.0, 0.0, 1.0, 1.0]]))
    assert steps.shape == (ROWS, COLUMNS)
    assert steps[-1, 0]
    assert steps[0, -1]
    assert steps.any(0).all()
    assert steps.any(1).all()
    assert lines(np.array([[2.0, 2.0], [2.0, 2.0]]))[0].all(), "a constant is a line as well"
    assert lines(np.random.default_rng(0).standard_normal((3, 500))).any(0).all()


def test_features_are_told_where_they_can_be_told_apart():
    assert bars_told(["height", "width"]) == "Bars from left to right: height, width."
    assert bars_told([]) == bars_told([str(number) for number in range(40)]) == ""


@pytest.mark.parametrize("shape", [(5,), (3, 70), (600,), (1,)])
def test_figures_take_any_number_of_places(shape, tmp_path):
    """Also where maps are undefined, constant or zero."""
    import pandas as pd

    rng = np.random.default_rng(0)
    maps = rng.standard_normal((4, 2, shape[-1]))
    maps[1], maps[2, 0], maps[3, :, 0] = 0, np.nan, np.nan
    shown = {"inputs": rng.standard_normal((2, *shape)), "reference": maps[0], "control": maps[1]}
    other = {**shown, "reference": maps[2], "control": maps[3]}
    verdicts = pd.DataFrame(columns=["verdict", "effect"])
    told = [f"a long name of feature {number}" for number in range(20)]
    gallery(tmp_path / "a.png", {"one": shown, "two": other}, verdicts, bug="b", level="1", control="c", features=told)
    assert (tmp_path / "a.png").stat().st_size > 5000


# --- a whole run, and conformance ---


@pytest.fixture(scope="module")
def run(registered: None, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    out = tmp_path_factory.mktemp("shapes") / "run"
    plugins = [str(PLUGINS / "shapes.py"), str(PLUGINS / "tiny.py")]
    found = attribug.run(str(PLUGINS / "shapes.yaml"), out=out, plugins=plugins, tasks=TASKS, workers=1)
    write_report(out)
    return SimpleNamespace(run=found, out=out, page=(out / "report.html").read_text(encoding="utf-8"))


@pytest.mark.slow
def test_a_run_gives_rows_of_every_method_and_says_what_needs_images(run):
    results = run.run.results
    assert run.run.complete
    for (task, bug), rows in results.groupby(["task", "bug"]):
        verdicts = rows.groupby(["method", "metric"])["verdict"].unique().map(set)
        measured = {"spearman", "mass_accuracy"} if bug == "shaken" else {"spearman"}
        for method in ("gradient", "integrated_gradients", "lime", "random"):
            assert verdicts[method, "ssim"] == {"unsupported"}
            told = rows[(rows["method"] == method) & rows["metric"].isin(measured)]
            assert set(told["metric"]) == measured, (task, bug)
            assert told["value"].notna().all(), (task, bug)
        reasons = rows.loc[rows["method"] == "edges", ["verdict", "reason"]]
        assert (reasons["verdict"] == "unsupported").all()
        assert reasons["reason"].str.contains("expected images (N, C, H, W), found (8, ", regex=False).all()


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_figures_and_page_show_bars_and_name_features(run, task):
    from PIL import Image

    picture = Image.open(run.out / "figures" / f"gallery_{task}_shaken_1.png").convert("RGB")
    colours = np.asarray(picture).reshape(-1, 3).astype(int)
    coloured = {sign: (sign * (colours[:, 0] - colours[:, 2]) > 60).sum() for sign in (1, -1)}
    assert min(coloured.values()) > 500, "red and blue bars"
    assert "Bars from left to right: height, width, weight" in run.page
    contents = page_contents(run.out)
    shown = contents.galleries[task, "shaken", "1"]["gradient"]
    assert shown["inputs"].shape == (SHOWN, *((8,) if task == "vectors" else (2, 24)))
    assert contents.facts["pieces"]["tasks"]["vectors"]["features"][0] == "height"
    assert "features" not in contents.facts["pieces"]["tasks"]["sequences"]


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_tasks_of_other_shapes_conform(task, registered):
    assert [str(result) for result in check("task", task) if not result.passed] == []


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_a_bug_of_such_a_task_is_measured_by_what_reads_it(task, registered):
    """ssim is read of images; here nothing is expected of it."""

    def here(made, level, seed, seeds):
        if made.name != task:
            raise attribug.Unsupported("another task's bug")
        return bugs.get("reinit").function(made, level, seed, seeds)

    bugs.register("elsewhere", stage="model", levels=(1,), seen_in_predictions=True)(here)
    assert any(metrics.get(name).images for name in READ)
    failed = [str(result) for result in check("bug", "elsewhere") if not result.passed]
    bugs._registry._entries.pop("elsewhere")
    assert failed == []


def test_masks_are_of_the_inputs_spatial_shape(registered):
    for task in TASKS:
        data: Data = tasks.get(task).function(seed=0, other=None).examples("test").load()
        masks: Tensor | None = data.masks
        assert masks is not None
        assert masks.shape == (len(data), data.inputs.shape[-1])
