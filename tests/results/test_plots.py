"""Figures of a run: equal tables give equal bytes, names stay text, and what is drawn is what the table says."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from attribug.results import figures, narrative, plots
from attribug.results.headline import headline
from attribug.results.html_page import PageContents
from attribug.results.schema import VERDICTS

Made = Callable[..., PageContents]
TEXT = "{http://www.w3.org/2000/svg}text"


def rows(run: PageContents) -> pd.DataFrame:
    return headline(run.results, run.facts["suite"], run.facts["pieces"])


def drawn(run: PageContents) -> dict[str, str]:
    makers = plots.drawings(run.results, run.facts["suite"], run.facts["pieces"])
    return {name: make() for name, make in makers.items()}


def texts(svg: str) -> list[str]:
    """Of the figure's text, in the order of drawing; raises where the figure is no XML."""
    return [element.text or "" for element in ElementTree.fromstring(svg).iter(TEXT)]


def places(svg: str) -> dict[str, float]:
    """Height of every text, counted from the top."""
    return {element.text or "": float(element.attrib["y"]) for element in ElementTree.fromstring(svg).iter(TEXT)}


def test_one_figure_a_task_a_cell_and_a_graded_bug_with_levels(made_run: Made) -> None:
    run = made_run(tasks=("digits", "textures"))
    expected = {f"verdict_matrix_{task}.svg" for task in ("digits", "textures")}
    expected |= {f"effects_{task}_{cell}.svg" for task in ("digits", "textures")
                 for cell in ("reinit_1", "reinit_3", "reinit_all", "ood_textures")}  # fmt: skip
    assert set(drawn(run)) == expected | {f"curve_{task}_reinit.svg" for task in ("digits", "textures")}
    ungraded = run.facts["pieces"]["bugs"]["reinit"] | {"graded": False}
    pieces = run.facts["pieces"] | {"bugs": run.facts["pieces"]["bugs"] | {"reinit": ungraded}}
    assert set(plots.drawings(run.results, run.facts["suite"], pieces)) == expected


def test_equal_tables_give_equal_bytes_whatever_else_is_set(made_run: Made) -> None:
    run = made_run()
    first = drawn(run)
    with mpl.rc_context({"text.usetex": True, "font.size": 20, "lines.linewidth": 9, "svg.fonttype": "path"}):
        assert drawn(run) == first
    assert not any(re.search(r"dc:date|\d{4}-\d\d-\d\d", svg) for svg in first.values())
    turned = PageContents(run.results.iloc[::-1], run.facts)
    assert drawn(turned) == first


def test_another_table_gives_other_bytes(made_run: Made) -> None:
    run = made_run()
    changed = run.results.assign(effect=run.results["effect"] * 0.9)
    assert all(svg != drawn(run)[name] for name, svg in drawn(PageContents(changed, run.facts)).items())


