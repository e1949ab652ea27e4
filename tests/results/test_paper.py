"""The paper's tables with ours in their cells: every number in its place, only where a setting was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from html import unescape
from itertools import product
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from attribug.results import paper, plots
from attribug.results.findings import findings
from attribug.results.html_page import PageContents, page
from attribug.results.paper import DEVIATION_COLUMNS, IN_TABLES, PRINTED_COLUMNS, as_printed, deviations
from attribug.results.published import PAPER_METHODS, beside, main, published
from attribug.results.schema import RESULT_COLUMNS, typed

CELLS = {
    ("animals", "spurious_background"): ("1",), ("animals", "label_flips"): ("0.1",),
    ("fashion", "ood"): ("mnist", "animals", "imagenet_lite0"),
    ("imagenet_lite0", "reinit"): ("1", "2", "10", "all"),
}  # fmt: skip
MEASURED = {
    "spurious_background": ("gt1_ssim@minmax", "gt2_ssim@minmax", "mass_accuracy@abs_sum"),
    "label_flips": ("ssim_range2@minmax", "spearman@sum"),
    "ood": ("ssim_range2@minmax", "ssim@sum_minmax", "spearman@sum"),
    "reinit": ("ssim_range2@minmax", "spearman@sum"),
}  # fmt: skip
CONTROLS = {"ood": "clean", "reinit": "perturbed", "label_flips": "other_flips", "spurious_background": "clean"}
PRIMARY = {name: "mass_accuracy@abs_sum" if name == "spurious_background" else "spearman@sum" for name in CONTROLS}
LACKING, DECLINING = "lime", "pattern_net"
METHODS = tuple(name for name in PAPER_METHODS if name != LACKING)
PIXELS = 8


def rows(cells: dict[tuple[str, str], Sequence[str]] = CELLS) -> Iterator[dict[str, Any]]:
    """Every value is another number, so that none can be mistaken for another."""
    number = 0
    for (task, bug), levels in cells.items():
        for level, method, measured in product(levels, METHODS, MEASURED[bug]):
            number += 1
            metric, _, post = measured.partition("@")
            declined = method == DECLINING and bug == "reinit"
            value, none = 0.1 + number * 1e-3, float("nan")
            numbers = {"value": value, "sem": 0.01, "benign": value + 0.03, "floor": value - 0.05, "effect": 0.9,
                       "ci_low": 0.8, "ci_high": 1.0}  # fmt: skip
            yield {
                "suite": "mine", "task": task, "bug": bug, "level": level, "control": CONTROLS[bug], "method": method,
                "metric": metric, "post": post, "seeds": 0 if declined else 5, "n": 0 if declined else 24,
                "undefined": none if declined else 0.0, **(dict.fromkeys(numbers, none) if declined else numbers),
                "verdict": "unsupported" if declined else "detects", "reason": "no training data" if declined else "",
            }  # fmt: skip


def results(**cells: Any) -> pd.DataFrame:
    return typed(pd.DataFrame(rows(**cells), columns=list(RESULT_COLUMNS)))


def paper_run(cells: dict[tuple[str, str], Sequence[str]] = CELLS) -> PageContents:
    """What a page would tell of a run of these cells."""
    random, table = np.random.default_rng(0), results(cells=cells)
    roles = ("reference", "control", "contaminated")
    drawn = {
        place: {
            name: {"inputs": random.random((2, 3, PIXELS, PIXELS))}
            | {role: random.normal(size=(2, PIXELS, PIXELS)) for role in roles}
            for name in METHODS
        }
        for (task, bug), levels in cells.items() for place in ((task, bug, level) for level in levels)
    }  # fmt: skip
    for (task, bug, _), maps in drawn.items():  # one model, whatever of it is broken
        for name, each in maps.items():
            first = drawn[task, bug, cells[task, bug][0]][name]
            maps[name] = {**each, "inputs": first["inputs"], "reference": first["reference"]}
    bug = {"summary": "Breaks.", "paper": "", "stage": "model", "graded": False, "seen_in_predictions": True,
           "target": "label", "truth": None}  # fmt: skip
    described = {"summary": "What it is.", "paper": "", "source": "made"}
    method = {"output": "attributions", "explains": True, "bare": False, "headline": ""}
    metric = {"kind": "similarity", "visible": 0.1, "bounds": [-1, 1], "reads": "attributions", "asks_directly": False,
              "reproduction": False}  # fmt: skip
    names = {name.partition("@")[0] for group in MEASURED.values() for name in group}
    tasks, bugs = dict.fromkeys(task for task, _ in cells), dict.fromkeys(bug for _, bug in cells)
    facts = {
        "schema": 1, "written": "", "plan": "", "device": "cpu", "revision": None, "machine": {}, "versions": {},
        "suite": {"name": "made", "tasks": list(tasks), "bugs": list(bugs), "methods": list(METHODS), "seeds": 5,
                  "method_options": {"smoothgrad": {"samples": 10}}},
        "seconds": {}, "checks": [], "failures": [],
        "pieces": {
            "bugs": {name: bug | {"primary": PRIMARY[name], "control": CONTROLS[name]} for name in bugs},
            "methods": dict.fromkeys(METHODS, described | method),
            "metrics": dict.fromkeys(names, described | metric), "tasks": dict.fromkeys(tasks, described),
        },
    }  # fmt: skip
    told = (beside(table, CONTROLS), findings(table, PRIMARY, CONTROLS))
    return PageContents(table, facts, {}, None, drawn, *told)


@pytest.fixture(scope="module")
def run() -> PageContents:
    return paper_run()


@pytest.fixture(scope="module")
def html(run: PageContents) -> str:
    return page(run)


def section(html: str) -> str:
    """The paper's, without tags."""
    part = re.search(r'<section id="paper".*?</section>', html, re.DOTALL)
    return "" if part is None else " ".join(unescape(re.sub("<[^>]*>", " ", part.group())).split())


