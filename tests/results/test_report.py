"""The page: every section, every number, nothing from outside, and names that break nothing."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pandas as pd
import pytest

from attribug.results import alignment, narrative, pictures
from attribug.results.findings import FINDING_COLUMNS
from attribug.results.headline import headline, places
from attribug.results.html_page import PageContents, anchor, page
from attribug.results.published import BESIDE_COLUMNS
from attribug.results.replication import Replication, contradictions, counted_cells, paired
from doubles import aligned

Made = Callable[..., PageContents]
VOID = {"meta", "link", "img", "br", "wbr", "input"}
SECTIONS = ("matrix", "open", "added", "ranking", "costs", "published", "trouble", "settings")


class Parsed(HTMLParser):
    """A page as a browser without scripts sees it: elements with attributes, and text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.faults: list[str] = []
        self.feed(html)
        self.close()
        self.faults += [f"never closed: {tag}" for tag in self.open]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"closed but not open: {tag}")

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())

    @property
    def identifiers(self) -> list[str]:
        return [attributes["id"] for _, attributes in self.elements if "id" in attributes]


def faults(html: str) -> list[str]:
    """What no page may have: broken nesting, scripts, handlers, references to the outside or to nowhere."""
    parsed = Parsed(html)
    found = [*parsed.faults, *(f"twice: {name}" for name in parsed.identifiers if parsed.identifiers.count(name) > 1)]
    found += ["scripts"] * ([tag for tag, _ in parsed.elements].count("script") != 1)
    for tag, attributes in parsed.elements:
        found += [f"handler: {name}" for name in attributes if name.startswith("on")]
        found += [f"foreign: {tag}"] * (tag in {"iframe", "object", "embed", "base", "form", "b"})
        for name in {"src", "href", "xlink:href"} & set(attributes):
            target = attributes[name]
            resolved = target.startswith("data:") or (target[:1] == "#" and target[1:] in parsed.identifiers)
            found += [f"outside: {target}"] * (not resolved)
    return found + re.findall(r"url\((?!#)[^)]*\)|@import[^;]*|https?://(?!www\.w3\.org/)\S*", html)


@pytest.fixture(scope="module")
def run(made_run: Made) -> PageContents:
    return made_run()


@pytest.fixture(scope="module")
def html(run: PageContents) -> str:
    return page(run)


def test_every_section_is_there(run: PageContents, html: str) -> None:
    found = Parsed(html)
    everything = places(run.results, run.facts["suite"])
    expected = {*SECTIONS, *(anchor(*place) for place in everything), *(anchor(*place[:2]) for place in everything)}
    assert expected - set(found.identifiers) == {"published"}
    for words in ("Did the bug take?", "How strong must it be?", "All 10 rows", "attribug run suite.yaml --device cpu"):
        assert words in found.text
    assert html.count('class="strip') == 4 * 4 * 2  # cells, methods with maps, examples


def test_nothing_comes_from_outside(html: str) -> None:
    assert faults(html) == []


@pytest.mark.parametrize(
    "broken",
    [
        "<script>alert(1)</script>", "<p onclick=x>", "<img src=http://example.org/x.png>", '<a href="#nowhere">x</a>',
        "<div>", "</main>", '<p id="matrix"></p>', "<style>@import 'x.css';</style>", "<iframe></iframe>",
        "<style>p{background:url(x.png)}</style>",
    ],
)  # fmt: skip
def test_the_check_of_pages_rejects(html: str, broken: str) -> None:
    assert faults(html.replace("</h1>", f"</h1>{broken}"))


def test_the_matrix_shows_the_table(run: PageContents, html: str) -> None:
    rows = headline(run.results, run.facts["suite"], run.facts["pieces"])
    found = re.findall(r'data-verdict="([^"]+)" data-effect="([^"]*)"', html)
    assert len(found) == len(rows)
    labels = list(rows.sort_values("honest", kind="stable")["label"].drop_duplicates())
    ordered = rows.sort_values("label", key=lambda column: column.map(labels.index), kind="stable")
    assert [verdict for verdict, _ in found] == list(ordered["verdict"])
    assert [float(effect) for _, effect in found] == pytest.approx(list(ordered["effect"]))
    for row in rows.itertuples():
        assert narrative.cell(row) in html


def test_every_row_of_the_table_is_on_the_page(run: PageContents, html: str) -> None:
    text = Parsed(html).text
    for row in run.results.itertuples():
        interval = ", ".join(map(narrative.number, (row.ci_low, row.ci_high)))
        assert f"{narrative.number(row.effect, 3)} [{interval}]" in text


