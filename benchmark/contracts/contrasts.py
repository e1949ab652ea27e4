"""A contrast: one contaminated model with all it is compared with, and the checks that tell whether the bug took."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from attribug.contracts.data import Examples
from attribug.contracts.models import ModelSpec, trainings

TEST_SETS, HELD_OUT = ("biased", "decorrelated", "swapped", "clean"), ("biased", "balanced")
"""Names of what `Contrast.tests` and `Contrast.held_out` hold."""
Target = Literal["label", "reference", "own"]
TRUTHS = ("background", "object", "annotated")
"""What `Contrast.truth` may be."""


@dataclass(frozen=True)
class Side:
    """One explained situation: a model and the examples it sees."""

    model: ModelSpec
    examples: Examples
    """What the model is explained on; all sides of a contrast have the same ids and labels in the same order."""
    draw: int | None = None
    """Which draw it is, of a model that is made of a given one; −1: of none, as the given model itself is."""

    @property
    def seed(self) -> int:
        """Its draw, else the seed of the training at the root, 0 where nothing was trained: the model's name in tables
        of scores."""
        if self.draw is not None:
            return self.draw
        trained = trainings(self.model)
        return trained[0].seed if trained else 0


@dataclass(frozen=True)
class Check:
    """Tells whether a bug took: a mean over models of a statistic on examples, between bounds.

    `accuracy`: share of examples whose label the model predicts, minus the mean of the same of the models `minus`.
    `agreement`: share of examples for which the models predict the same class as the models `minus`.
    `total_variation`: mean over examples and over the models `minus` of ½ Σₖ |pₖ − p'ₖ| between softmax outputs.
    """

    name: str
    """In words; each check of a contrast has its own."""
    models: tuple[ModelSpec, ...]
    """Those that are measured: the contaminated ones."""
    examples: Examples
    """What they are measured on."""
    statistic: Literal["accuracy", "agreement", "total_variation"] = "accuracy"
    minus: tuple[ModelSpec, ...] = ()
    """Those they are measured against; needed but for `accuracy`."""
    at_least: float | None = None
    """Lower bound of the figure; one of the two bounds is needed."""
    at_most: float | None = None
    """Upper bound of the figure."""
    beside: Examples | None = None
    """What the models `minus` see, where that is another version of the examples."""

    def holds(self, figure: float) -> bool:
        """Whether a measured figure lies within the bounds; NaN does not."""
        low = self.at_least is None or figure >= self.at_least
        return low and (self.at_most is None or figure <= self.at_most) and not math.isnan(figure)

    @property
    def bound(self) -> str:
        """The bounds in words: `≥ .95`, `≤ .30`."""
        bounds = {"≥": self.at_least, "≤": self.at_most}
        return " and ".join(f"{sign} {bound:g}" for sign, bound in bounds.items() if bound is not None)


@dataclass(frozen=True)
class Trial:
    """A model, mended or not, and the sets on which it is told whether it is right, and for the right reasons."""

    fix: str
    setting: str
    """What the fix was told, otherwise than by default: `weight=100`; empty: nothing."""
    model: ModelSpec
    sets: Mapping[str, Examples]
    """Test sets by name; further those that are held out: `validation`, which is like training, and `balanced`."""
    truth: Literal["background", "object", "annotated"]
    """What must not matter, as of `Data.truth`."""


@dataclass(frozen=True)
class Contrast:
    """One contaminated model with all it is compared with. Every side's examples carry the same ids in the same order.

    A similarity compares contaminated with reference, and control with reference, for every reference and control that
    are not the same side; an alignment compares contaminated and control with the truth mask. A side's seed tells which
    models belong together when one is left out: seeds that are equal modulo the number of seeds are one unit.
    """

    contaminated: Side
    """The model with the bug, and the examples that it explains."""
    references: tuple[Side, ...]
    """Models without the bug that the contaminated one and the controls are compared with; each meets a control that
    is another side."""
    controls: tuple[Side, ...]
    """Models without the bug, made like the contaminated one in everything else."""
    control: str
    """Name of the control set in tables: clean, other_flips, retrained, perturbed."""
    target: Target
    """Which class is explained: the example's `label`, the class the first `reference` predicts, each model's `own`."""
    truth: Literal["background", "object", "annotated"] | None = None
    """Where relevance is expected under the bug: off or on the examples' masks, or where their annotations say that
    the input must not matter; None: alignment says nothing about this bug."""
    checks: tuple[Check, ...] = ()
    """What must be true of outputs for the bug to have taken; a model of which it is not is left out."""
    draws: tuple[Side, ...] = ()
    """Further draws of the same contamination (they cost no training), averaged with the first."""
    keep: Examples | None = None
    """The explained examples under other labels: only those to which the contaminated model gives these are kept."""
    secondary: Mapping[str, tuple[Side, ...]] = field(default_factory=dict)
    """Further control sets by name: each gives rows of its own, never the headline."""
    extra: Mapping[str, Examples] = field(default_factory=dict)
    """The explained examples in other versions (`background_only`, `swapped_background`, `clean_inputs`), the same ids
    in the same order: metrics that ask for a version read each side's model on it."""
    tests: Mapping[str, Examples] = field(default_factory=dict)
    """Test sets on which a model that learnt a shortcut is told from one that did not: `biased` (as in training),
    `decorrelated` (the shortcut tells nothing), `swapped` (it lies), `clean` (there is none). A bug that offers any can
    be mended: its training examples have `annotations` and `groups`."""
    held_out: Mapping[str, Examples] = field(default_factory=dict)
    """Examples that neither train a model nor test it, for fixes and for the choice of their parameters: `biased`, as
    in training, and `balanced`, in which the shortcut tells nothing."""

    @property
    def contaminated_sides(self) -> tuple[Side, ...]:
        """All draws of the contaminated model."""
        return (self.contaminated, *self.draws)

    @property
    def control_sets(self) -> dict[str, tuple[Side, ...]]:
        """Control sets by name, the main one first."""
        return {self.control: self.controls, **self.secondary}

    @property
    def offers(self) -> frozenset[str]:
        """What metrics may ask of a contrast: `truth`, and the names of its extra versions."""
        return frozenset(self.extra) | ({"truth"} if self.truth is not None else set())

    def seen(self, side: Side, version: str) -> Side:
        """A side's model on another version of the explained examples; `""`: the side itself."""
        return replace(side, examples=self.extra[version]) if version else side

    def took(self, figures: Mapping[str, float] | None) -> bool:
        """Whether the bug took, by the figures of its checks: all hold. None: they were not measured."""
        return figures is not None and not self.failed_checks(figures)

    def failed_checks(self, figures: Mapping[str, float]) -> list[str]:
        """The checks that do not hold, of those that were measured, with figure and bound."""
        return [
            f"{check.name}: {figures[check.name]:.3g}, expected {check.bound}"
            for check in self.checks
            if check.name in figures and not check.holds(figures[check.name])
        ]

    @property
    def sides(self) -> tuple[Side, ...]:
        """Every distinct side."""
        controls = [side for sides in self.control_sets.values() for side in sides]
        return tuple(dict.fromkeys([*self.references, *controls, *self.contaminated_sides]))

    def models(self) -> tuple[ModelSpec, ...]:
        """Every distinct model that sides and checks need."""
        checked = [model for check in self.checks for model in (*check.models, *check.minus)]
        return tuple(dict.fromkeys([*(side.model for side in self.sides), *checked]))