# ---- as printed


def test_every_number_stands_in_the_cell_that_the_paper_gave_it(run: PageContents) -> None:
    printed = as_printed(beside(run.results, CONTROLS))
    assert tuple(printed.columns) == PRINTED_COLUMNS
    values = published()
    where = {"SSIM-GT1": "gt1_ssim", "SSIM-GT2": "gt2_ssim", "SSIM": "ssim_range2", "RK": "spearman"}
    theirs = {"SSIM": "ssim"}
    assert len(printed) == (2 + 3 * 2) * 6
    for row in printed.to_dict("records"):
        name = row["row"].removesuffix(" SEM")
        told = "sem" if row["row"].endswith("SEM") else "value"
        for method in IN_TABLES:
            found = row[PAPER_METHODS[method]]
            if row["series"] == "published":
                at = (values["source"] == row["table"]) & (values["setting"] == row["setting"])
                quantity = theirs.get(name, where[name])
                expected = values[at & (values["method"] == method) & (values["quantity"] == quantity)][told].iloc[0]
            else:
                ours = run.results
                at = (ours["task"] == row["task"]) & (ours["level"] == row["level"]) & (ours["method"] == method)
                column = {"ours": told, "control": "benign", "floor": "floor"}[row["series"]]
                cell = ours.loc[at & (ours["metric"] == where[name]), column]
                expected = cell.iloc[0] if len(cell) else float("nan")
            assert found == pytest.approx(expected, nan_ok=True), (row["row"], row["series"], method)
    assert printed["LIME"][printed["series"] == "ours"].isna().all()
    assert printed["LIME"][printed["series"] == "published"].notna().any()


def test_nothing_is_printed_of_other_settings() -> None:
    digits = results().assign(task="digits")
    assert as_printed(beside(digits, CONTROLS)).empty
    assert list(paper.blocks(beside(digits, CONTROLS))) == []
    assert deviations(digits, {}).empty


