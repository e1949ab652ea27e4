"""The panel of a model that somebody brings: every model sees the same examples, and is held against the same masks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from attribug import panels
from attribug.contracts.contrasts import Side
from attribug.contracts.subjects import Lacking, Subject
from attribug.contracts.tasks import GivenModel, Task
from attribug.errors import InputError, Unsupported
from attribug.models import brought
from attribug.models.given import digest_of
from attribug.models.lab import Lab, logits
from attribug.models.memory import Memory
from attribug.running.bringing import asked_for
from attribug.tasks.own import own
from doubles import mine

SEED, SEEDS = 23, (23, 24, 25)


def other(name: str) -> Task:
    raise AssertionError(name)


def ask(name: str, **options: Any) -> Task:
    """What was brought, as a task."""
    assert (name, options) == ("own", {})
    made: Task = own(seed=SEED, other=other)
    return made


def given(**changes: Any) -> GivenModel:
    """A model that knows its bars, with the labels that tell it."""
    found = mine.register(SEED).given
    spec = brought.describe(mine.trained())
    known: dict[str, Any] = {"spec": spec, "known": found.examples, "called": "net.py:load"}
    return replace(found, **known | changes)


def asked(marked: bool = True, **changes: Any) -> list[Subject | Lacking]:
    """What the panel says of a model that was brought, with changes; masks are the bars, and what lies around them."""
    found = mine.register(SEED)
    masks = found.examples.load().masks
    assert masks is not None
    regions = brought.regions({"bar": masks, "around": ~masks}) if marked else None
    made = replace(found, **{"given": given(), "regions": regions} | changes)
    brought.register(brought.key(asked_for({}), SEED), made)
    return list(panels.get("own").function(ask, seed=SEED, seeds=SEEDS))


def subjects(found: list[Subject | Lacking]) -> list[Subject]:
    kept = [each for each in found if isinstance(each, Subject)]
    assert len(kept) == len(found), found
    return kept


def test_yours_stands_beside_the_same_with_random_weights() -> None:
    first, *drawn = subjects(asked())
    assert (first.model, first.data, first.target) == ("net.py:load", "yours", "own")
    assert {each.model for each in drawn} == {"random weights"}
    assert [each.side.seed for each in drawn] == [*SEEDS]
    data = first.side.examples.load()
    masks = first.regions.load()
    assert first.regions.names == tuple(masks) == ("bar", "around")
    assert torch.equal(masks["bar"], mine.bars(SEED).masks)  # type: ignore[arg-type]
    assert data.inputs[:, 0][masks["bar"]].mean() > data.inputs[:, 0][masks["around"]].mean() + 0.4
    assert all((each.regions, each.side.examples) == (first.regions, first.side.examples) for each in drawn)
    lab = Lab(Memory())
    digests = [digest_of(lab.model(each.side.model)) for each in (first, *drawn)]
    assert len({*digests}) == 1 + len(SEEDS)
    assert digests[0] == digest_of(mine.trained())


def right(side: Side | None) -> float:
    """The share of examples on which a model is right."""
    assert side is not None
    data = side.examples.load()
    return float((logits(Lab(Memory()).model(side.model), data.inputs).argmax(1) == data.labels).double().mean())


def test_accuracy_is_told_where_labels_are_known() -> None:
    first, *drawn = subjects(asked())
    assert right(first.tested) > 0.9
    assert all(right(each.tested) < 0.7 for each in drawn)
    assert all(each.tested is None for each in subjects(asked(given=given(known=None))))


def test_a_second_model_is_asked_as_well() -> None:
    stranger = given(spec=brought.describe(mine.network()), called="other.py:load", known=None)
    *_, second = subjects(asked(stranger=stranger))
    assert (second.model, second.data, second.tested) == ("other.py:load", "yours", None)
    assert second.side.model == stranger.spec
    assert second.side.seed == -1
    *_, same = subjects(asked(stranger=replace(stranger, called="net.py:load")))
    assert same.model == "against net.py:load"
    first, *_, nameless = subjects(asked(given=given(called=""), stranger=replace(stranger, called="")))
    assert (first.model, nameless.model) == ("yours", "against")


def test_without_masks_it_says_what_is_missing() -> None:
    assert asked(marked=False) == [
        Lacking("net.py:load", "yours", "expected masks of what people marked: --masks FOLDER")
    ]


def test_layers_that_cannot_be_drawn_anew_cost_their_subjects_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from attribug.bugs import reinit

    def declines(*_: Any) -> int:
        raise Unsupported("no layers")

    monkeypatch.setattr(reinit, "_checked", declines)
    first, lacking = asked()
    assert isinstance(first, Subject)
    assert lacking == Lacking("random weights", "yours", "no layers")


def test_whoever_brings_nothing_is_told() -> None:
    def nothing(name: str, **options: Any) -> Task:
        raise Unsupported("not on this machine")

    def mistaken(name: str, **options: Any) -> Task:
        raise InputError("task own: expected a model and data")

    found = panels.get("own").function
    assert list(found(nothing, seed=0, seeds=SEEDS)) == [Lacking("yours", "yours", "not on this machine")]
    with pytest.raises(InputError, match="expected a model and data"):
        list(found(mistaken, seed=0, seeds=SEEDS))
    asked()
    bare = replace(ask("own"), given=None)
    (lacking,) = found(lambda name, **options: bare, seed=0, seeds=SEEDS)
    assert "--model NAME" in lacking.reason
