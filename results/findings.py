"""Published findings as statements, and what our tables say of each on each task: supported, contradicted or open.

Findings are those of Adebayo et al. 2020. A test is a region that a mean must lie in; a finding is supported where the
whole 95 % interval lies within, contradicted where it lies wholly outside, and undecided otherwise.

The mean is over rows of results.csv: methods, and levels where there are several. They rest on the same models and
images, so their errors are correlated in ways that the table does not tell. The standard deviation of a mean is at most
the mean of standard deviations, whatever the correlation; so the interval is the mean of the rows' estimates ± the mean
of their half-widths. It is conservative: of independent rows it would be narrower by the root of their number.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.special import stdtrit

from attribug.results.published import LIKEST, PAPER_METHODS, main
from attribug.results.schema import OUTCOMES, is_mended, level_order
from attribug.results.statistics import CONFIDENCE, DETECTS, FEWEST_MODELS, UNDEFINED

FINDING_COLUMNS = (
    "finding", "statement", "source", "test", "task", "methods", "estimate", "ci_low", "ci_high", "agrees", "evidence",
)  # fmt: skip
YES, NO, UNDECIDED, ABSENT = "yes", "no", "undecided", "not measured"
SYMBOLS = {YES: "✓", NO: "✗", UNDECIDED: "?", **dict.fromkeys((*OUTCOMES, ABSENT), "–")}
UNRELATED = 0.1
"""A rank correlation nearer to 0 is called none: the metric's visible difference."""
BLIND = DETECTS - 0.5
"""An effect nearer to one half tells nothing."""
NEVER_SET_UP = "-"
"""Control of a bug that could not be set up."""
MUTE = ("no headroom", "undefined")
"""Begins the reason of rows whose effect says nothing for itself."""

MODIFIED_BACKPROP = (
    "guided_backprop", "deconvnet", "deep_taylor", "pattern_net", "pattern_attribution", "lrp_spaf",
)  # fmt: skip
SIGNED_GRADIENTS = ("gradient", "smoothgrad", "input_x_gradient", "integrated_gradients", "expected_gradients")
SQUARED = ("smoothgrad_squared", "vargrad")
GRADIENTS = (*SIGNED_GRADIENTS, *SQUARED)
RELATED = (*SQUARED, "guided_backprop", "pattern_net")
TOP_LAYERS = ("1", "2", "3")
PRIMARY = ("primary",)
"""Stands for a bug's own `metric@post`."""
SSIM = tuple(name for name in LIKEST["ssim"] if not name.startswith("ssim_range2"))

Floats = npt.NDArray[np.float64]
Measure = Callable[[pd.DataFrame], tuple[Floats, Floats]]
"""Of rows of results, estimates and half-widths of their 95 % intervals."""