def test_hostile_names_stay_text_and_nothing_warns(made_run: Made, hostile: tuple[str, ...]) -> None:
    names = [*hostile, "random", "edges", "predictions"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figures = drawn(made_run(names, {hostile[0]: ("1", hostile[1]), "ood": ("t",)}))
    matrix = next(svg for name, svg in figures.items() if name.startswith("verdict_matrix"))
    found = texts(matrix)
    assert {plots.shown(name) for name in names} - set(found) == set()
    assert not any(re.search("<(script|b|img)[ >]", svg) for svg in figures.values())
    assert all(len(text) <= 60 and text.isprintable() for svg in figures.values() for text in texts(svg))


def test_the_check_of_names_rejects_mathematics() -> None:
    """Without `parse_math` off, matplotlib takes dollars for mathematics: the name is gone, or nothing is drawn."""
    style = plots.STYLE | {"text.parse_math": True}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(plots, "STYLE", style)
        svg = plots._drawn(2, 1, lambda figure: figure.text(0, 0, "$x_2$"))
        assert "$x_2$" not in texts(svg)
    assert "$x_2$" in texts(plots._drawn(2, 1, lambda figure: figure.text(0, 0, "$x_2$")))


def test_the_matrix_shows_every_cell(made_run: Made) -> None:
    run = made_run()
    found = texts(plots.verdict_matrix(rows(run)))
    cells = [plots._cell(row) for row in rows(run).itertuples()]
    assert sorted(text for text in found if text in set(cells)) == sorted(cells)
    assert found.index("lime") < found.index("random") < found.index("predictions")


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_has_colour_and_symbol(made_run: Made, verdict: str) -> None:
    run = made_run(["gradient"], {"reinit": ("1",)})
    effect = np.nan if verdict in {"not taken", "unsupported", "failed"} else 0.4
    table = run.results.assign(verdict=verdict, effect=effect, ci_low=effect, ci_high=effect)
    for figure in drawn(PageContents(table, run.facts)).values():
        assert figures.SYMBOLS[verdict] in " ".join(texts(figure))
    assert plots.COLOURS[verdict].lower() in plots.verdict_matrix(rows(PageContents(table, run.facts)))


def test_effects_are_sorted_and_what_explains_nothing_lies_apart(made_run: Made) -> None:
    methods = [f"m{number}" for number in range(9)]
    run = made_run([*methods, "random", "edges", "predictions"], {"ood": ("t",)})
    part = rows(run)
    found = places(plots.effects(part))
    explained = part[~part["honest"]].sort_values("effect", ascending=False)["label"]
    heights = [found[label] for label in explained]
    assert heights == sorted(heights)
    divider = found["no explanation at all:"]
    assert max(heights) < divider < min(found[label] for label in part.loc[part["honest"], "label"])


def test_without_effects_a_figure_names_the_verdict(made_run: Made) -> None:
    run = made_run(["gradient", "lime"], {"reinit": ("1", "2")})
    table = run.results.assign(verdict="not taken", effect=np.nan, ci_low=np.nan, ci_high=np.nan)
    assert texts(plots.effects(rows(PageContents(table[table["level"] == "1"], run.facts)))).count("– not taken") == 2
    assert plots.curve(rows(PageContents(table, run.facts)))


def test_without_intervals_only_points_are_drawn(made_run: Made) -> None:
    run = made_run(["gradient"], {"reinit": ("1",)})
    bare = PageContents(run.results.assign(ci_low=np.nan, ci_high=np.nan), run.facts)
    assert len(plots.effects(rows(bare))) < len(plots.effects(rows(run)))


def test_inside_a_page_identifiers_are_prefixed_and_resolve(made_run: Made) -> None:
    svg = plots.effects(rows(made_run(bugs={"ood": ("t",)})))
    one, other = (plots.embedded(svg, prefix) for prefix in ("a-", "b-"))

    def named(text: str) -> tuple[list[str], set[str]]:
        return re.findall(r' id="([^"]+)"', text), set(re.findall(r'(?:url\(|href=")#([^)"]+)', text))

    names, used = named(one)
    assert used
    assert sorted(names) == sorted(used)
    assert not used & named(other)[1]
    assert "<?xml" not in one
    assert "metadata" not in one
    assert texts(one) == texts(svg)
    with pytest.raises(ElementTree.ParseError):
        plots.embedded(svg[:-10], "a-")


def test_numbers_are_short() -> None:
    numbers = {0.976: ".98", 1.0: "1.00", 0.0: ".00", -0.224: "−.22", -0.001: ".00", 12.5: "12.50"}
    assert {value: narrative.number(value) for value in numbers} == numbers
    assert narrative.number(float("nan")) == ""
    assert narrative.number(0.9764, 3) == ".976"


def outcome(run: PageContents) -> Any:
    """What drawing asks of an outcome that has no records."""
    suite = SimpleNamespace(model_dump=lambda: run.facts["suite"])
    return SimpleNamespace(plan=SimpleNamespace(suite=suite, contrasted=(), panelled=(), methods=()))


class TestRun:
    """What a run leaves in figures/."""

    def test_files_are_the_drawings_and_stale_ones_go(self, made_run: Made, tmp_path: Path) -> None:
        from attribug.tables.figures import draw

        run, folder = made_run(), tmp_path / "figures"
        folder.mkdir()
        for name in ("curve_digits_old.svg", "gallery_digits_old_1.png", "mine.svg"):
            (folder / name).write_text("old")
        assert draw(outcome(run), run.results, run.facts["pieces"], tmp_path) == {}
        expected = drawn(run)
        assert {path.name for path in folder.iterdir()} == {*expected, "mine.svg"}
        assert all((folder / name).read_text() == svg for name, svg in expected.items())

    def test_a_figure_that_fails_is_noted_and_costs_no_other(
        self, made_run: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from attribug.tables.figures import draw

        def broken(part: pd.DataFrame) -> str:
            raise RuntimeError("no ink\nat all")

        run = made_run()
        expected = set(drawn(run)) - {"curve_digits_reinit.svg"}
        monkeypatch.setattr(plots, "curve", broken)
        assert set(draw(outcome(run), run.results, run.facts["pieces"], tmp_path)) == {"curve_digits_reinit.svg"}
        assert {path.name for path in (tmp_path / "figures").iterdir()} == expected

    def test_a_table_that_cannot_be_drawn_raises_nothing(self, made_run: Made, tmp_path: Path) -> None:
        from attribug.tables.figures import draw

        run = made_run()
        assert "figures" in draw(outcome(run), run.results, run.facts["pieces"] | {"bugs": {}}, tmp_path)


def test_neither_report_nor_figures_load_torch() -> None:
    code = "import sys, attribug.results.html_page; sys.exit(bool({'torch', 'matplotlib.pyplot'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(("control", "reference"), [
    ("clean", "clean model"), ("other_flips", "clean model"), ("retrained", "trained model"),
    ("perturbed", "this model"), ("stored_anew", "this model"), ("decorrelated", "decorrelated model"),
])  # fmt: skip
def test_a_gallery_names_its_reference_as_its_control_does(control: str, reference: str) -> None:
    assert figures._title("reference", control) == f"{reference}\n(reference)"
    assert control in narrative.CONTROLS
    assert control in figures.CONTROL_NAMES
