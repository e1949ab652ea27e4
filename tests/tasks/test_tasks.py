"""Every shipped task whose data are here: what it promises beyond what any task must keep."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.shapes import spatial
from attribug.contracts.tasks import Task
from attribug.errors import InputError

SMALL = {"train": 90, "test": 40, "most": 16, "epochs": 1}
SPLITS = ("train", "test")
MEASURED = {"iris_cancer"}  # standardised, not shown


def small(name: str, seed: int = 0, **options: Any) -> Task:
    source = tasks.get(name)
    if source.missing is not None and source.missing():
        pytest.skip(source.missing())
    known = inspect.signature(source.function).parameters
    chosen = {option: value for option, value in SMALL.items() if option in known}
    if "model" in known:  # what somebody brings is found by all that was said of it
        chosen.pop("most", None)
    return source.function(seed=seed, other=small, **{**chosen, **options})


EVERY_TASK = pytest.mark.parametrize("name", tasks.names())
EVERY_SPLIT = pytest.mark.parametrize("split", SPLITS)


@EVERY_TASK
def test_facts_are_told(name: str) -> None:
    source, task = tasks.get(name), small(name)
    assert source.source
    assert source.licence
    assert source.size
    assert task.name == name
    assert len(task.classes) == len(set(task.classes)) >= 2


@EVERY_TASK
@EVERY_SPLIT
def test_examples_have_their_shape_range_and_types(name: str, split: str) -> None:
    task = small(name)
    data = task.examples(split).load()
    assert data.inputs.shape[1:] == task.shape
    if split in inspect.signature(tasks.get(name).function).parameters:
        assert len(data) == SMALL[split]
    assert data.inputs.dtype == torch.float32
    if name not in MEASURED:
        assert data.inputs.min() >= 0
        assert 0.5 < data.inputs.max() <= 1
    assert data.labels.shape == (len(data),)
    assert data.labels.dtype == torch.int64
    assert 2 <= len(set(data.labels.tolist())) <= len(task.classes)
    assert set(data.labels.tolist()) <= set(range(len(task.classes)))
    assert data.ids.dtype == torch.int64
    assert len(set(data.ids.tolist())) == len(data)
    if data.masks is not None:
        assert data.masks.dtype == torch.bool
        assert data.masks.shape == (len(data), *spatial((len(data), *task.shape)))
        assert data.masks.flatten(1).any(1).all()
        assert not data.masks.flatten(1).all(1).any()


def same(one: Data, other: Data) -> bool:
    return all(torch.equal(getattr(one, part), getattr(other, part)) for part in ("inputs", "labels", "ids"))


@EVERY_TASK
@EVERY_SPLIT
def test_a_seed_tells_everything(name: str, split: str) -> None:
    one, again, other = (small(name, seed).examples(split) for seed in (3, 3, 4))
    assert one.key == again.key != other.key
    torch.manual_seed(1)
    first = one.load()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    assert same(first, again.load())
    assert not torch.equal(first.inputs, other.load().inputs)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state), "loading draws from the global generator"


@pytest.mark.parametrize("name", ["digits", "textures"])
def test_the_first_training_examples_do_not_depend_on_how_many_there_are(name: str) -> None:
    few, many = (small(name, train=n).examples("train").load() for n in (40, 80))
    assert same(few, many.select(torch.arange(40)))


@EVERY_TASK
@pytest.mark.parametrize("options", [
    {"train": 0}, {"train": -5}, {"train": 10**6}, {"test": 1}, {"test": 10**6}, {"epochs": 0}, {"epochs": -1},
    {"width": 0},
])  # fmt: skip
def test_options_out_of_range_are_refused_in_one_line(name: str, options: dict[str, int]) -> None:
    make: Callable[..., Task] = tasks.get(name).function
    ((option, value),) = options.items()
    if option not in inspect.signature(make).parameters:
        pytest.skip(f"{name} has no option {option}")
    if (name, option, value) == ("own", "epochs", 0):
        pytest.skip("as many as there are data for")
    with pytest.raises(InputError, match=f"^{name}: expected .*found .*{value}") as caught:
        make(seed=0, other=small, **options)
    assert "\n" not in str(caught.value)
