"""A run as one HTML page that needs nothing else: no network, no plugin, no script to be read."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from attribug.results import (
    advice_page,
    alignment_page,
    findings,
    literature,
    mending_page,
    narrative,
    paper_page,
    pictures,
    plots,
    power,
    undecided,
)
from attribug.results.figures import CONTROL_NAMES, ROLES, SYMBOLS, Pictures, bars_told, reference_name
from attribug.results.headline import PLACE, at, headline, places
from attribug.results.narrative import number
from attribug.results.replication import ALL, MATRIX, Replication, sentence, summed
from attribug.results.schema import KEYS
from attribug.results.trouble_page import costs_told, records, trainings_told, trouble

TEMPLATE, STYLE, SCRIPT = "report.html.jinja", "report.css", "report.js"
UNFIT = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
RAISED = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")
Place = tuple[str, str, str]
"""Task, bug, level."""
View = dict[str, Any]
"""What a part of the template shows, ready to print."""


@dataclass(frozen=True)
class PageContents:
    """What a page tells: tables, facts and pictures of one run."""

    results: pd.DataFrame
    """As `read_results` gives it."""
    facts: Mapping[str, Any]
    """run.json, with `pieces`."""
    analysis: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    """By name; of these `added`, `ranking` and `power` are shown."""
    costs: pd.DataFrame | None = None
    galleries: Mapping[Place, Mapping[str, Pictures]] = field(default_factory=dict)
    """By place and method: `inputs` (n, C, H, W) in [0, 1], (n, C, L) or (n, D), and, by role, maps (n, *spatial)."""
    published: pd.DataFrame | None = None
    """As `published.beside` gives it; rows without ours are not shown."""
    findings: pd.DataFrame | None = None
    """As `findings.findings` gives it."""
    fixes: pd.DataFrame | None = None
    """As `mending.read_fixes` gives it; None where nothing was mended."""
    replication: Replication | None = None
    """What further suite seeds say; None where there are none."""
    alignment: pd.DataFrame | None = None
    """As `alignment.read_alignment` gives it; None where no model was held against masks."""
    alignment_cases: pd.DataFrame | None = None
    """As `alignment.cases` gives it; None where no prediction is known to be right or wrong."""
    alignment_galleries: Mapping[str, str] = field(default_factory=dict)
    """Pictures of examples as PNG data URIs, by a name that begins with its panel's: `mnist_block: distracted`."""
    training: Mapping[Place, str] = field(default_factory=dict)
    """Clean beside contaminated training images as PNG data URIs, by place."""


def page(run: PageContents) -> str:
    """The page, HTML in one text.

    Raises:
        ValueError: a bug of which the facts tell nothing.
    """
    import yaml
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    folder = Path(__file__).parent
    strict: dict[str, Any] = {"autoescape": True, "undefined": StrictUndefined, "finalize": _clean}
    environment = Environment(loader=FileSystemLoader(folder), trim_blocks=True, lstrip_blocks=True, **strict)
    environment.filters |= {"number": number, "wrapped": _wrapped, "prose": _prose}
    script, style = (Markup((folder / name).read_text(encoding="utf-8")) for name in (SCRIPT, STYLE))
    run = replace(run, results=undecided.explained(run.results))
    facts, suite = run.facts, run.facts["suite"]
    rows = headline(run.results, suite, facts["pieces"])
    why, footnote = undecided.footnotes(rows)
    rows = rows.assign(footnote=footnote)
    everything, ranking = places(run.results, suite), records(run.analysis.get("ranking"))
    return environment.get_template(TEMPLATE).render(
        script=script, style=style, script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        facts=facts, suite=suite, symbols=SYMBOLS, verdicts=narrative.VERDICTS, colours=plots.COLOURS,
        suite_text=yaml.safe_dump(dict(suite), sort_keys=False, allow_unicode=True),
        written=str(facts.get("written", "at an unknown time"))[:16].replace("T", " "),
        summary=narrative.summary(rows, facts, everything), warnings=narrative.warnings(rows, facts),
        matrices=_matrices(rows), bugs=_bugs(run, rows, everything), added=_added(run, rows), ranking=ranking,
        ranked=max([row["rank_high"] for row in ranking if row["rank_high"] > 0], default=1),
        costs=costs_told(run.costs), trainings=trainings_told(run.costs), trouble=trouble(facts, run.results),
        published=records(None if run.published is None else run.published.dropna(subset="ours")),
        findings=_findings(run.findings),
        paper=None if run.published is None else _paper(run, run.published), replication=_replication(run.replication),
        mended=[] if run.fixes is None else mending_page.views(run.fixes, rows, facts, _embedded, anchor),
        cheaper=mending_page.cost_sentence(run.costs),
        aligned=alignment_page.views(
            run.alignment, run.alignment_cases, facts["pieces"], run.alignment_galleries, _embedded, anchor
        ),
        first=_first(ranking), anchored=anchor, works=lambda paper: list(literature.cited(paper)),
        advice=advice_page.view(rows, run.results, suite, run.analysis, anchor),
        opened=_opened(run.analysis.get("power"), rows),
        matrix_notes=[*_why(why), *_unmeasured(rows, facts["pieces"], everything)],
    )  # fmt: skip


