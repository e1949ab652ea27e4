"""Which code the key of every kind of artefact covers, and which it never does."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from attribug import api, artefacts, sources
from attribug.contracts.data import Examples
from attribug.tasks import digits

ROOT = Path(__file__).parent.parent
NUMBERLESS = ("running", "storage", "terminal", "reports", "conformance", "studies", "api", "registry", "errors")


def documented() -> dict[str, list[str]]:
    """Modules by kind of artefact, from the table in docs/keys.md."""
    rows = re.findall(r"(?m)^\| ([a-z ]+)[a-z. ,]* \| .* \| (`[^|]*`) \|$", (ROOT / "docs" / "keys.md").read_text())
    return {kind: [f"attribug.{name}" for name in re.findall(r"`([\w.]+)`", names)] for kind, names in rows}


@pytest.mark.parametrize("kind", [kind for kind, roots in artefacts.CODE.items() if roots])
def test_the_documented_table_is_true(kind: str) -> None:
    assert artefacts.modules(kind) == documented()[kind]


@pytest.mark.parametrize("kind", artefacts.CODE)
def test_what_carries_no_numbers_is_in_no_key(kind: str) -> None:
    carriers = tuple(f"attribug.{name}" for name in NUMBERLESS)
    assert not [module for module in artefacts.modules(kind) if module.startswith(carriers)]


def test_a_model_knows_nothing_of_methods_metrics_and_bugs() -> None:
    """A fact of a metric retrains no model."""
    reached = set(artefacts.modules("model")) | set(artefacts.modules("derived model"))
    above = ("contracts.pieces", "contracts.contrasts", "maps", "metrics", "query.query", "scores", "plans", "tables")
    assert not [module for module in reached if module.startswith(tuple(f"attribug.{name}" for name in above))]


KINDS = ("model", "derived model", "check", "record", "kept map", "table")
SCORED = ("record",)
EXPLAINED = ("record", "kept map")
MODELLED = ("check", "record", "kept map")
EDITS: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "the schedule of the learning rate": ("models.training", "AT_START = 10.0", "AT_START = 11.0", ("model",)),
    "the default objective": (
        "contracts.objectives",
        "functional.cross_entropy(",
        "-functional.cross_entropy(",
        ("model",),
    ),
    "how a start is built": ("models.training", "below[0].seed)", "below[0].seed + 1)", ("model", "derived model")),
    "a derived model's stream": ("models.training", '"derive"', '"derived"', ("derived model",)),
    "how given models are loaded": ("models.given", "return model.eval()", "return model", ("model", "derived model")),
    "a worker's threads": (
        "query.settings",
        "set_num_threads(1)\n    if",
        "set_num_threads(2)\n    if",
        ("model", *MODELLED),
    ),
    "rows of a pass": ("models.lab", "ROWS = 64", "ROWS = 32", MODELLED),
    "total variation of a check": ("models.checks", ".mean() / 2", ".mean()", ("check",)),
    "modules that work in place": ("maps.guard", "module.inplace = False", "module.inplace = True", EXPLAINED),
    "whose training data a method gets": ("maps.asked", "lab.training_data(side.model)", "None", EXPLAINED),
    "what the guard restores": ("maps.guard", "global_states_restored(), ", "", EXPLAINED),
    "a preflight": ("query.preflight", "SUMS_TO_ONE = 1e-4", "SUMS_TO_ONE = 1e-3", EXPLAINED),
    "a primitive": ("query.query", "/ samples)", "/ (samples - 1))", EXPLAINED),
    "rounding of kept maps": ("maps.kept", "flat.abs()", "flat", EXPLAINED),
    "a post's smallest scale": (
        "metrics.postprocessing",
        "def postprocess(",
        "@staticmethod\ndef postprocess(",
        SCORED,
    ),
    "the floor": ("scores.measurement", "def _floor(self, ", "def _floor(self, *, ", SCORED),
    "which examples are explained": ("scores.blocks", "return positions[:limit]", "return positions[-limit:]", SCORED),
    "an interval": ("results.statistics", "import numpy as np", "import numpy as np\nimport numpy", ()),
    "rounding of results.csv": ("results.schema", ":.6g}", ":.5g}", ("table",)),
    "the schema's version": ("results.schema", "SCHEMA_VERSION = ", "SCHEMA_VERSION = 100 + ", ("table",)),
    "rounding of costs": ("tables.writing", '"%.6g"', '"%.3g"', ("table",)),
    "what run.json tells": ("tables.run_facts", '"written"', '"wrote"', ("table",)),
    "a figure": ("results.figures", "PERCENTILE = 99.5", "PERCENTILE = 99.0", ("table",)),
    "a fact of metrics": ("contracts.pieces", "reproduction: bool = False", "reproduction: bool = True", ()),
    "the page": ("results.trouble_page", "IMBALANCE = 0.05", "IMBALANCE = 0.06", ()),
    "a progress bar": ("terminal.progress", "STEPS = 10", "STEPS = 11", ()),
    "a lock": ("storage.models", "SECONDS_TO_WRITE = 3600.0", "SECONDS_TO_WRITE = 60.0", ()),
    "a schedule": ("running.schedule", "future.result()", "future.result(1)", ()),
    "a message": ("errors", "LONGEST_REASON = 500", "LONGEST_REASON = 400", ()),
}
"""Module, what stands there, what is written instead; kinds of artefacts whose keys must change, and no others."""


@pytest.fixture
def edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, str, str], None]]:
    """Puts an edited copy in the place of a module's source, for keys."""
    source, instead = sources._path, dict[str, Path]()
    monkeypatch.setattr(sources, "_path", lambda module: instead.get(module) or source(module))

    def edit(module: str, old: str, new: str) -> None:
        path = source(f"attribug.{module}")
        assert path is not None
        text = path.read_text()
        assert old in text
        copy = tmp_path / path.name
        copy.write_text(text.replace(old, new, 1))
        instead[f"attribug.{module}"] = copy
        forget()

    yield edit
    monkeypatch.undo()
    forget()


def forget() -> None:
    sources.forget()
    artefacts.code.cache_clear()


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_changes_the_keys_of_what_it_changes(edit: str, edited: Callable[[str, str, str], None]) -> None:
    module, old, new, changes = EDITS[edit]
    before = {kind: artefacts.code(kind) for kind in KINDS}
    edited(module, old, new)
    after = {kind: artefacts.code(kind) for kind in KINDS}
    changed = {kind for kind in KINDS if before[kind] != after[kind]}
    assert changed >= set(changes)
    if not changes:
        assert not changed
    if not {"model", "derived model"} & set(changes):
        assert not {"model", "derived model"} & changed, "no training rests on it"
    if changes == ("table",):
        assert changed == {"table"}


def test_examples_are_told_by_what_builds_them() -> None:
    """And not by the network that stands in the same file."""
    reached = sources.covered("attribug.tasks.digits", digits.compose.__name__)
    assert {"attribug.tasks.digits", "attribug.tasks.surfaces", "attribug.streams"} <= set(reached)
    assert "attribug.models.networks" not in reached
    assert isinstance(Examples.of(digits.compose, size=1), Examples)


def test_facts_of_pieces_leave_models_and_records_alone() -> None:
    """The same trainings and records under another δ: only the table is another one."""
    one, other = api.planned("smoke"), api.planned("smoke", visible=0.2)
    assert list(one.trainings) == list(other.trainings)
    for cell, same in zip(one.cells, other.cells, strict=True):
        assert one.record_key(cell, "gradient") == other.record_key(same, "gradient")
    assert one.key != other.key
