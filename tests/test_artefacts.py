"""Which code the key of every kind of artefact covers, and which it never does."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from attribug import api, artefacts, sources
from attribug.contracts.data import Examples
from attribug.tasks import digits

ROOT = Path(__file__).parent.parent
NUMBERLESS = ("running", "storage", "terminal", "reports", "conformance", "studies", "api", "registry", "errors")


def documented() -> dict[str, list[str]]:
    """Modules by kind of artefact, from the table in docs/keys.md."""
    rows = re.findall(r"(?m)^\| ([a-z ]+) \| .* \| (`[^|]*`) \|$", (ROOT / "docs" / "keys.md").read_text())
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


@pytest.mark.parametrize(("kind", "within"), [
    ("model", {"contracts.models": "Recipe", "models.training": "train", "contracts.objectives": "cross_entropy"}),
    ("check", {"models.checks": "figure", "models.lab": "logits"}),
    ("record", {"scores.measurement": "Measurement", "maps.guard": "guarded", "query.query": "Query",
                "query.preflight": "logits", "metrics.postprocessing": "postprocess", "models.lab": "Lab"}),
    ("table", {"results.statistics": "verdict", "results.evidence": "q_values", "contracts.contrasts": "Contrast"}),
])  # fmt: skip
def test_what_makes_a_number_is_in_its_key(kind: str, within: dict[str, str]) -> None:
    covered: dict[str, set[str]] = {}
    for module, *names in artefacts.CODE[kind]:
        for where, reached in sources.covered(module, *names).items():
            covered.setdefault(where, set()).update(reached)
    for module, definition in within.items():
        assert definition in covered[f"attribug.{module}"]


def test_examples_are_told_by_what_builds_them() -> None:
    """And not by the network that stands in the same file."""
    reached = sources.covered("attribug.tasks.digits", digits.compose.__name__)
    assert {"attribug.tasks.digits", "attribug.tasks.photographs", "attribug.streams"} <= set(reached)
    assert "attribug.models.networks" not in reached
    assert isinstance(Examples.of(digits.compose, size=1), Examples)


def test_facts_of_pieces_leave_models_and_records_alone() -> None:
    """The same trainings and records under another δ: only the table is another one."""
    one, other = api.planned("smoke"), api.planned("smoke", visible=0.2)
    assert list(one.trainings) == list(other.trainings)
    for cell, same in zip(one.cells, other.cells, strict=True):
        assert one.record_key(cell, "gradient") == other.record_key(same, "gradient")
    assert one.key != other.key
