"""A run in plain sentences, told from its tables alone."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from attribug.results.headline import BARE, NULL, PLACE
from attribug.results.schema import MENDED, OUTCOMES, PERTURBED, is_mended
from attribug.results.statistics import FEWEST_MODELS

MOST_NAMED = 4  # methods that a sentence names

VERDICTS = {
    "detects": "the method sees the bug: its explanations tell the contaminated model from its control",
    "blind": "the method does not see the bug, though its explanations had something to lose",
    "inverted": "explanations tell the two apart the wrong way round",
    "inconclusive": "nobody can tell yet: the interval is too wide, or too much is undefined",
    "not taken": "the contaminated models do not have the bug, so there is nothing to see",
    "unsupported": "the method declines to explain this model, or the metric to read its maps",
    "failed": "method or metric broke down",
}
CONTROLS = {
    "clean": "clean models, trained alike from other seeds",
    "other_flips": "models trained with the same share of other labels flipped: the explained ones were right",
    "retrained": "the same layers, re-initialised and trained again while the rest stays frozen",
    PERTURBED: "the same model with slightly disturbed weights",
    "stored_anew": "the same model, on pictures that were stored anew",
    "decorrelated": "models of the same pictures, on which the marks tell nothing of the class",
    "-": "none: the bug could not be set up",
}
STAGES = {"data": "in the training data", "model": "in the weights", "test": "at test time"}
TARGETS = {
    "label": "images, each for the class of its label",
    "reference": "images, each for the class that the reference predicts",
    "own": "images, each for the class that the explained model predicts itself",
}  # fmt: skip


def units(seeds: int, controls: Iterable[str]) -> str:
    """What verdicts rest on, by the controls of the bugs: `5 models a side`, or draws of a model that is given."""
    given = {control == PERTURBED for control in controls}
    if given == {True}:
        return f"this model, {counted(seeds, 'draw')} a side"
    return f"{counted(seeds, 'model')} a side" + (", draws where this model is perturbed" if True in given else "")


def summary(rows: pd.DataFrame, facts: Mapping[str, Any], everything: Sequence[tuple[str, str, str]]) -> list[str]:
    """What was run, whether the bugs took, who detects most, and what the honest rows say, a sentence each.

    rows: of `headline`; facts: run.json; everything: task, bug and level of all cells.
    """
    if not everything and facts["pieces"].get("panels"):
        return [_panelled(facts)]
    rows = rows[~is_mended(rows["bug"])]
    everything = [place for place in everything if MENDED not in place[1]]
    explained = rows[~rows["honest"]]
    seeds = facts["suite"].get("seeds", 0)
    controls = [bug["control"] for bug in facts["pieces"]["bugs"].values()]
    bugs, tasks = {bug for _, bug, _ in everything}, list(dict.fromkeys(task for task, _, _ in everything))
    sentences = [
        f"{counted(explained['method'].nunique(), 'explanation method')} met {counted(len(bugs), 'bug')} "
        f"({counted(len(everything), 'level')} in all) on {_listed(tasks)}, with {units(seeds, controls)}."
    ]
    if PERTURBED in controls:
        sentences.append("Verdicts against perturbed copies are about this model: others of its kind were not asked.")
    sentences += [_taken(facts["checks"], everything), *_best(explained), *_honest(rows[rows["honest"]])]
    return [sentence for sentence in sentences if sentence]


def _panelled(facts: Mapping[str, Any]) -> str:
    """What was run where there are panels and no bugs."""
    methods, panels = facts["pieces"]["methods"], facts["pieces"]["panels"]
    explaining = sum(bool(told["explains"]) for told in methods.values())
    return (
        f"{counted(explaining, 'explanation method')} of models without any planted bug "
        f"{'were' if explaining != 1 else 'was'} held against what people marked, in "
        f"{counted(len(panels), 'panel')}: {_listed(list(panels))}."
    )


def warnings(rows: pd.DataFrame, facts: Mapping[str, Any]) -> list[str]:
    """What a reader must know before trusting the page, a sentence each."""
    failed = len(facts.get("failures", ()))
    sentences = [f"{counted(failed, 'record')} failed: see the last but one section."] if failed else []
    wrong = rows[(rows["role"] == NULL) & (rows["verdict"] == "detects")]
    for name, part in wrong.groupby("method", sort=False):
        where = _listed([f"{bug} {level}" for _, bug, level in part[PLACE].itertuples(index=False)])
        sentences.append(f"{name}, which knows no model, detects {where}: there the bug changes what is explained.")
    if facts["suite"].get("seeds", 0) < FEWEST_MODELS:
        sentences.append(f"Fewer than {FEWEST_MODELS} models a side: no intervals, so every verdict is open.")
    if facts.get("unanalysed"):
        sentences.append(f"The analysis is missing: {facts['unanalysed']}")
    if facts.get("undrawn"):
        sentences.append(f"{counted(len(facts['undrawn']), 'figure')} could not be drawn.")
    return sentences


def took(checks: Sequence[Mapping[str, Any]], place: tuple[str, str, str]) -> tuple[int, int]:
    """In how many models of a cell all checks hold, and how many were checked."""
    holds: dict[Any, bool] = {}
    for check in checks:
        if (check["task"], check["bug"], check["level"]) == place:
            holds[check["seed"]] = holds.get(check["seed"], True) and bool(check["holds"])
    return sum(holds.values()), len(holds)


def cell(row: Any) -> str:
    """A row of results in words, for those who cannot see its colour."""
    parts = [str(row.verdict)]
    if row.effect == row.effect:
        parts.append(f"effect {number(row.effect)}")
    if row.ci_low == row.ci_low:
        parts.append(f"95 % interval {number(row.ci_low)} to {number(row.ci_high)}")
    if row.verdict not in OUTCOMES:
        parts.append(f"{counted(row.seeds, 'model')}, {counted(row.n, 'image')}")
    return "; ".join([", ".join(parts), *([row.reason] if row.reason else [])])


ORDINALS = ("first", "second", "third")


def gallery_caption(kind: str, truth: str, roles: Sequence[str]) -> str:
    """What to look for in a gallery whose columns are roles, by the kind of the bug's primary metric."""
    column = dict(zip(roles, ORDINALS, strict=False))
    buggy, control, clean = (column.get(role) for role in ("contaminated", "control", "reference"))
    if buggy is None or control is None:
        return "a method that sees the bug has other maps with it than without it."
    if kind == "alignment":
        where = f"on the {truth}" if truth else "where the bug is"
        return f"a method that sees the bug puts more of its map {where} in the {buggy} column than in the {control}."
    if kind == "similarity" and clean is not None:
        return f"a method that sees the bug changes more from the {clean} column to the {buggy} than to the {control}."
    return f"a method that sees the bug has other maps in the {buggy} column than in the {control}."