def test_equal_runs_give_equal_pages(made_run: Made, html: str) -> None:
    assert page(made_run()) == html
    assert page(replace(made_run(), results=made_run().results.iloc[::-1])) == html


def test_hostile_names_are_shown_and_break_nothing(made_run: Made, hostile: tuple[str, ...]) -> None:
    names = [*hostile, "random", "edges", "predictions"]
    run = made_run(names, {hostile[0]: ("1", hostile[1]), hostile[2]: (hostile[3],)}, (hostile[4], hostile[6]))
    facts = run.facts | dict.fromkeys(("written", "device", "revision", "plan", "unanalysed"), hostile[0])
    facts |= {
        "undrawn": {hostile[2]: hostile[0]}, "halved_passes": {hostile[0]: 1},
        "versions": {hostile[0]: hostile[1], "attribug": hostile[1]},
        "failures": [{"cell": hostile[0], "method": hostile[1], "reason": hostile[2]}],
    }  # fmt: skip
    facts["suite"] = facts["suite"] | {"description": hostile[0], "name": hostile[1]}
    results = run.results.assign(reason=hostile[0])
    texts = {name: [hostile[0]] for name in FINDING_COLUMNS}
    numbers = {"methods": 1, "estimate": 0.5, "ci_low": 0.4, "ci_high": 0.6}
    beside = pd.DataFrame({name: [hostile[0]] for name in BESIDE_COLUMNS})
    literature = {"findings": pd.DataFrame(texts).assign(**numbers), "published": beside}
    others = results.assign(verdict=results["verdict"].map({"detects": "blind", "blind": "detects"}).fillna("failed"))
    pairs = paired([results, others], (0, 1))
    everywhere = pd.Series(True, index=pairs.index)
    contradicted = contradictions(pairs, everywhere)
    assert len(contradicted)
    replication = Replication((0, 1), counted_cells(pairs, everywhere), contradicted)
    found = page(replace(run, results=results, facts=facts, replication=replication, **literature))
    assert "Contradicted verdicts of the matrix" in found
    assert faults(found) == []
    text = "".join(Parsed(found).texts)
    assert all(name.replace("\N{RIGHT-TO-LEFT OVERRIDE}", "�") in text for name in hostile)
    assert not any("\u202a" <= letter <= "\u202e" for letter in found)


def test_the_check_of_names_rejects_a_page_that_does_not_escape(made_run: Made, hostile: tuple[str, ...]) -> None:
    found = page(made_run([hostile[0]]))
    assert faults(found.replace("&lt;", "<").replace("&gt;", ">"))


def test_quick_fits_into_five_megabytes(made_run: Made) -> None:
    """29 methods and six cells with maps of noise, which nothing compresses."""
    bugs = {"spurious": ("1",), "flips": ("0.2",), "reinit": ("1", "3", "all"), "ood": ("textures",)}
    methods = [*(f"method_{number}" for number in range(26)), "random", "edges", "predictions"]
    assert len(page(made_run(methods, bugs, pixels=32)).encode()) < 5e6


def test_large_maps_are_averaged(made_run: Made) -> None:
    uri, width, height = pictures.strip([np.ones((200, 100))])
    assert (width, height) == (25, 50)
    assert len(uri) < 1000
    assert len(page(made_run(["gradient"], {"ood": ("t",)}, pixels=224))) < 300_000


def test_maps_keep_their_pixels_signs_and_gaps() -> None:
    import base64
    import io

    from PIL import Image

    maps = [np.array([[1.0, -1.0], [0.0, np.nan]]), np.zeros((2, 2)), np.full((2, 2), np.inf)]
    uri, width, height = pictures.strip(maps)
    image = np.array(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))).convert("RGB"))
    assert (width, height) == (10, 2) == image.shape[1::-1]
    red, blue, zero = image[0, 0], image[0, 1], image[1, 0]
    assert red[0] > red[2] + 50
    assert blue[2] > blue[0] + 50
    assert zero.min() > 240
    assert (image[1, 1] == 128).all()
    assert (image[:, 4:6] > 240).all()
    assert (image[:, 8:] == 128).all()


def row(run: PageContents, **changes: Any) -> PageContents:
    """The run with changes in all rows of `gradient` about reinit 1."""
    at = (run.results["method"] == "gradient") & (run.results["bug"] == "reinit") & (run.results["level"] == "1")
    results = run.results.copy()
    results.loc[at, list(changes)] = list(changes.values())
    return replace(run, results=results)


