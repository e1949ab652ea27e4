"""Which method for which suspicion, told from the reference tables that come with attribug.

python docs/which_method.py        # writes which-method.md beside this file: a few seconds, nothing is run
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from attribug.plugins import all_registries
from attribug.reports.references import load_table
from attribug.results import advice
from attribug.results.advice import Advice, Told
from attribug.results.figures import SYMBOLS
from attribug.results.headline import headline
from attribug.results.narrative import number

PAGE = Path(__file__).parent / "which-method.md"
TABLES = {"quick": "on digits", "paper-offline": "on photographs and clothes"}
"""Reference tables, and what their models look at."""
MOST = 6  # methods that a cell names
OWN = "attribug run own --model my_net.py:load --data photos --pixels 64"


class Suspicion(NamedTuple):
    """A section: what somebody suspects, the bug that stands for it, and how a model of one's own is asked."""

    title: str
    bug: str
    ask: tuple[str, ...]
    note: str


SUSPICIONS = (
    Suspicion(
        "I suspect that the background gives it away", "spurious_background",
        (
            f"{OWN} --masks masks --mean .5 --std .25 --tune all --bugs spurious_background",
            f"{OWN} --tune all --bugs decoy_patch",
        ),
        "Objects are cut out by your masks, and copies of your model learn from scenes that name the class. Without "
        "masks, a patch in a corner does the same for a smaller shortcut.",
    ),
    Suspicion(
        "I suspect that labels were wrong", "label_flips",
        (f"{OWN} --tune all --bugs label_flips",),
        "Copies of your model learn flipped labels by heart; a flip that was not learnt is `not taken`.",
    ),
    Suspicion(
        "I suspect that layers lost their weights", "reinit",
        (f"{OWN} --bugs reinit,reinit_bottom",),
        "Nothing is trained: layers of a copy get fresh weights. Levels say how many, counted from the output.",
    ),
    Suspicion(
        "I suspect that the model never learnt such inputs", "ood",
        (f"{OWN} --against torchvision:resnet18 --bugs ood",),
        "Another model, or yours after it learnt other data (`--against PLACE`), explains your images.",
    ),
)  # fmt: skip
HEAD = """# Which method for which suspicion

You suspect something of a model; which explanation would show it, and would you need one? These are the verdicts of the
two largest reference tables: `quick`, a small network on digits, and `paper-offline`, networks trained on ImageNet on
photographs of animals, and a small network on clothes; five models or draws a side. *See it*: the verdict is `detects`.
*Blind*: it is not seen, though there was something to lose. *Open*: nobody can tell yet. The number is the effect, the
probability that maps tell the buggy model from its control; .5 is guessing. [words.md](words.md) has all words.

**There is seldom a winner.** A method is called the best only where no other method's interval reaches its own; else
the table says how many may be the best. That is cautious, for methods and beside predictions: a run's own page has the
intervals of the differences, which are narrower, and counts more.
What a method shows on your network may differ, which is why each section ends with what to type.
"""


class Source(NamedTuple):
    """A reference table and what follows from it."""

    name: str
    found: list[Advice]
    rows: pd.DataFrame


def source(name: str) -> Source:
    """A reference table by name."""
    loaded = load_table(name, with_scores=False)
    table, facts = loaded.results, loaded.facts
    rows = headline(table, facts["suite"], _pieces(facts["pieces"]["bugs"], table))
    return Source(name, advice.advise(rows, results=table), rows)