def _first(ranking: Sequence[Mapping[str, Any]]) -> str:
    """Whether there is a winner, in a sentence; empty where nothing is ranked."""
    first = [row["method"] for row in ranking if row["rank_low"] == 1]
    if not first:
        return ""
    if len(first) == 1:
        return f"{first[0]} is first for certain, over these bugs and models."
    return f"No winner: the first place is open among {len(first)} methods."


def anchor(*names: object) -> str:
    """An identifier inside the page: letters, digits and a checksum, whatever the names hold."""
    return "p" + hashlib.sha256("\0".join(map(str, names)).encode("utf-8", "backslashreplace")).hexdigest()[:10]


def _clean(value: Any) -> Any:
    """What is printed, without characters that turn the text around, or that no page may hold."""
    from markupsafe import Markup

    return UNFIT.sub("�", value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _wrapped(name: str) -> Any:
    """A name that may be broken after `_` and `+`."""
    from markupsafe import Markup, escape

    return Markup('<span class="name">{}</span>').format(
        escape(_clean(name)).replace("_", Markup("_<wbr>")).replace("+", Markup("+<wbr>"))
    )


def _prose(text: str) -> Any:
    """A docstring's line: what stands between backticks is code."""
    from markupsafe import Markup, escape

    return Markup(re.sub("`([^`]+)`", r"<code>\1</code>", str(escape(_clean(text)))))


def _cell(row: Any) -> View:
    """A verdict as the matrix shows it."""
    return {
        "verdict": row.verdict, "symbol": SYMBOLS[row.verdict] + _raised(getattr(row, "footnote", 0)),
        "effect": row.effect, "constructed": row.constructed, "words": narrative.cell(row),
    }  # fmt: skip


def _raised(footnote: int) -> str:
    """The number of a footnote behind a symbol; nothing for 0."""
    return str(footnote).translate(RAISED) if footnote else ""


def _why(kinds: Sequence[str]) -> list[str]:
    """Why verdicts of the matrix are open: the footnotes of its symbols."""
    symbol = SYMBOLS[undecided.OPEN]
    return [f"{symbol}{_raised(number)} {kind}." for number, kind in enumerate(kinds, 1)]


def _matrices(rows: pd.DataFrame) -> list[View]:
    """One a task: columns, and rows of explanations and of what explains nothing."""
    views = []
    for task, part in rows.groupby("task", sort=False):
        columns = list(dict.fromkeys(part[PLACE].itertuples(index=False, name=None)))
        named = part[part["label"] == part["method"]].sort_values("own", kind="stable")  # the bug's metric first
        facts = named.drop_duplicates(PLACE).set_index(PLACE)
        cells = {(row.label, row.bug, row.level): _cell(row) for row in part.itertuples()}
        groups = [
            {
                "honest": honest,
                "rows": [
                    {"label": label, "cells": [cells.get((label, *column[1:])) for column in columns]}
                    for label in dict.fromkeys(part.loc[part["honest"] == honest, "label"])
                ],
            }
            for honest in (False, True)
        ]
        heads = [
            {"bug": bug, "level": level, "id": anchor(*place), "metric": _measured(facts, place)}
            for place in columns
            for _, bug, level in [place]
        ]
        views.append({"task": task, "columns": heads, "groups": [group for group in groups if group["rows"]]})
    return views


def _measured(facts: pd.DataFrame, place: Place) -> str:
    """The metric of a column of the matrix, empty where only direct queries were measured."""
    return "" if place not in facts.index else "{metric}@{post}".format(**facts.loc[[place]].iloc[0])


def _unmeasured(rows: pd.DataFrame, pieces: Mapping[str, Any], everything: Sequence[Place]) -> list[str]:
    shown = set(rows[PLACE].itertuples(index=False, name=None))
    missing = dict.fromkeys(bug for task, bug, level in everything if (task, bug, level) not in shown)
    return [f"{bug} is not in the matrix: {pieces['bugs'][bug]['primary']} was not measured." for bug in missing]


def _bugs(run: PageContents, rows: pd.DataFrame, everything: Sequence[Place]) -> list[View]:
    """One section a task and bug."""
    views = []
    for task, bug in dict.fromkeys(place[:2] for place in everything):
        facts = run.facts["pieces"]["bugs"][bug]
        metrics = run.facts["pieces"]["metrics"]
        metric = next((metrics[name] for name in metrics if facts["primary"].startswith(f"{name}@")), None)
        here, levels = at(rows, (task, bug)), [place for place in everything if place[:2] == (task, bug)]
        curve = plots.curve(here) if facts["graded"] and here["level"].nunique() > 1 else ""
        views.append({
            "task": task, "bug": bug, "id": anchor(task, bug), "facts": facts, "metric": metric,
            "stage": narrative.STAGES.get(facts["stage"], facts["stage"]),
            "control": narrative.CONTROLS.get(facts["control"], facts["control"]),
            "target": narrative.TARGETS.get(facts.get("target"), ""), "truth": facts.get("truth") or "",
            "checks": _checks(run.facts["checks"], task, bug), "curve": _embedded(curve, task, bug),
            "levels": [_level(run, at(here, place), place) for place in levels],
        })  # fmt: skip
    return views


def _embedded(svg: str, *names: str) -> Any:
    from markupsafe import Markup

    return Markup(plots.embedded(svg, anchor(*names) + "-")) if svg else ""


def _checks(checks: Sequence[Mapping[str, Any]], task: str, bug: str) -> View:
    """Every check's figure by model, a row a level and check."""
    mine = [check for check in checks if (check["task"], check["bug"]) == (task, bug)]
    seeds = list(dict.fromkeys(check["seed"] for check in mine))
    rows: dict[tuple[str, str, str], dict[Any, Mapping[str, Any]]] = {}
    for check in mine:
        rows.setdefault((check["level"], check["check"], check["expected"]), {})[check["seed"]] = check
    return {
        "seeds": seeds,
        "rows": [
            {"level": level, "check": name, "expected": expected, "figures": [found.get(seed) for seed in seeds]}
            for (level, name, expected), found in rows.items()
        ],
    }


def _level(run: PageContents, rows: pd.DataFrame, place: Place) -> View:
    """Effects, gallery and all rows of one level. `rows`: the headline's."""
    held, of = narrative.took(run.facts["checks"], place)
    bug = run.facts["pieces"]["bugs"][place[1]]
    everything = at(run.results, place)
    measured = everything["metric"] + "@" + everything["post"]
    first = (everything["control"] != bug["control"]).astype(int) * 2 + (measured != bug["primary"]).astype(int)
    methods = list(run.facts["suite"].get("methods", ()))
    keys = pd.DataFrame({
        "first": first, "measured": measured, "control": everything["control"],
        "method": everything["method"].map(lambda name: methods.index(name) if name in methods else len(methods)),
    })  # fmt: skip
    order = keys.sort_values(keys.columns.tolist(), kind="stable").index
    images = rows.loc[~rows["verdict"].isin(["unsupported", "failed"]), "n"]
    return {
        "level": place[2], "id": anchor(*place), "held": held, "of": of,
        "images": int(images.max()) if len(images) else 0,
        "svg": _embedded(plots.effects(rows) if len(rows) else "", *place),
        "gallery": _gallery(run.galleries.get(place, {}), rows, bug, run.facts["pieces"]["metrics"]),
        "training": run.training.get(place, ""),
        "order": bars_told(run.facts["pieces"]["tasks"][place[0]].get("features", ())),
        "rows": records(everything.assign(measured=measured).loc[order]),
    }  # fmt: skip


def _gallery(
    maps: Mapping[str, Pictures], rows: pd.DataFrame, bug: Mapping[str, Any], metrics: Mapping[str, Mapping[str, Any]]
) -> View | None:
    """Inputs, and a strip of maps a method and example; None where there are no maps."""
    if not maps:
        return None
    control = str(bug["control"])
    kind = metrics.get(str(bug["primary"]).partition("@")[0], {}).get("kind", "")
    first = next(iter(maps.values()))
    roles = [role for role in ROLES if all(role in each for each in maps.values())]
    titles = {
        "reference": reference_name(control),
        "control": CONTROL_NAMES.get(control, control).replace("\n", " "), "contaminated": "with the bug",
    }  # fmt: skip
    cells = {row.label: _cell(row) for row in rows.itertuples()}
    shown = [
        {"method": name, "cell": cells.get(name), "strips": [
            pictures.strip([each[role][example] for role in roles]) for example in range(len(first["inputs"]))
        ]}
        for name, each in maps.items()
    ]  # fmt: skip
    return {
        "inputs": [pictures.photograph(picture) for picture in first["inputs"]],
        "roles": [(role, titles[role]) for role in roles], "rows": shown,
        "caption": narrative.gallery_caption(str(kind), str(bug.get("truth") or ""), roles),
    }  # fmt: skip


def _first_yardstick(facts: Mapping[str, Any]) -> str:
    """The metric that stands in the matrix for what models themselves say; empty where nothing says it."""
    told = facts["pieces"]["methods"]
    bare = [told[name] for name in facts["suite"].get("methods", ()) if name in told and told[name]["bare"]]
    return str(bare[0]["headline"]).partition("@")[0] if bare else ""


def _added(run: PageContents, rows: pd.DataFrame) -> View | None:
    """What each explanation of the matrix adds to predictions: columns are places and yardsticks."""
    table = run.analysis.get("added")
    if table is None or table.empty:
        return None
    shown = table.merge(rows[[*KEYS]].drop_duplicates(), on=[*KEYS])
    columns = list(dict.fromkeys(shown[[*PLACE, "yardstick"]].itertuples(index=False, name=None)))
    order = [tuple(place) for place in dict.fromkeys(rows[PLACE].itertuples(index=False, name=None))]
    first = _first_yardstick(run.facts)
    columns.sort(key=lambda column: (order.index(column[:3]), column[3] != first))
    cells = {(row.method, row.task, row.bug, row.level, row.yardstick): row for row in shown.itertuples()}
    methods = [label for label in dict.fromkeys(rows["label"]) if label in set(shown["method"])]
    return {
        "columns": columns,
        "rows": [{"method": name, "cells": [cells.get((name, *column)) for column in columns]} for name in methods],
    } if columns else None  # fmt: skip


def _paper(run: PageContents, beside: pd.DataFrame) -> View | None:
    return paper_page.views(run.results, run.facts, beside, run.galleries, _embedded)


def _findings(table: pd.DataFrame | None) -> View | None:
    """Statements × tasks; None where no task is told of."""
    if table is None or table.empty:
        return None
    tasks = list(dict.fromkeys(table["task"]))
    rows = [
        {"statement": part["statement"].iloc[0], "source": part["source"].iloc[0], "test": part["test"].iloc[0],
         "cells": [cells.get(task) for task in tasks]}
        for _, part in table.groupby("finding", sort=False)
        for cells in [{cell["task"]: cell for cell in records(part)}]
    ]  # fmt: skip
    spoken = [row for row in records(table) if row["agrees"] != findings.ABSENT]
    return {"tasks": tasks, "rows": rows, "spoken": spoken, "symbols": findings.SYMBOLS}


def _opened(table: pd.DataFrame | None, rows: pd.DataFrame) -> View | None:
    """How many models a side would decide what is open: columns are places, cells `power.words`."""
    if table is None:
        return None
    shown = rows[rows["label"] == rows["method"]]
    cells = {(row.method, row.task, row.bug, row.level): power.words(row) for row in table.itertuples()}
    places = dict.fromkeys(shown[PLACE].itertuples(index=False, name=None))
    columns = [place for place in places if any(cell[1:] == place for cell in cells)]
    methods = [name for name in dict.fromkeys(shown["method"]) if any(cell[0] == name for cell in cells)]
    return {
        "sentence": power.sentence(shown, table), "columns": columns,
        "rows": [{"method": name, "cells": [cells.get((name, *place)) for place in columns]} for name in methods],
    }  # fmt: skip


def _replication(found: Replication | None) -> View | None:
    """What became of verdicts under further suite seeds, of a bug and of a method."""
    if found is None or found.stale:
        return None if found is None else {"stale": found.stale}
    listed = found.contradictions
    tables = [("By bug and level", [*PLACE]), ("By method", ["method"])]
    return {
        "stale": "", "seeds": found.seeds, "sentence": sentence(found), "everything": sentence(found, ALL),
        "tables": [
            {"title": title, "by": by, "rows": records(summed(found.counts, by))} for title, by in tables
        ],
        "contradictions": [
            {"title": title, "rows": records(listed[listed["rows"] == rows])}
            for rows, title in ((MATRIX, "of the matrix"), (ALL, "of other rows"))
        ],
    }  # fmt: skip