NOTHING = dict.fromkeys(("value", "benign", "floor", "effect", "ci_low", "ci_high", "sem", "undefined"), np.nan)


def told(run: PageContents, **facts: Any) -> PageContents:
    """The run with other facts."""
    return replace(run, facts=run.facts | facts)


def failed(run: PageContents) -> PageContents:
    failures = [{"cell": "digits / reinit 1 / seed 0", "method": "gradient", "reason": "it broke"}]
    return told(row(run, **NOTHING, verdict="failed", reason="it broke", n=0), failures=failures)


def not_taken(run: PageContents) -> PageContents:
    checks = [check | {"holds": check["bug"] != "ood", "figure": 0.01} for check in run.facts["checks"]]
    results = run.results.copy()
    results.loc[results["bug"] == "ood", [*NOTHING, "verdict"]] = [*NOTHING.values(), "not taken"]
    return replace(run, results=results, facts=run.facts | {"checks": checks}, galleries={})


def one_seed(run: PageContents) -> PageContents:
    few = "1 model; an interval needs 3"
    results = run.results.assign(ci_low=np.nan, ci_high=np.nan, verdict="inconclusive", reason=few)
    return replace(run, results=results, facts=run.facts | {"suite": run.facts["suite"] | {"seeds": 1}}, analysis={})


def without(run: PageContents, *metrics: str) -> PageContents:
    return replace(run, results=run.results[~run.results["metric"].isin(metrics)])


@pytest.mark.parametrize(
    ("change", "said", "unsaid"),
    [
        (lambda run: replace(run, galleries={}), "Effects with 95 %", "the explained input"),
        (lambda run: replace(run, analysis={}), "Verdicts", "Ranking"),
        (lambda run: replace(run, analysis={}), "Verdicts", "What would decide the open verdicts"),
        (lambda run: replace(run, analysis={"power": run.analysis["power"][:0]}), "are decided", "were effect"),
        (lambda run: replace(run, analysis={"added": run.analysis["added"][:0]}), "Verdicts", "add to predictions"),
        (lambda run: replace(run, costs=None), "Ranking", "What each method costs"),
        (lambda run: replace(run, costs=run.costs.assign(images=np.nan)), "was not counted when", "2.00 2.0"),
        (lambda run: row(run, **NOTHING, verdict="unsupported", reason="no layer"), "no layer", "Nothing: every"),
        (failed, "1 record failed", "Nothing: every"),
        (not_taken, "not taken", "Every contaminated model has its bug"),
        (one_seed, "Fewer than 3 models a side", "[."),
        (lambda run: row(run, effect=np.nan), "Verdicts", "nan"),
        (lambda run: without(run, "spearman", "total_variation", "background_swap"),
         "There is no verdict to show", "nan"),
        (lambda run: without(run, "spearman"), "reinit", "nan"),
        (lambda run: told(run, checks=[]), "This bug has no checks", "took in"),
        (lambda run: told(run, undrawn={"curve.svg": "no ink"}), "curve.svg: no ink", "Nothing: "),
        (lambda run: told(run, constant_maps={"a / b 1 / seed 0 / lime": 3}), "lime: 3 maps in 1 record", "Nothing: "),
        (lambda run: told(run, nonfinite_maps={"a / b 1 / seed 0 / lime": 1}), "lime: 1 map in 1 record", "Nothing: "),
    ],
)  # fmt: skip
def test_what_is_missing_is_left_out_and_said(
    run: PageContents, html: str, change: Callable[[PageContents], PageContents], said: str, unsaid: str
) -> None:
    found = page(change(run))
    assert faults(found) == []
    text = Parsed(found).text
    assert said in text
    assert unsaid not in text
    assert found != html


def test_a_sum_that_is_missed_is_told_with_the_rows_that_warn(run: PageContents) -> None:
    missed = {"digits / reinit 1 / seed 0 / gradient": 0.3, "digits / reinit 1 / seed 1 / gradient": 0.01,
              "digits / reinit 1 / seed 0 / lime": 0.01}  # fmt: skip
    warned = row(replace(run, facts=run.facts | {"imbalance": missed}), reason="maps miss the sum they promise by 30%")
    text = Parsed(page(warned)).text
    assert "gradient: by 1 to 30 %" in text
    assert "lime: by" not in text