def test_similarities_go_from_the_top_layer_down(run: PageContents) -> None:
    found = paper.similarities(main(run.results, "reinit", CONTROLS), "imagenet_lite0", "reinit")
    assert list(dict.fromkeys(found["level"])) == ["1", "2", "10", "all"]
    assert list(dict.fromkeys(found["method"])) == [name for name in METHODS if name != DECLINING]
    gradient = run.results.query("bug == 'reinit' and method == 'gradient' and metric == 'spearman'").set_index("level")
    ranks = found.query("method == 'gradient' and quantity == 'spearman'").set_index("level")
    assert ranks["ours"].to_dict() == gradient["value"].to_dict()
    assert ranks["control"].to_dict() == gradient["benign"].to_dict()


def test_deviations_tell_stand_ins_numbers_and_absent_methods(run: PageContents) -> None:
    found = deviations(run.results, run.facts, {"animals": "8 × 8"})
    assert tuple(found.columns) == DEVIATION_COLUMNS
    told = found.set_index("what")["ours"]
    theirs = found.set_index("what")["paper"]
    assert theirs["data and network, Table 3"].startswith("Fashion-MNIST, BVD-CNN, under MNIST, BVD-CNN; Fashion-MNIST")
    assert told["data and network, Table 2"] == "stand-in: animals for birds_dogs"
    assert told["data and network, Table 3"].startswith("the paper's task; stand-in: animals for birds_dogs")
    assert (told["explained inputs"], told["input size"]) == ("24", "animals 8 × 8")
    assert told["models"].startswith("5 a side")
    assert told["hyper-parameters of methods"] == "smoothgrad samples 10"
    assert told["control of re-initialised layers"] == "the same model with slightly disturbed weights"
    missing = found[found["what"].str.startswith("methods, ")].itertuples(index=False, name=None)
    assert list(missing) == [
        ("methods, animals / spurious_background", "LIME", "not in this run"),
        ("methods, animals / label_flips", "LIME", "not in this run"),
        ("methods, imagenet_lite0 / reinit", "LIME", "not in this run"),
        ("methods, imagenet_lite0 / reinit", "PNet", "unsupported: no training data"),
        ("methods, fashion / ood", "LIME", "not in this run"),
    ]
    alone = deviations(run.results.query("task == 'animals'"), run.facts)
    assert "control of re-initialised layers" not in set(alone["what"])


def test_why_numbers_are_missing_belongs_to_a_level_and_a_quantity(run: PageContents) -> None:
    table = run.results.copy()
    lost = (table["method"] == "vargrad") & (table["level"] == "mnist")
    table.loc[lost, ["verdict", "reason"]] = "unsupported", "no"
    assert paper.absent(table, "fashion", "ood") == {LACKING: "not in this run"}
    assert paper.absent(table, "fashion", "ood", "mnist")["vargrad"] == "unsupported: no"
    told = deviations(table, run.facts).set_index("what")["ours"]
    assert told["methods, fashion / ood mnist"] == "unsupported: no"
    ranks = table["metric"] == "spearman"
    no_ranks = table[~(ranks & (table["method"] == "gradient"))]
    assert paper.absent(no_ranks, "fashion", "ood", "mnist", "spearman")["gradient"] == "not measured"
    assert "gradient" not in paper.absent(no_ranks, "fashion", "ood", "mnist", "ssim")
    undefined = table.assign(value=table["value"].mask(ranks))
    assert paper.absent(undefined, "fashion", "ood", "mnist", "spearman")["gradient"] == "undefined of every map"


def test_published_values_stand_there_where_ours_are_missing_in_part(run: PageContents) -> None:
    table = run.results.query("method != 'gradient' or metric != 'gt2_ssim'")
    text = section(page(replace(run, results=table, published=beside(table, CONTROLS))))
    ours = table.query("metric == 'gt1_ssim' and method == 'gradient'").iloc[0]
    row = text[text.index("Grad .62 ± .01") :]
    assert re.match(rf"Grad \.62 ± \.01 \.{round(100 * ours['value'])} .* \.83 ± \.01 not measured SGrad ", row)


