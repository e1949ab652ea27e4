"""Figures of a run as SVG: matrix of verdicts, effects with intervals, effect against level."""

from __future__ import annotations

import io
import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import product
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pandas as pd

from attribug.results.figures import SYMBOLS
from attribug.results.headline import PLACE, Pieces, headline
from attribug.results.narrative import number
from attribug.results.schema import PERTURBED, level_order

COLOURS = {
    "detects": "#0072B2", "blind": "#D55E00", "inverted": "#CC79A7", "inconclusive": "#7F7F7F",
    "not taken": "#7F7F7F", "unsupported": "#7F7F7F", "failed": "#7F7F7F",
}  # fmt: skip
"""Of Okabe and Ito, which the colour-blind can tell apart; symbols say the same."""
MARKERS = {"detects": ("o", True), "blind": ("o", False), "inverted": ("s", True), "inconclusive": ("D", False)}
"""Shape, and whether it is filled."""
INK, GRID, PAPER = "#333333", "#DDDDDD", "#FFFFFF"
"""Colours that a page may replace by its own."""
UNDECIDABLE = (0.4, 0.6)
"""Effects between which a method is blind."""
STYLE = {
    "svg.hashsalt": "attribug", "svg.fonttype": "none", "text.parse_math": False, "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9, "axes.titlesize": 9,
    "axes.linewidth": 0.6, "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "figure.facecolor": PAPER, "axes.facecolor": PAPER,
}  # fmt: skip
SWEEP_LINES = (
    ("biased", "accuracy", "accuracy, biased"), ("decorrelated", "accuracy", "accuracy, decorrelated"),
    ("decorrelated", "worst_group", "worst group, decorrelated"), ("biased", "mask_share", "gradient on the shortcut"),
)  # fmt: skip
SWEEP_COLOURS = ("#7F7F7F", "#0072B2", "#009E73", "#D55E00")
CASCADE_COLOURS = {"ssim": "#0072B2", "spearman": "#D55E00"}
CASCADE_LINES = {"ours": ("-", 1.2), "control": ("--", 0.8), "floor": (":", 0.8)}
"""Dashes and width."""
POINTS = "osD^vPX*<>"
"""Shapes that tell models apart."""
LONGEST = 28  # letters of a name
ROW = 0.2  # inches
SVG = "{http://www.w3.org/2000/svg}"
HREF = "{http://www.w3.org/1999/xlink}href"


def drawings(results: pd.DataFrame, suite: Mapping[str, Any], pieces: Pieces) -> dict[str, Callable[[], str]]:
    """What a run draws, by file name: functions that return SVG. Raises as `headline`."""
    rows = headline(results, suite, pieces)
    drawn: dict[str, Callable[[], str]] = {}
    for task, part in rows.groupby("task", sort=False):
        drawn[f"verdict_matrix_{task}.svg"] = partial(verdict_matrix, part)
    for place, part in rows.groupby(PLACE, sort=False):
        drawn["_".join(("effects", *map(str, place))) + ".svg"] = partial(effects, part)
    for pair, part in rows.groupby(["task", "bug"], sort=False):
        if pieces["bugs"][str(pair[1])]["graded"] and part["level"].nunique() > 1:
            drawn["_".join(("curve", *map(str, pair))) + ".svg"] = partial(curve, part)
    return drawn


def verdict_matrix(rows: pd.DataFrame) -> str:
    """Methods × bugs of one task, rows of `headline`: colour, symbol and effect."""
    columns = list(dict.fromkeys(rows[PLACE].itertuples(index=False, name=None)))
    labels = _labels(rows)
    cells = {(row.label, row.task, row.bug, row.level): row for row in rows.itertuples()}
    apart = set(rows.loc[rows["honest"], "label"])
    heights = [y + (0.5 if label in apart else 0.0) for y, label in enumerate(labels)]
    left, top, wide, tall = 2.3, 0.75, 0.95, len(labels) + 0.5

    def draw(figure: Any) -> None:
        axes = _axes(figure, left, 0.1, top, 0.1)
        axes.set(xlim=(0, len(columns)), ylim=(tall, 0))
        for (y, label), (x, place) in product(zip(heights, labels, strict=True), enumerate(columns)):
            row = cells.get((label, *place))
            if row is not None:
                axes.add_patch(_rectangle((x + 0.03, y + 0.06), 0.94, 0.88, COLOURS[str(row.verdict)]))
                axes.text(x + 0.5, y + 0.5, _cell(row), ha="center", va="center")
        axes.set_yticks([y + 0.5 for y in heights], [shown(label) for label in labels])
        names = [_wrapped(f"{shown(bug)} {shown(level)}") for _, bug, level in columns]
        axes.set_xticks(np.arange(len(columns)) + 0.5, names)
        axes.xaxis.tick_top()
        _bare(axes)

    return _drawn(left + wide * len(columns) + 0.1, top + ROW * tall + 0.1, draw)


