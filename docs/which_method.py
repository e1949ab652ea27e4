"""which-method.md: which method for which suspicion, from the reference tables that ship.

python docs/which_method.py      # writes it beside this file
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from attribug import methods, metrics
from attribug.reports.references import load_table
from attribug.results.advice import Advice, advice, outputs_tell, ranked
from attribug.results.headline import headline
from attribug.results.narrative import number

PAGE = Path(__file__).with_name("which-method.md")
TABLES = {"quick": "digits", "paper-offline": "photographs"}
SUSPICIONS = {
    "spurious_background": "I suspect that the background gives the class away",
    "label_flips": "I suspect that training labels are wrong",
    "reinit": "I suspect that layers carry the wrong weights",
    "ood": "I suspect that the model meets inputs of another world",
}
ASKED = {
    "spurious_background": "--masks masks --bugs spurious_background",
    "label_flips": "--bugs label_flips",
    "reinit": "--bugs reinit,weight_noise",
    "ood": "--bugs ood --against gcompris:scenes",
}
OWN = "attribug run own --model my_net.py:load --data photos --pixels 64 --mean .5 --std .25"
NOTHING = "–"


def told() -> dict[str, list[Advice]]:
    """What the reference tables tell, by name."""
    return {name: advice(rows(name), load_table(name).results) for name in TABLES}


def rows(name: str) -> pd.DataFrame:
    """A reference's headline; what pieces are, of which references keep little, is asked of the registries."""
    table = load_table(name)
    explaining = {each: methods.get(each) for each in table.results["method"].unique()}
    pieces = {
        "bugs": table.facts["pieces"]["bugs"],
        "methods": {
            each: {"explains": not method.is_yardstick, "bare": method.is_bare, "headline": method.headline}
            for each, method in explaining.items()
        },
        "metrics": {
            each: {"asks_directly": metrics.get(each).asks_directly} for each in table.results["metric"].unique()
        },
    }
    return headline(table.results, table.facts["suite"], pieces)


def page() -> str:
    """The page."""
    everything = told()
    parts = [
        "# Which method for which suspicion",
        "Made by `python docs/which_method.py` from the tables that ship with attribug: `quick` (digits) and "
        "`paper-offline` (photographs, clothing). A method *sees* a bug where the whole 95 % interval of its effect "
        "lies above .6, under the bug's own metric and against its control ([reading.md](reading.md)). Where several "
        "methods may be the best one, there is *no winner*: intervals that overlap tell no difference. What holds on "
        "these data need not hold on yours: each section ends with what to type.",
        summary(everything),
    ]
    for bug, suspicion in SUSPICIONS.items():
        parts += [f"## {suspicion}", *section(bug, everything)]
    return "\n\n".join(parts) + "\n"


def summary(everything: dict[str, list[Advice]]) -> str:
    """A line a suspicion and table, at the bug's strongest level in the table."""
    lines = [
        "| suspicion | data | see it | blind | open | the best | predictions alone |",
        "|---|---|---|---|---|---|---|",
    ]
    for bug, suspicion in SUSPICIONS.items():
        for found in everything.values():
            for each in found:
                if each.bug == bug:
                    lines.append(line(suspicion, each))
    return "\n".join(lines)


def line(suspicion: str, each: Advice) -> str:
    """How many methods see a bug at one level, and whether there is a winner."""
    sign = ", by its sign alone" if each.winner in each.by_sign else ""
    best = (
        f"`{each.winner}`{sign}" if each.winner else f"no winner ({len(each.first)} may be)" if each.sees else NOTHING
    )
    outputs = ", ".join(
        f"{'●' if verdict == 'detects' else '○' if verdict == 'blind' else '?'} {number(effect)}{'*' if sure else ''}"
        for label, verdict, effect, sure in each.outputs if label == "predictions"
    )  # fmt: skip
    place = f"{suspicion.removeprefix('I suspect that ')} | {each.task}, {each.bug} {each.level}"
    counts = " | ".join(str(len(each.groups[group])) for group in ("sees", "blind", "open"))
    return f"| {place} | {counts} | {best} | {outputs} |"


def section(bug: str, everything: dict[str, list[Advice]]) -> list[str]:
    """Of one bug, every table and level: who sees it, who does not, what outputs tell; then what to type."""
    parts = []
    for name, found in everything.items():
        for each in found:
            if each.bug == bug:
                parts += [
                    f"**{each.task}, `{bug}` {each.level}** (`{name}`, {each.units}). {ranked(each)}",
                    groups(each),
                ]
                if outputs := outputs_tell(each):
                    parts.append(" ".join(outputs))
    if bug == "label_flips":
        parts.append(caution(everything["quick"]))
    return [*parts, f"On your own model:\n\n```sh\n{OWN} {ASKED[bug]}\n```"]


def groups(each: Advice) -> str:
    """Every method in its group."""
    seen = ", ".join(f"`{name}` {number(effect)}" for name, effect in each.sees)
    lines = [f"- sees it: {seen or NOTHING}", f"- blind: {listed(each.blind)}"]
    if each.inverted:
        lines.append(f"- the wrong way round: {listed(each.inverted)}")
    lines += [f"- nobody can tell yet, {reason}: {listed(names)}" for reason, names in each.open.items()]
    lines += [f"- {reason}: {listed(names)}" for reason, names in each.absent.items()]
    return "\n".join(lines)


def listed(names: tuple[str, ...]) -> str:
    return ", ".join(f"`{name}`" for name in names) or NOTHING


def caution(found: list[Advice]) -> str:
    """What becomes of flipped labels on digits where the sign of a map is left out."""
    (flips,) = (each for each in found if each.bug == "label_flips")
    results = load_table("quick").results
    rows = results[(results["bug"] == "label_flips") & (results["control"] == "other_flips")]
    ranks = rows[rows["metric"] == "spearman"].set_index(["method", "post"])
    signed, bare = ranks.loc[("deep_taylor", "sum")], ranks.loc[("deep_taylor", "abs_sum")]
    others = tuple(name for name in flips.by_sign if name != "deep_taylor")
    return (
        f"**Is deep_taylor good for wrong labels?** No better than asking the model: by signed maps it "
        f"`{signed['verdict']}` them ({number(signed['effect'])}), by absolute ones it is `{bare['verdict']}` "
        f"({number(bare['effect'])}). Relevance starts from the explained logit and carries its sign, which "
        f"predictions tell already. On digits, so do: {listed(others)}."
    )


if __name__ == "__main__":
    PAGE.write_text(page())