def test_models_that_are_given_are_told_by_their_draws(run: PageContents, html: str) -> None:
    alone = run.results.query("task == 'imagenet_lite0'")
    assert deviations(alone, run.facts).set_index("what")["ours"]["models"] == "one that is given, 5 draws a side"
    assert "Measured as ssim_range2@minmax, spearman@sum; 5 models a side, 24 images." in section(html)
    assert "ssim_range2@minmax, spearman@sum; this model, 5 draws a side, 24 images" in section(html)


# ---- the page


def test_tables_and_figures_are_on_the_page(html: str) -> None:
    text = section(html)
    for words in (
        "Table 2: Similarity", "Figure 6: mislabelled training examples animals, 0.1 flipped", "Figure 7: successive",
        "Fashion-MNIST images, MNIST model", "Fashion-MNIST images, VGG-16 of ImageNet", "What differs from the paper",
        "fashion / ood mnist, the paper's setting; 5 models, 24 images",
        "animals / spurious_background 1, stand-in: animals for birds_dogs", "normal model 1 2 10 all",
        ".73–.99 for all methods", "PNet: unsupported: no training data",
    ):  # fmt: skip
        assert words in text
    order = [text.index(f" {name} ") for name in list(PAPER_METHODS.values())[:15]]
    assert order == sorted(order)
    assert 'href="#paper"' in html
    assert html.count('class="map"') == 2 * 3 * len(METHODS)  # examples, models, methods
    assert html.count('class="strip" style') == len(METHODS)


def test_published_and_ours_stand_side_by_side(run: PageContents, html: str) -> None:
    text = section(html)
    ours = run.results.query("metric == 'gt1_ssim' and method == 'gradient'").iloc[0]
    expected = f"Grad .62 ± .01 .{round(100 * ours['value'])} ± .01"
    assert expected in text
    assert "LIME .59 ± .02 not in this run" in text


def test_the_section_is_absent_where_no_setting_is_measured(html: str) -> None:
    none = paper_run({("digits", "ood"): ("textures",)})
    other = page(none)
    assert section(other) == ""
    assert 'href="#paper"' not in other
    assert section(html)


def test_maps_of_another_model_are_left_out_of_the_cascade(run: PageContents) -> None:
    place = ("imagenet_lite0", "reinit", "10")
    other = {name: {**each, "reference": each["reference"] + 1} for name, each in run.galleries[place].items()}
    text = section(page(replace(run, galleries={**run.galleries, place: other})))
    assert "normal model 1 2 all" in text
    assert "Of levels 10 the maps kept are of another model" in text


def test_tables_need_no_maps(run: PageContents) -> None:
    text = section(page(replace(run, galleries={})))
    assert "No maps of this cell were kept." in text
    assert "SSIM, control" in text


def test_findings_are_a_matrix_of_statements_and_tasks(html: str) -> None:
    part = html[html.index('<table class="numbers findings">') :]
    part = part[: part.index("</table>")]
    assert part.count("<tr>") == 1 + 13
    assert part.count('class="agrees-not-measured"') == 13 * 3 - 7 - 4 - 2  # what either bug's rows speak to
    assert len(re.findall('class="agrees-', part)) == 13 * 3  # tasks


def test_curves_have_a_panel_a_method_and_every_line(run: PageContents) -> None:
    rows = paper.similarities(main(run.results, "reinit", CONTROLS), "imagenet_lite0", "reinit")
    svg = plots.cascade(rows, PAPER_METHODS)
    texts = [element.text for element in ElementTree.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]
    assert {PAPER_METHODS[name] for name in METHODS if name != DECLINING} <= set(texts)
    assert PAPER_METHODS[DECLINING] not in texts
    for line in ("SSIM", "rank correlation", "re-initialised", "control", "unrelated maps (floor)"):
        assert line in texts
    assert plots.cascade(rows.assign(floor=0.9), PAPER_METHODS) != svg