def effects(rows: pd.DataFrame) -> str:
    """Effects of one bug and level with intervals, rows of `headline`: highest first; what explains nothing apart."""
    explained, honest = (_by_effect(rows[rows["honest"] == flag]) for flag in (False, True))
    ordered = pd.concat([explained, honest])
    gap = 1.6 if len(explained) and len(honest) else 0.0
    heights = np.arange(len(ordered)) + np.where(ordered["honest"], gap, 0.0)
    left, wide, right, top, bottom = 2.2, 2.4, 0.95, 0.35, 0.45
    facts = rows.iloc[0]

    def draw(figure: Any) -> None:
        axes = _axes(figure, left, right, top, bottom)
        axes.set(xlim=(-0.01, 1.01), ylim=(len(ordered) + gap - 0.4, -0.6), xlabel="effect: .5 = guessing, 1 = always")
        given = ", this model" if facts.get("control") == PERTURBED else ""
        axes.set_title(shown(f"{facts['task']}: {facts['bug']}, level {facts['level']}{given}", 60), pad=5)
        _yardsticks(axes, vertical=True)
        for y, row in zip(heights, ordered.itertuples(), strict=True):
            _point(axes, row, y, upright=False)
            outcome = _cell(row) if math.isfinite(float(row.effect)) else f"{SYMBOLS[str(row.verdict)]} {row.verdict}"  # type: ignore[arg-type]
            axes.text(1.03, y, outcome, va="center")
        if gap:
            above = len(explained) + gap - 1
            axes.text(-0.03, above, "no explanation at all:", ha="right", va="center", style="italic")
        axes.set_yticks(heights, [shown(label) for label in ordered["label"]])
        axes.set_xticks(np.linspace(0, 1, 6))
        _bare(axes, "bottom")

    return _drawn(left + wide + right, top + ROW * (len(ordered) + gap) + bottom, draw)