def effects(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Effects; of an interval that ends at 0 or 1 the longer side, none where a row's effect says nothing."""
    effect, low, high = (rows[name].to_numpy(float) for name in ("effect", "ci_low", "ci_high"))
    half: Floats = np.where(rows["reason"].str.startswith(MUTE), math.nan, np.maximum(high - effect, effect - low))
    return effect, half


def effects_from_chance(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Distances of effects from one half, so that those on either side do not make up for each other."""
    effect, half = effects(rows)
    return np.abs(effect - 0.5), half


def effects_above_chance(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Effects, those below one half as one half: telling the wrong way round does not make up for a detection."""
    return effects(rows.assign(**{name: rows[name].clip(lower=0.5) for name in ("effect", "ci_low", "ci_high")}))


def values(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Values, with t intervals over models; none of few models, or where too many scores are undefined."""
    models = rows["seeds"].to_numpy(float)
    quantile = stdtrit(np.maximum(models - 1, 1), (1 + CONFIDENCE) / 2)
    open_ = (models < FEWEST_MODELS) | (rows["undefined"].to_numpy(float) > UNDEFINED)
    return rows["value"].to_numpy(float), np.where(open_, math.nan, quantile * rows["sem"].to_numpy(float))


def magnitudes(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Absolute values, so that signs do not make up for each other."""
    value, half = values(rows)
    return np.abs(value), half


def above_floor(rows: pd.DataFrame) -> tuple[Floats, Floats]:
    """Values less those between unrelated maps; the floor's own error is not in the table, and left out."""
    value, half = values(rows)
    return value - rows["floor"].to_numpy(float), half


BOUNDS: dict[Measure, tuple[float, float]] = {
    effects: (0, 1), effects_from_chance: (0, 0.5), effects_above_chance: (0.5, 1), magnitudes: (0, math.inf),
}  # fmt: skip
"""Where an interval is cut off."""


@dataclass(frozen=True)
class Finding:
    """A published conclusion that our tables can support or contradict."""

    name: str
    statement: str
    source: str
    test: str
    """In words."""
    bug: str
    measured_as: tuple[str, ...]
    """`metric@post`, the most alike first, or `PRIMARY`."""
    measure: Measure
    low: float = -math.inf
    high: float = math.inf
    """The region that the mean must lie in."""
    methods: tuple[str, ...] = tuple(PAPER_METHODS)
    levels: tuple[str, ...] = ()
    """None: all."""
    strongest: bool = False
    """Only the strongest level of a task."""
    less: tuple[str, ...] = ()
    """`metric@post` of what is subtracted, of the same cell and method."""

    def judge(self, low: float, high: float) -> str:
        """Of an interval: inside the region, outside, or neither."""
        if math.isnan(low) or math.isnan(high):
            return UNDECIDED
        if self.low < low and high < self.high:
            return YES
        return NO if high < self.low or low > self.high else UNDECIDED


FINDINGS = (
    Finding(
        "spurious background detected",
        "Attributions reveal that a model relies on a spurious background.", "section 3.1, Table 2",
        "mean effect of the bug's own metric above .6", "spurious_background", PRIMARY, effects, low=DETECTS,
        strongest=True,
    ),
    Finding(
        "GT-2 high",
        "Maps of the spurious model agree with the background's own attribution, GT-2 (SSIM .78–.98).", "Table 2",
        "mean gt2_ssim@minmax above .78", "spurious_background", LIKEST["gt2_ssim"], values, low=0.78, strongest=True,
    ),
    Finding(
        "GT-2 above GT-1",
        "Maps agree better with the background's own attribution, GT-2, than with an even background, GT-1.", "Table 2",
        "mean of gt2_ssim − gt1_ssim above 0", "spurious_background", LIKEST["gt2_ssim"], values, low=0.0,
        strongest=True, less=LIKEST["gt1_ssim"],
    ),
    Finding(
        "squared gradients low on GT-1",
        "Maps of squared gradients score low on GT-1: .06–.08 in the paper, where all others score from .44.",
        "Table 2", "mean gt1_ssim@minmax below .44, the lowest published of the others", "spurious_background",
        LIKEST["gt1_ssim"], values, high=0.44, methods=SQUARED, strongest=True,
    ),
    Finding(
        "squared gradients high on GT-2",
        "Maps of squared gradients score high on GT-2: .89–.98 in the paper, where all others score up to .88.",
        "Table 2", "mean gt2_ssim@minmax above .88, the highest published of the others", "spurious_background",
        LIKEST["gt2_ssim"], values, low=0.88, methods=SQUARED, strongest=True,
    ),
    Finding(
        "wrong labels not detected",
        "Attributions of mislabelled training examples do not tell that their labels are wrong.", "section 3.2",
        "mean effect of the bug's own metric below .6, effects below ½ counted as ½", "label_flips", PRIMARY,
        effects_above_chance, high=DETECTS,
    ),
    Finding(
        "mislabelled examples look alike",
        "Maps of a mislabelled example under a model with the right and one with the wrong label look alike (SSIM "
        ".73–.99).", "section 3.2, Figure 6",
        "mean ssim_range2@minmax above .73", "label_flips", LIKEST["ssim"][:1], values, low=0.73,
    ),
    Finding(
        "modified back-propagation invariant to top layers",
        "Maps of modified back-propagation do not change when the top layers are re-initialised.",
        "section 4, Figure 7", "mean distance of effects from ½ below .1, top 1–3 layers", "reinit", PRIMARY,
        effects_from_chance, high=BLIND, methods=MODIFIED_BACKPROP, levels=TOP_LAYERS,
    ),
    Finding(
        "gradients sensitive to top layers",
        "Maps of gradient-type methods change when the top layers are re-initialised.", "section 4, Figure 7",
        "mean effect above .6, top 1–3 layers", "reinit", PRIMARY, effects, low=DETECTS, methods=GRADIENTS,
        levels=TOP_LAYERS,
    ),
    Finding(
        "out-of-domain maps look alike",
        "Maps of a model from another domain are visually as similar to those of the domain's own model as another of "
        "its models' are (SSIM).", "section 5, Table 3",
        "mean distance of effects of ssim from ½ below .1", "ood", SSIM, effects_from_chance, high=BLIND,
    ),
    Finding(
        "out-of-domain maps above unrelated ones",
        "Maps of a model from another domain are visually similar to those of the domain's own model, beyond what "
        "unrelated maps are (SSIM).", "section 5, Table 3",
        "mean of ssim_range2@minmax − floor above .1", "ood", LIKEST["ssim"][:1], above_floor, low=UNRELATED,
    ),
    Finding(
        "out-of-domain ranks unrelated",
        "Ranks of a foreign model's maps are unrelated to those of the domain's own, for signed gradient-type methods.",
        "section 5, Table 3", "mean |spearman@sum| below .1", "ood", LIKEST["spearman"][:1], magnitudes,
        high=UNRELATED, methods=SIGNED_GRADIENTS,
    ),
    Finding(
        "out-of-domain ranks related",
        "Ranks are related for SGradSQ, VGrad, GBP and PNet: .25–.51 in 8 of 12 cells of the paper's table, though its "
        "text sees essentially no correlation.", "Table 3",
        "mean spearman@sum above .1", "ood", LIKEST["spearman"][:1], values, low=UNRELATED, methods=RELATED,
    ),
)  # fmt: skip


def findings(results: pd.DataFrame, primary: Mapping[str, str], controls: Mapping[str, str]) -> pd.DataFrame:
    """Whether our tables agree with each finding on each task, columns `FINDING_COLUMNS`: a row a finding and task.

    `agrees`: yes, no, undecided; where no row speaks to it the first of `OUTCOMES` that its rows have (the bug did not
    take, every method declined or failed), or not measured where it has none; `methods`: how many speak; `evidence`:
    what each says by itself, rows without scores by their outcome. Rows without an interval, of maps that no second
    model repeats (no headroom) or of scores too often undefined are named as undecided and do not count in the mean.

    Args:
        results: a table with `RESULT_COLUMNS`.
        primary: `metric@post` by bug.
        controls: name of the main control by bug.
    """
    met = results[~is_mended(results["bug"])]
    by_bug = {bug: main(met, bug, controls) for bug in {finding.bug for finding in FINDINGS}}
    without = met[met["verdict"].isin(OUTCOMES)]
    without = without[without["control"].isin([NEVER_SET_UP]) | (without["control"] == without["bug"].map(controls))]
    table = []
    for finding in FINDINGS:
        measured_as = (primary.get(finding.bug, ""),) if finding.measured_as == PRIMARY else finding.measured_as
        rows = _rows(by_bug[finding.bug], finding, measured_as)
        lost = _lost(without, rows, finding, measured_as)
        for task in dict.fromkeys(results["task"]):
            told = _judged(finding, rows[rows["task"] == task], lost[lost["task"] == task])
            table.append((finding.name, finding.statement, finding.source, finding.test, task, *told))
    return pd.DataFrame(table, columns=list(FINDING_COLUMNS))


def _rows(rows: pd.DataFrame, finding: Finding, measured_as: tuple[str, ...]) -> pd.DataFrame:
    """The rows that speak to a finding, one a cell and method, with `estimate` and `half`."""
    rows = rows[rows["method"].isin(finding.methods)]
    if finding.levels:
        rows = rows[rows["level"].isin(finding.levels)]
    if finding.strongest and len(rows):
        strongest = rows.groupby("task")["level"].agg(lambda levels: max(levels, key=level_order))
        rows = rows[rows["level"] == rows["task"].map(strongest)]
    spoken = _measured(rows, measured_as, finding.measure)
    if finding.less:
        keys = ["task", "level", "method"]
        both = spoken.merge(_measured(rows, finding.less, finding.measure), on=keys, suffixes=("", "_less"))
        both["estimate"] -= both["estimate_less"]
        both["half"] += both["half_less"]
        return both
    return spoken


def _lost(without: pd.DataFrame, rows: pd.DataFrame, finding: Finding, measured_as: tuple[str, ...]) -> pd.DataFrame:
    """The rows without scores that would have spoken to a finding, one a cell and method that none of `rows` is of."""
    measures = (without["metric"] + "@" + without["post"]).isin((*measured_as, *finding.less))
    lost = without[(without["bug"] == finding.bug) & without["method"].isin(finding.methods) & measures]
    if finding.levels:
        lost = lost[lost["level"].isin(finding.levels)]
    keys = ["task", "level", "method"]
    spoke = pd.MultiIndex.from_frame(lost[keys]).isin(pd.MultiIndex.from_frame(rows[keys]))
    rank = lost["verdict"].map(OUTCOMES.index)
    return lost.assign(rank=rank)[~spoke].sort_values("rank", kind="stable").drop_duplicates(keys).sort_index()


def _measured(rows: pd.DataFrame, measured_as: tuple[str, ...], measure: Measure) -> pd.DataFrame:
    """Those of one measure, the most alike of each cell and method."""
    rank = (rows["metric"] + "@" + rows["post"]).map({name: place for place, name in enumerate(measured_as)})
    rows = rows.assign(rank=rank)[rank.notna()].sort_values("rank", kind="stable")
    rows = rows.drop_duplicates(["task", "level", "method"]).sort_index()
    estimate, half = measure(rows)
    return rows.assign(estimate=estimate, half=half)


def _judged(finding: Finding, rows: pd.DataFrame, lost: pd.DataFrame) -> tuple[int, float, float, float, str, str]:
    """Methods, estimate, interval, whether it agrees, evidence."""
    names = _names(pd.concat([rows, lost]))
    numbers = rows[["estimate", "half"]].to_numpy(float).tolist()
    said = [*(finding.judge(estimate - half, estimate + half) for estimate, half in numbers), *lost["verdict"]]
    named = {
        answer: ", ".join(dict.fromkeys(name for name, each in zip(names, said, strict=True) if each == answer))
        for answer in (YES, NO, UNDECIDED, *OUTCOMES)
    }
    evidence = "; ".join(f"{answer}: {methods}" for answer, methods in named.items() if methods)
    if rows.empty:
        return 0, math.nan, math.nan, math.nan, next((name for name in OUTCOMES if named[name]), ABSENT), evidence
    known = rows[rows["half"].notna() & rows["estimate"].notna()]
    estimate, half = known["estimate"].mean(), known["half"].mean()
    low, high = np.clip([estimate - half, estimate + half], *BOUNDS.get(finding.measure, (-math.inf, math.inf)))
    return known["method"].nunique(), float(estimate), float(low), float(high), finding.judge(low, high), evidence


def _names(rows: pd.DataFrame) -> list[str]:
    """Of each row its method, and level where there are several."""
    told = ["method", "level"] if rows["level"].nunique() > 1 else ["method"]
    return [" ".join(row) for row in rows[told].itertuples(index=False)]
