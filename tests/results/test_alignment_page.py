"""The page's section on alignment: every number, order and picture of the table, and nothing where there is none."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from attribug.results import alignment, alignment_page, plots
from attribug.results.html_page import PageContents, page
from doubles.aligned import rows, study

Made = Callable[..., PageContents]
Told = tuple[pd.DataFrame, pd.DataFrame]
Views = dict[str, alignment_page.View]
PANELS = {
    "mnist_block": {"summary": "Digits with a coloured block.", "notes": ["The block's colour is drawn anew."]},
    "models": {"summary": "Given models.", "notes": []},
}


def png(width: int = 30, height: int = 20) -> str:
    """A grey picture as a data URI."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("L", (width, height), 128).save(buffer, "png")
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def made() -> Told:
    """The table and the cases of a study."""
    found = study()
    return alignment.table(*found), alignment.cases(found[0])


def told(
    made_run: Made, table: pd.DataFrame | None, cases: pd.DataFrame | None = None, **galleries: str
) -> PageContents:
    run = made_run()
    facts = {**run.facts, "pieces": {**run.facts["pieces"], "panels": PANELS}}
    return replace(run, facts=facts, alignment=table, alignment_cases=cases, alignment_galleries=galleries)


@pytest.fixture(scope="module")
def html(made_run: Made, made: Told) -> str:
    return page(told(made_run, *made, **{"models: human aligned": png(), "elsewhere": png(7, 5)}))


@pytest.fixture(scope="module")
def views(made: Told) -> Views:
    """Views by panel."""
    found = alignment_page.views(*made, {"panels": PANELS}, {}, lambda svg, *_: svg, lambda *names: "-".join(names))
    assert found is not None
    return {each["panel"]: each for each in found["panels"]}


def test_without_a_table_there_is_no_trace(made_run: Made, made: Told, html: str) -> None:
    plain = page(made_run())
    assert page(replace(made_run(), alignment=made[0].head(0))) == plain
    assert "lignment with" not in plain
    assert 'id="aligned"' not in plain
    start, end = html.index('<section id="aligned"'), html.index('<section id="added"')
    rest = html[:start] + html[end:]
    assert rest.replace('<a href="#aligned">Alignment</a>', "").split() == plain.split(), "section and link alone"


def test_every_value_is_told_with_interval_and_random(views: Views, made: Told) -> None:
    row = rows(made[0], model="spurious", mask="block", method="gradient", metric="iou").iloc[0]
    (group,) = [each for each in views["mnist_block"]["tables"][0]["groups"] if each["model"] == "spurious"]
    (mask,) = [each for each in group["masks"] if each["mask"] == "block"]
    (line,) = [each for each in mask["lines"] if each["method"] == "gradient"]
    cell = line["cells"][1]
    assert cell["value"] == "{} ({}–{})".format(*(f"{row[name]:.2f}"[1:] for name in ("value", "ci_low", "ci_high")))
    assert (cell["random"], cell["mark"], cell["rank"]) == (f"{row['random']:.2f}"[1:], "", "1")
    assert group["units"] == 3


def test_methods_that_explain_nothing_come_last(views: Views) -> None:
    shown = views["mnist_block"]["tables"]
    assert [each["methods"] for each in shown] == [["gradient", "integrated_gradients", "grad_cam", "random"]]
    found = alignment_page._yardsticks(
        ["a", "b", "random"], {"methods": {"a": {"explains": False}, "b": {"bare": True}}}
    )
    assert found == ["a", "b", "random"]


def test_masks_are_ordered_and_metrics_that_disagree_named(views: Views) -> None:
    orders = {(each["model"], each["method"]): each["cells"] for each in views["mnist_block"]["orders"]}
    assert orders["spurious", "gradient"] == ["1 block, 2 digit"] * 2
    assert views["models"]["orders"] == []


def test_coarse_maps_are_listed_with_both_numbers(views: Views) -> None:
    assert [(each["method"], each["mask"], each["grain"], each["side"]) for each in views["mnist_block"]["coarse"]] == [
        ("grad_cam", "block", "19.0", "5.0"), ("grad_cam", "digit", "19.0", "10.2"),
    ]  # fmt: skip


def test_cases_fill_their_bar(views: Views) -> None:
    (first,) = views["models"]["cases"]
    lines = [line for group in first["groups"] for line in group["lines"]]
    assert len(lines) == 3 * 3, "three models, and three methods that explain something"
    for line in lines:
        assert float(line["bar"][-1]["x"]) + float(line["bar"][-1]["width"]) == pytest.approx(1, abs=1e-3)
        assert sum(float(share or 0) for share in line["shares"]) == pytest.approx(1, abs=0.05)


def test_published_values_stand_beside_ours(views: Views) -> None:
    published = views["mnist_block"]["published"]
    cells = {(each["model"], each["mask"]): [cell["paper"] for cell in each["cells"]] for each in published["lines"]}
    assert cells == {
        ("normal", "block"): [".98", "0", ".0014"], ("normal", "digit"): [".98", ".698", ".294"],
        ("spurious", "block"): [".46", ".937", ".222"], ("spurious", "digit"): [".46", ".048", ".087"],
    }  # fmt: skip
    assert all(cell["ours"] for each in published["lines"] for cell in each["cells"])
    assert views["models"]["published"] is None


def test_models_with_accuracy_are_drawn(views: Views) -> None:
    (scatter,) = views["models"]["scatters"]
    assert [each["method"] for each in scatter["drawings"]] == ["gradient", "integrated_gradients", "grad_cam"]
    assert "squeezenet" in scatter["drawings"][0]["svg"]
    assert [each["mask"] for each in views["mnist_block"]["scatters"]] == ["block", "digit"]


def test_one_model_is_not_drawn(made: Told) -> None:
    alone = rows(made[0], model="squeezenet")
    found = alignment_page.views(alone, None, {}, {}, lambda svg, *_: svg, lambda *names: "-".join(names))
    assert found is not None
    assert found["panels"][0]["scatters"] == []
    assert found["panels"][0]["cases"] == []


def test_labels_keep_apart_and_within() -> None:
    spaced = plots._spaced([0.9, 0.9, 0.91, 0.99, 1.0])
    assert np.diff(spaced).min() >= 0.065 - 1e-9
    assert max(spaced) <= 1.0
    assert plots._spaced([0.1, 0.5]) == [0.1, 0.5]


def test_pictures_have_their_size_and_place(html: str) -> None:
    panel = html.index('alt="human aligned"')
    assert 'width="30" height="20"' in html[panel - 400 : panel]
    assert html.index('alt="elsewhere"') > panel


@pytest.mark.parametrize("uri", ["https://example.org/a.png", "data:image/png;base64,AAAA", "data:image/png;base64,?"])
def test_what_is_no_picture_is_refused(made_run: Made, made: Told, uri: str) -> None:
    with pytest.raises(ValueError, match=r"^gallery models: x: expected a PNG as a data URI, found 'd|'h"):
        page(told(made_run, *made, **{"models: x": uri}))


def test_names_are_escaped(made_run: Made, made: Told) -> None:
    hostile = "<script>x</script>"
    renamed = [each.replace({"spurious": hostile, "block": hostile, "gradient": hostile}) for each in made]
    text = page(told(made_run, *renamed))
    assert hostile not in text


def test_what_could_not_be_measured_is_listed(html: str) -> None:
    assert "squeezenet on photographs, lrp_epsilon: no rule for this layer" in html
    assert "own on photographs: no weights" in html