def curve(rows: pd.DataFrame, across: int = 5) -> str:
    """Effect against level of one bug, rows of `headline`: a panel a method, all others in grey."""
    levels = sorted(set(rows["level"]), key=level_order)
    labels = _labels(rows)
    lines = {label: _line(rows[rows["label"] == label], levels) for label in labels}
    explained = set(rows.loc[~rows["honest"], "label"])
    grey = [effect for label, line in lines.items() if label in explained for effect in (*line, math.nan)]  # one path
    steps = [*range(len(levels) + 1)] * len(explained)
    across = min(across, len(labels))
    down = -(-len(labels) // across)
    width, height = 0.55 + 1.5 * across, 0.2 + 1.32 * down + 0.25

    def draw(figure: Any) -> None:
        for panel, label in enumerate(labels):
            line, column = divmod(panel, across)
            place = ((0.5 + 1.5 * column) / width, 1 - (1.32 * line + 1.25) / height, 1.35 / width, 0.95 / height)
            axes = figure.add_axes(place)
            axes.set(xlim=(-0.4, len(levels) - 0.6), ylim=(-0.03, 1.03))
            _yardsticks(axes, vertical=False)
            axes.plot(steps, grey, color=GRID, linewidth=0.6, zorder=1)
            axes.plot(range(len(levels)), lines[label], color=INK, linewidth=1.0, zorder=2)
            for row in rows[rows["label"] == label].itertuples():
                _point(axes, row, levels.index(str(row.level)), upright=True)
            axes.set_title(shown(label, 23), fontsize=7, pad=3, loc="left")
            axes.set_xticks(range(len(levels)), [shown(level, 8) for level in levels], fontsize=7)
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"] if column == 0 else ["", "", ""], fontsize=7)
            _bare(axes, "bottom", "left")
        figure.text(0.5 / width, 0.06 / height, "level, from weak to strong; grey: all explanations", fontsize=8)

    return _drawn(width, height, draw)


def sweep(rows: pd.DataFrame, parameter: str) -> str:
    """What a fix reaches against its parameter, rows of `mending.swept`: means with intervals; zero stands apart."""
    positive = sorted({value for value in rows["value"] if value > 0})
    places = {value: math.log10(value) for value in positive}
    if positive:
        places[0.0] = math.log10(positive[0]) - 1

    def draw(figure: Any) -> None:
        axes = _axes(figure, 0.5, 1.9, 0.1, 0.5)
        for (test_set, statistic, words), colour, marker in zip(SWEEP_LINES, SWEEP_COLOURS, "osD^", strict=True):
            line = rows[(rows["test_set"] == test_set) & (rows["statistic"] == statistic)]
            at = [places[value] for value in line["value"]]
            axes.plot(at, line["mean"], marker=marker, markersize=4, linewidth=1.0, color=colour, label=words)
            known = line["low"].notna()
            axes.vlines(np.asarray(at)[known], line["low"][known], line["high"][known], color=colour, linewidth=1.0)
        axes.set(ylim=(-0.03, 1.03), xlabel=shown(parameter))
        axes.set_xticks([places[value] for value in sorted(places) if value in set(rows["value"])],
                        [f"{value:g}" for value in sorted(places) if value in set(rows["value"])])  # fmt: skip
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8)
        _bare(axes, "bottom", "left")

    return _drawn(6.6, 2.4, draw)