def test_costs_are_divided_by_the_maps_of_records_that_have_some(run: PageContents) -> None:
    assert run.costs is not None
    broken = run.costs[(run.costs["method"] == "lime") & (run.costs["level"] == "3")].assign(seconds=99.0, images=0.0)
    text = Parsed(page(replace(run, costs=pd.concat([run.costs, broken])))).text
    assert "lime 5 1280 6.25 2.0 1.0 107.00 5.00 900" in text  # 4 records of 2 s and 320 maps, and one that broke
    assert "gradient 4 1280 6.25 2.0 1.0 8.00 4.00 900" in text
    assert "1 training took 2 seconds" in text


def test_two_tasks_have_a_matrix_each(made_run: Made) -> None:
    found = page(made_run(tasks=("digits", "animals")))
    assert faults(found) == []
    assert found.count('<table class="matrix">') == 2


def test_a_page_with_alignment_is_whole(run: PageContents) -> None:
    found = aligned.study()
    told = {"alignment": alignment.table(*found), "alignment_cases": alignment.cases(found[0])}
    html = page(replace(run, **told))  # type: ignore[arg-type]
    assert faults(html) == []
    assert 'href="#aligned"' in html


def test_published_values_are_shown_where_there_are_any(run: PageContents) -> None:
    told = ("F1", "Edges see nothing.", "section 9", "mean above .6", "digits", 3, 0.7, 0.65, 0.75, "yes", "yes: edges")
    findings = pd.DataFrame([told], columns=list(FINDING_COLUMNS))
    published = pd.DataFrame({"bug": "reinit", "method": ["lime", "rise"], "paper": [0.5, 0.6], "paper_sem": [0.01, 0],
                              "ours": [0.4, np.nan], "floor": [0.2, np.nan]})  # fmt: skip
    text = Parsed(page(replace(run, published=published, findings=findings))).text
    assert "Edges see nothing. section 9 mean above .6 ✓ yes .70 [.65, .75] 3 methods" in text
    assert "F1 digits yes yes: edges" in text
    assert "reinit lime .500 .010 .400 .200" in text
    assert "rise" not in text
    assert "Against published results" not in Parsed(page(replace(run, findings=findings[:0]))).text


class TestNarrative:
    """The summary is told from the tables."""

    def told(self, run: PageContents) -> tuple[str, str]:
        rows = headline(run.results, run.facts["suite"], run.facts["pieces"])
        everything = places(run.results, run.facts["suite"])
        return " ".join(narrative.summary(rows, run.facts, everything)), " ".join(narrative.warnings(rows, run.facts))

    def test_counts_best_and_honest_rows(self, made_run: Made) -> None:
        run = made_run()
        verdicts = run.results["verdict"].where(run.results["method"].isin(["random", "edges"]), "inconclusive")
        results = run.results.assign(verdict=verdicts)
        results.loc[(results["method"] == "lime") & (results["level"] != "3"), "verdict"] = "detects"
        results.loc[results["method"] == "predictions", ["verdict", "reason"]] = ["detects", "true by construction"]
        summary, warned = self.told(replace(run, results=results))
        assert "2 explanation methods met 2 bugs (4 levels in all) on digits, with 3 models a side." in summary
        assert "Every contaminated model has its bug" in summary
        assert "Most is detected by lime: 3 of 4 columns. Nothing is detected for certain by gradient." in summary
        assert "(random and edges) detects nothing, as it must be." in summary
        assert "detect 4 of 4, by construction: the bug" in summary
        assert warned == ""

    def test_a_null_method_that_detects_is_a_warning(self, run: PageContents) -> None:
        results = run.results.assign(verdict=run.results["verdict"].mask(run.results["method"] == "edges", "detects"))
        summary, warned = self.told(replace(run, results=results))
        assert "as it must be" not in summary
        assert "edges, which knows no model, detects reinit 1, reinit 3, reinit all and ood textures" in warned

    def test_a_bug_that_took_in_some_models_is_named(self, run: PageContents) -> None:
        checks = [check | {"holds": check["seed"] != 1 or check["bug"] != "ood"} for check in run.facts["checks"]]
        assert "ood textures (2 of 3)" in self.told(replace(run, facts=run.facts | {"checks": checks}))[0]
        assert narrative.took(checks, ("digits", "ood", "textures")) == (2, 3)
        assert narrative.took(checks, ("digits", "ood", "none")) == (0, 0)

    def test_nothing_detected(self, run: PageContents) -> None:
        assert "No explanation detects" in self.told(replace(run, results=run.results.assign(verdict="blind")))[0]