def _pieces(bugs: Mapping[str, Any], table: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """What a run would tell of its pieces: bugs from the reference, the others as they are registered."""
    methods, metrics = (all_registries()[kind] for kind in ("method", "metric"))
    told = {name: methods.get(name) for name in table["method"].unique()}
    return {
        "bugs": dict(bugs),
        "methods": {name: {"bare": each.is_bare, "explains": not each.is_yardstick, "headline": each.headline}
                    for name, each in told.items()},
        "metrics": {name: {"asks_directly": metrics.get(name).asks_directly} for name in table["metric"].unique()},
    }  # fmt: skip


def page() -> str:
    """The whole page."""
    sources = [source(name) for name in TABLES]
    parts = [HEAD, *(_section(suspicion, sources) for suspicion in SUSPICIONS), _elsewhere(), _by_method(sources)]
    return "\n".join([*parts, "`python docs/which_method.py` writes this page from the reference tables.\n"])


def _section(suspicion: Suspicion, sources: Sequence[Source]) -> str:
    summary = all_registries()["bug"].get(suspicion.bug).summary
    lines = [f"## {suspicion.title}\n", f"`{suspicion.bug}`: {summary}\n"]
    found = [(each.name, told) for each in sources for told in each.found if told.bug == suspicion.bug]
    lines += ["| where | see it | blind | open | the best |", "|---|---|---|---|---|"]
    lines += [_line(name, told) for name, told in found]
    lines += ["", "**What predictions tell.**", *_outputs(found), ""]
    lines += [*_cautions(suspicion.title, found), f"**Ask it of your own model.** {suspicion.note}\n", "```sh"]
    return "\n".join([*lines, *suspicion.ask, "```\n"])


def _line(name: str, told: Advice) -> str:
    """One level of one table; what was not taken says so in the place of its numbers."""
    where = f"{_data(told)} ({name})"
    if not told.measured:
        return f"| {where} | {_reasons(told)} | | | |"
    opened = [f"{reason}: {_names(labels)}" for reason, labels in told.opened]
    opened += [f"{each.verdict} ({each.reason}): {_names(each.labels)}" for each in told.absent]
    inverted = [f"the wrong way round: {_names([each.label for each in told.inverted])}"] if told.inverted else []
    blind = [_counted(told.blind)] if told.blind else [] if inverted else ["none"]
    cells = [where, _counted(told.sees), "; ".join([*blind, *inverted]), "; ".join(opened) or "none"]
    return f"| {' | '.join([*cells, advice.first_place(told)])} |"


def _data(told: Advice) -> str:
    return f"{told.task}, level {told.level}"


def _reasons(told: Advice) -> str:
    return "; ".join(dict.fromkeys(f"{each.verdict}: {each.reason}" for each in told.absent))


def _counted(told: Sequence[Told]) -> str:
    shown = [f"{each.label} {number(each.effect)}" for each in told]
    return f"{len(told)}: {_names(shown)}" if told else "none"


def _names(labels: Sequence[str]) -> str:
    rest = len(labels) - MOST
    return ", ".join(labels) if rest <= 1 else f"{', '.join(labels[:MOST])} and {rest} more"


def _outputs(found: Iterable[tuple[str, Advice]]) -> list[str]:
    """What predictions alone tell: levels of one table that say the same in a line."""
    said: dict[str, list[str]] = {}
    for name, told in found:
        if told.measured:
            said.setdefault(" ".join(advice.outputs_said(told)) or "They were not asked.", []).append(
                f"{_data(told)} ({name})"
            )
    return [f"- {'; '.join(places)}: {text}" for text, places in said.items()]


def _cautions(title: str, found: Sequence[tuple[str, Advice]]) -> list[str]:
    """What to know of methods that see the bug by their signs alone, and of yardsticks that see it."""
    lines = [f"**{_data(told)} ({name}).** {advice.alarm(told)}\n" for name, told in found if told.alarms]
    signs = [(each, told, name) for name, told in found for each in told.by_sign]
    if not signs:
        return lines
    what = title.removeprefix("I suspect that ")
    for method in dict.fromkeys(each.label for each, _, _ in signs):
        effects = [
            f"{number(each.signed)} by signed maps, {number(each.absolute)} by absolute ones on {_data(told)} ({name})"
            for each, told, name in signs
            if each.label == method
        ]
        enough = all(any(output.enough for output in told.outputs) for each, told, _ in signs if each.label == method)
        lines.append(
            f"**Is `{method}` good where {what}?** Only by the sign: {'; '.join(effects)}. Its maps start from the "
            "logit and carry its sign; absolute ones are blind, so that sign is what it sees"
            f"{', and predictions tell as much' if enough else ''}.\n"
        )
    return lines


def _elsewhere() -> str:
    """Bugs that the two tables do not hold."""
    bugs = all_registries()["bug"]
    told = {suspicion.bug for suspicion in SUSPICIONS}
    rows = [f"| `{name}` | {bugs.get(name).summary} |" for name in sorted(bugs.declared()) if name not in told]
    lines = [
        "## I suspect something else\n",
        "There are bugs that the two tables do not hold; a run asks about each.\n",
    ]
    asked = [
        "```sh",
        f"{OWN} --mean .5 --std .25 --bugs weight_noise,batchnorm_mode,preprocessing",
        "attribug run standard --dry-run",
        "```",
    ]
    return "\n".join([*lines, "| bug | what is wrong |", "|---|---|", *rows, "", *asked, ""])


def _by_method(sources: Sequence[Source]) -> str:
    """Every method's verdicts in one table."""
    lines = ["## Every method\n", "".join(f"{symbol} {name}  " for name, symbol in SYMBOLS.items()).strip() + "\n"]
    for each in sources:
        explained = each.rows[~each.rows["honest"]]
        places = list(dict.fromkeys((row.task, row.bug, row.level) for row in explained.itertuples()))
        cells = {(row.label, row.task, row.bug, row.level): row for row in explained.itertuples()}
        lines += [f"`{each.name}`, {TABLES[each.name]}:\n"]
        lines += ["| method | " + " | ".join(f"{bug} {level}<br>{task}" for task, bug, level in places) + " |"]
        lines += ["|---" * (len(places) + 1) + "|"]
        for label in dict.fromkeys(explained["label"]):
            shown = [_cell(cells.get((label, *place))) for place in places]
            lines.append(f"| `{label}` | " + " | ".join(shown) + " |")
        lines.append("")
    return "\n".join(lines)


def _cell(row: Any) -> str:
    return "" if row is None else f"{SYMBOLS[row.verdict]} {number(row.effect)}".strip()


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