def number(value: float, digits: int = 2) -> str:
    """A number as tables show it: .98, 1.00, −.22; nothing where there is none."""
    if math.isnan(value):
        return ""
    text = f"{abs(value):.{digits}f}"
    sign = "−" if value < 0 and float(text) else ""
    return sign + (text[1:] if text.startswith("0.") else text)


def _taken(checks: Sequence[Mapping[str, Any]], everything: Sequence[tuple[str, str, str]]) -> str:
    counts = {place: took(checks, place) for place in everything}
    checked = {place: count for place, count in counts.items() if count[1]}
    short = [f"{bug} {level} ({held} of {of})" for (_, bug, level), (held, of) in checked.items() if held < of]
    if not checked:
        return "No bug was checked."
    if short:
        return f"The bug did not take in all models of {_listed(short)}; elsewhere every model has its bug."
    return "Every contaminated model has its bug, as its checks confirm."


def _best(explained: pd.DataFrame) -> list[str]:
    """Who detects most, and who nothing."""
    if explained.empty:
        return []
    columns = len(explained[PLACE].drop_duplicates())
    detected = (explained["verdict"] == "detects").groupby(explained["method"], sort=False).sum()
    most = int(detected.max())
    if not most:
        return ["No explanation detects any bug for certain."]
    best, none = detected.index[detected == most].tolist(), detected.index[detected == 0].tolist()
    sentences = [f"Most is detected by {_listed(best)}: {most} of {columns} {'column' if columns == 1 else 'columns'}."]
    return sentences + ([f"Nothing is detected for certain by {_listed(none)}."] if none else [])


def _honest(rows: pd.DataFrame) -> list[str]:
    """What rows say that explain nothing."""
    null = rows[rows["role"] == NULL]
    sentences = []
    if len(null) and not (null["verdict"] == "detects").any():
        names = " and ".join(dict.fromkeys(null["method"]))
        sentences.append(f"What knows nothing of the model ({names}) detects nothing, as it must be.")
    for name, bare in rows[(rows["role"] == BARE) & (rows["label"] == rows["method"])].groupby("method", sort=False):
        seen = bare[bare["verdict"] == "detects"]
        sure = int(seen["constructed"].sum())
        sentence = f"Bare {name}, without any explanation, detect {len(seen)} of {len(bare)}"
        why = f", {'' if sure == len(seen) else f'{sure} of them '}by construction: the bug was confirmed on them"
        sentences.append(f"{sentence}{why if sure else ''}.")
    return sentences


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _listed(names: Sequence[str]) -> str:
    """a, b and c; of many the first ones."""
    kept = list(names[:MOST_NAMED])
    rest = len(names) - len(kept)
    if rest:
        return f"{', '.join(kept)} and {rest} more"
    return " and ".join([", ".join(kept[:-1]), kept[-1]] if len(kept) > 1 else kept)