def cascade(rows: pd.DataFrame, names: Mapping[str, str], across: int = 6) -> str:
    """Similarity to the trained model's maps against re-initialised layers, rows of `paper.similarities`: a panel a
    method; names: of the panels, by method. SSIM and rank correlation, each with control and floor."""
    methods = list(dict.fromkeys(rows["method"]))
    levels = sorted(set(rows["level"]), key=level_order)
    across = min(across, len(methods))
    down = -(-len(methods) // across)
    width, height = 0.55 + 1.5 * across, 0.25 + 1.32 * down + 0.45
    lowest = min(0.0, float(rows[list(CASCADE_LINES)].min().min()))

    def draw(figure: Any) -> None:
        for panel, method in enumerate(methods):
            line, column = divmod(panel, across)
            place = ((0.5 + 1.5 * column) / width, 1 - (1.32 * line + 1.25) / height, 1.35 / width, 0.95 / height)
            axes = figure.add_axes(place)
            axes.set(xlim=(-0.4, len(levels) - 0.6), ylim=(min(lowest, 0) - 0.03, 1.03))
            axes.axhline(0, color=GRID, linewidth=0.6, zorder=0)
            for quantity, colour in CASCADE_COLOURS.items():
                own = rows[(rows["method"] == method) & (rows["quantity"] == quantity)]
                at = [levels.index(level) for level in own["level"]]
                for name, (dashes, thick) in CASCADE_LINES.items():
                    axes.plot(at, own[name], dashes, color=colour, linewidth=thick, clip_on=False)
                axes.plot(at, own["ours"], "o", color=colour, markersize=2.5, clip_on=False)
            axes.set_title(shown(names[method], 23), fontsize=7, pad=3, loc="left")
            every = max(1, -(-len(levels) // 6))
            axes.set_xticks(range(0, len(levels), every), [shown(level, 5) for level in levels[::every]], fontsize=7)
            axes.set_yticks([0, 0.5, 1], ["0", ".5", "1"] if column == 0 else ["", "", ""], fontsize=7)
            _bare(axes, "bottom", "left")
        _cascade_key(figure, width, height)

    return _drawn(width, height, draw)


def _cascade_key(figure: Any, width: float, height: float) -> None:
    """What colours and dashes mean, below the panels."""
    from matplotlib.lines import Line2D

    said = {"ssim": "SSIM", "spearman": "rank correlation"}
    meant = {"ours": "re-initialised", "control": "control", "floor": "unrelated maps (floor)"}
    keys = [Line2D([], [], color=colour, linewidth=1.2, label=said[name]) for name, colour in CASCADE_COLOURS.items()]
    keys += [Line2D([], [], color=INK, linestyle=CASCADE_LINES[name][0], linewidth=1.0, label=words)
             for name, words in meant.items()]  # fmt: skip
    layout = {"ncols": 5, "frameon": False, "fontsize": 7, "columnspacing": 1.2, "handlelength": 1.8}
    figure.legend(handles=keys, loc="lower left", bbox_to_anchor=(0.45 / width, 0.0), **layout)
    figure.text(0.5 / width, 0.24 / height, "layers re-initialised, from the top", fontsize=7)


def alignment_scatter(rows: pd.DataFrame, metrics: Sequence[str]) -> str:
    """Accuracy against alignment, rows of `alignment.table` of one panel, mask and method: a panel a metric, a point a
    model and data with its intervals; a dashed line where random maps lie, names at the right."""
    place = ["accuracy", "model", "data"]
    points = rows.drop_duplicates(place).sort_values(place)
    names = points["model"] + (", " + points["data"] if rows["data"].nunique() > 1 else "")
    shapes = {each[1:]: POINTS[at % len(POINTS)] for at, each in enumerate(points[place].itertuples(index=False))}
    wide, left, gap, right = 2.6, 0.45, 0.2, 1.7
    width, height = left + (wide + gap) * len(metrics) + right, 2.7

    def draw(figure: Any) -> None:
        for panel, metric in enumerate(metrics):
            start = left + (wide + gap) * panel
            axes = _axes(figure, start, width - start - wide, 0.1, 0.45)
            axes.set(xlim=(-0.02, 1.02), ylim=(-0.03, 1.05), xlabel=shown(metric))
            axes.set_yticks(np.linspace(0, 1, 6), None if panel == 0 else [""] * 6)
            part = rows[rows["metric"] == metric]
            axes.axvline(float(part["random"].mean()), color=INK, linewidth=0.7, linestyle="--", zorder=0)
            for row in part.itertuples():
                line = {"color": "#0072B2", "linewidth": 0.9, "zorder": 1}
                axes.hlines([row.accuracy], [row.ci_low], [row.ci_high], **line)
                axes.vlines([row.value], [row.accuracy_low], [row.accuracy_high], **line)
                axes.plot(row.value, row.accuracy, shapes[row.model, row.data], color="#0072B2", markersize=5)
            axes.set_ylabel("accuracy" if panel == 0 else "")
            _bare(axes, "bottom", "left")
        heights = _spaced(points["accuracy"])
        for height, name, shape in zip(heights, names, shapes.values(), strict=True):  # right of the last panel
            axes.plot(1.1, height, shape, color="#0072B2", markersize=5, clip_on=False)
            axes.text(1.15, height, shown(str(name)), va="center", fontsize=8)

    return _drawn(width, height, draw)


def _spaced(heights: Iterable[float], apart: float = 0.065) -> list[float]:
    """Heights of labels for ascending points, none too near to the one below, and all of them within the axes."""
    spaced: list[float] = []
    for height in heights:
        spaced.append(max(height, spaced[-1] + apart) if spaced else height)
    top = 1.05 - apart
    for at in range(len(spaced) - 1, -1, -1):
        spaced[at] = min(spaced[at], top)
        top = spaced[at] - apart
    return spaced


def embedded(svg: str, prefix: str) -> str:
    """SVG that can stand inside a page: no prologue, metadata or style; only identifiers in use, under a prefix."""
    ElementTree.register_namespace("", SVG[1:-1])
    ElementTree.register_namespace("xlink", HREF[1 : HREF.index("}")])
    root = ElementTree.fromstring(svg)
    for parent in list(root.iter()):
        for stale in [child for child in parent if child.tag in {f"{SVG}metadata", f"{SVG}style"}]:
            parent.remove(stale)
    elements = list(root.iter())
    used = {
        name
        for element in elements
        for key, value in element.attrib.items()
        for name in ([value[1:]] if key == HREF else re.findall(r"url\(#([^)]+)\)", value))
    }
    for element in elements:
        element.tail = None
        if element.attrib.get("id") in used:
            element.set("id", prefix + element.attrib["id"])
        else:
            element.attrib.pop("id", None)
        for key, value in element.attrib.items():
            if key == HREF:
                element.set(key, f"#{prefix}{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{prefix}"))
    root.attrib.update({"role": "img", "aria-hidden": "true"})
    return ElementTree.tostring(root, encoding="unicode")


def shown(name: str, longest: int = LONGEST) -> str:
    """A name as figures show it: every letter printable, and not too many of them."""
    text = "".join(letter if letter.isprintable() else "�" for letter in name)
    return text if len(text) <= longest else text[: longest - 1] + "…"


def _drawn(width: float, height: float, draw: Callable[[Any], None]) -> str:
    """What `draw` puts on a figure of this size (inches), as SVG."""
    from matplotlib import style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with style.context(["default", STYLE]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")  # whoever shows the text has fonts of his own
        figure = Figure(figsize=(width, height))
        FigureCanvasSVG(figure)
        draw(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": "attribug"})
    return buffer.getvalue()


def _axes(figure: Any, left: float, right: float, top: float, bottom: float) -> Any:
    """Axes with margins in inches."""
    width, height = figure.get_size_inches()
    across, up = 1 - (left + right) / width, 1 - (top + bottom) / height
    return figure.add_axes((left / width, bottom / height, across, up))


def _bare(axes: Any, *kept: str) -> None:
    axes.tick_params(length=0)
    for side, spine in axes.spines.items():
        spine.set_visible(side in kept)


def _yardsticks(axes: Any, *, vertical: bool) -> None:
    """The band of blind effects, and guessing."""
    (axes.axvspan if vertical else axes.axhspan)(*UNDECIDABLE, color=GRID, alpha=0.6, linewidth=0, zorder=0)
    (axes.axvline if vertical else axes.axhline)(0.5, color=INK, linewidth=0.7, zorder=1.5)


def _point(axes: Any, row: Any, place: float, *, upright: bool) -> None:
    """An effect with its interval."""
    if not math.isfinite(row.effect):
        return
    colour, (shape, filled) = COLOURS[row.verdict], MARKERS.get(row.verdict, ("x", True))
    turn = slice(None, None, -1 if upright else 1)
    if math.isfinite(row.ci_low):
        ends = [[row.ci_low, row.ci_high], [place] * 2]
        axes.plot(*ends[turn], color=colour, linewidth=1.4, clip_on=False, zorder=3)
    axes.plot(
        *([row.effect], [place])[turn], shape, color=colour, markersize=4 if upright else 5,
        markerfacecolor=colour if filled else PAPER, clip_on=False, zorder=4,
    )  # fmt: skip


def _rectangle(corner: tuple[float, float], width: float, height: float, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle(corner, width, height, facecolor=colour, alpha=0.25, linewidth=0)


def _cell(row: Any) -> str:
    return f"{SYMBOLS[row.verdict]} {number(float(row.effect))}{'*' if row.constructed else ''}".strip()


def _labels(rows: pd.DataFrame) -> list[str]:
    """Labels of `headline`'s rows, what explains nothing last."""
    return list(dict.fromkeys(rows.sort_values("honest", kind="stable")["label"]))


def _by_effect(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values("effect", ascending=False, na_position="last", kind="stable")


def _line(rows: pd.DataFrame, levels: list[str]) -> list[float]:
    """A method's effects at all levels, NaN where there is none."""
    return [float(effect) for effect in rows.set_index("level")["effect"].reindex(levels)]


def _wrapped(text: str, width: int = 13) -> str:
    """A name on several lines, broken after `_` and spaces."""
    lines = [""]
    for part in re.findall(r"[^_ ]*[_ ]?", text):
        if lines[-1] and len(lines[-1]) + len(part) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.strip() for line in lines)
