"""A finished run as its folder tells it: the plugins that made it need not be at hand."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from attribug.errors import InputError
from attribug.plans.plan import level_text
from attribug.results import brief
from attribug.results.alignment import read_alignment
from attribug.results.mending import read_fixes
from attribug.results.summary import matrix
from attribug.storage import locations
from attribug.storage.files import read_json
from attribug.storage.folders import ALIGNMENT, ALIGNMENT_CASES, ANALYSIS, FIXES, RUN, SCORES
from attribug.tables import kept_maps
from attribug.tables.analysis import read_analysis
from attribug.tables.run_json import RENEW

if TYPE_CHECKING:
    from attribug.contracts.tasks import Level
    from attribug.tables.kept_maps import Maps


@dataclass(frozen=True, repr=False, eq=False)
class StoredRun:
    """A finished run and its tables."""

    folder: Path
    """Of the run, or of the copy of what lies at a URL."""
    results: pd.DataFrame
    """One row a task, bug, level, control, method, metric and post."""
    url: str | None = field(default=None, kw_only=True)

    @property
    def name(self) -> str:
        """Where the run lies, as the user calls it."""
        return self.url or str(self.folder)

    @property
    def scores(self) -> pd.DataFrame:
        """One row an example and model triple."""
        return pd.read_parquet(self.folder / SCORES)

    @property
    def headline(self) -> pd.DataFrame:
        """Verdict and effect of each bug's primary metric, one row a task, bug, level and method."""
        pieces = self.facts["pieces"]
        bugs, told = pieces["bugs"], pieces["methods"]
        return matrix(
            self.results,
            {name: bug["primary"] for name, bug in bugs.items()},
            main_control={name: bug["control"] for name, bug in bugs.items()},
            headlines={name: method["headline"] for name, method in told.items() if method["headline"]},
        )

    @property
    def analysis(self) -> dict[str, pd.DataFrame]:
        """What follows from the scores, by name: headline, added, ranking, severity, posts, power (those
        that exist)."""
        return {path.stem: read_analysis(path) for path in sorted((self.folder / ANALYSIS).glob("*.csv"))}

    @property
    def fixes(self) -> pd.DataFrame | None:
        """What fixes reached, one row a model, setting and test set; None where nothing was mended."""
        path = self.folder / FIXES
        return read_fixes(path) if path.is_file() else None

    @property
    def alignment(self) -> pd.DataFrame | None:
        """How far explanations agree with masks, a row a model, data, mask, method and metric; None without panels."""
        path = self.folder / ALIGNMENT
        return read_alignment(path) if path.is_file() else None

    @property
    def cases(self) -> pd.DataFrame | None:
        """How often each of Shared Interest's cases is, one row a model, data, mask, method and case; None likewise."""
        path = self.folder / ALIGNMENT_CASES
        return pd.read_csv(path, keep_default_na=False) if path.is_file() else None

    def maps(
        self,
        method: str,
        bug: str | None = None,
        level: Level | None = None,
        *,
        task: str | None = None,
        side: str = "contaminated",
        seed: int | None = None,
        draw: int = 0,
        version: str = "",
        contrast: int | None = None,
    ) -> Maps:
        """What a method says of one model, as a run with `keep_maps` has kept it, with the examples' ids and classes.

        side: `contaminated`, `reference` or a control's name; seed: of that model; draw: of a contaminated model;
        version: of the inputs; contrast: seed of the contaminated model that it is compared with. What is None may be
        left out where there is one only. Raises `InputError` where there are no such maps, or several.
        """
        asked = {
            "method": method, "task": task, "bug": bug, "level": None if level is None else level_text(level),
            "side": side, "version": version, "seed": seed, "draw": draw, "contrast": contrast,
        }  # fmt: skip
        if self.url is None:
            return kept_maps.find(self.folder, self.name, asked)
        with locations.reading(self.url, "maps") as place:
            return kept_maps.find(place.folder, self.name, asked)

    @property
    def complete(self) -> bool:
        """Whether no record failed or is missing."""
        return not self.facts["failures"]

    @property
    def facts(self) -> dict[str, Any]:
        """What run.json tells: suite, versions, checks, failures. Raises `InputError` where it is gone."""
        facts: dict[str, Any] | None = read_json(self.folder / RUN)
        if facts is None:
            raise InputError(f"{self.folder / RUN}: expected what a run writes, found no such file; {RENEW}")
        return facts

    def __repr__(self) -> str:
        """What the run is and what there is to ask it, in a few lines."""
        try:
            return brief.run_text(self.name, self.facts, self.results, self.alignment)
        except InputError as error:
            return f"attribug run, gone: {error}"

    def _repr_html_(self) -> str | None:
        """The matrix as notebooks show it; of panels alone their table. None where the folder is gone."""
        try:
            return brief.run_html(self.facts, self.results, self.alignment)
        except InputError:
            return None
