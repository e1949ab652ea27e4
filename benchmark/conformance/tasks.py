"""What every task must keep: checks of a registered task with few examples, and registered tasks in small."""

from __future__ import annotations

import functools
import inspect
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from attribug import tasks
from attribug.conformance.checks import ConformanceCheck, Nonconformant, expect
from attribug.contracts.shapes import KINDS, spatial
from attribug.contracts.tasks import Task
from attribug.errors import Unsupported, one_line
from attribug.keys import digest
from attribug.models.training import seeded
from attribug.streams import generator, global_states_restored, seed_globally

if TYPE_CHECKING:
    from attribug.contracts.data import Data
    from attribug.contracts.pieces import TaskSource

SMALL = {"train": 120, "test": 30, "most": 16, "epochs": 1, "width": 4}
SPLITS = ("train", "test")
VARIANTS: tuple[dict[str, Any], ...] = (
    {"share": 1.0},
    {"share": 1.0, "swapped": True},
    {"share": 1.0, "foreground": False},
)


def check_data_are_here(source: TaskSource) -> None:
    """Nothing can be checked without data; the task says how to get them."""
    expect(not source.absent, f"missing data: {source.absent}")
    task: object = _task(source)
    expect(isinstance(task, Task), f"expected a Task, found {type(task).__name__}")


def check_facts_fit_together(source: TaskSource) -> None:
    """The task has its registered name, and two classes or more, each named once; its inputs are images, sequences or
    vectors, and names of features are as many as a vector has."""
    task = _task(source)
    expect(task.name == source.name, f"name: expected {source.name!r}, found {task.name!r}")
    expect(len(task.classes) >= 2, f"classes: expected at least two, found {task.classes}")
    expect(len(set(task.classes)) == len(task.classes), f"classes: expected each once, found {task.classes}")
    known = len(task.shape) + 1 in KINDS
    expect(known, f"shape: expected (C, H, W), (C, L) or (D,), found {task.shape}")
    named = not task.features or task.shape == (len(task.features),)
    expect(named, f"features: expected a name for each of a vector's {task.shape}, found {len(task.features)}")
    expect(task.recipe.epochs >= 1, f"epochs: expected at least 1, found {task.recipe.epochs}")


def check_examples_have_their_form(source: TaskSource) -> None:
    """Both splits load: inputs (N, *shape) float32 and finite, labels (N,) int64 in [0, K), at least two of them."""
    task = _task(source)
    for split in SPLITS:
        data = _data(source, split)
        found = f"{tuple(data.inputs.shape)} {data.inputs.dtype}"
        expect(found == f"{(len(data), *task.shape)} torch.float32",
               f"{split} inputs: expected {(len(data), *task.shape)} torch.float32, found {found}")  # fmt: skip
        expect(len(data) > 0, f"{split}: expected examples, found none")
        expect(data.inputs.isfinite().all(), f"{split} inputs: expected finite values, found NaN or infinite ones")
        found = f"{tuple(data.labels.shape)} {data.labels.dtype}"
        expect(found == f"({len(data)},) torch.int64", f"{split} labels: expected ({len(data)},) int64, found {found}")
        low, high, last = int(data.labels.min()), int(data.labels.max()), len(task.classes) - 1
        expect(0 <= low < high <= last, f"{split} labels: expected several in 0 … {last}, found {low} … {high}")


def check_masks_have_their_form(source: TaskSource) -> str:
    """Masks (N, *spatial) bool, where there are any, each covering some of the input and not all."""
    for split in SPLITS:
        data = _data(source, split)
        if data.masks is None:
            return "no masks"
        found, expected = f"{tuple(data.masks.shape)} {data.masks.dtype}", (len(data), *spatial(data.inputs.shape))
        expect(found == f"{expected} torch.bool", f"{split} masks: expected {expected} torch.bool, found {found}")
        pixels = data.masks.flatten(1)
        odd = int((~pixels.any(1) | pixels.all(1)).sum())
        expect(not odd, f"{split} masks: expected a part of every input, found {odd} empty or full")
    return ""


def check_ids_are_unique(source: TaskSource) -> None:
    """(N,) int64, each once, and none in training and in test."""
    ids = {split: _data(source, split).ids for split in SPLITS}
    for split, found in ids.items():
        form = f"{tuple(found.shape)} {found.dtype}"
        count = len(_data(source, split))
        expect(form == f"({count},) torch.int64", f"{split} ids: expected ({count},) torch.int64, found {form}")
        expect(len(found.unique()) == count, f"{split} ids: expected {count} ids, found {len(found.unique())}")
    both = set(ids["train"].tolist()) & set(ids["test"].tolist())
    expect(not both, f"ids: expected none in both splits, found {len(both)}")


def check_no_test_example_was_trained_on(source: TaskSource) -> None:
    """No test input is a training input."""
    train, test = (_data(source, split).inputs.numpy() for split in SPLITS)
    both = {row.tobytes() for row in train} & {row.tobytes() for row in test}
    expect(not both, f"expected test examples that were not trained on, found {len(both)} in both splits")


def check_variants_keep_ids_and_labels(source: TaskSource) -> str:
    """With other backgrounds an example keeps its id and label, under another key; or the task declines."""
    task, split = _task(source), "test"
    plain, keys = _data(source, split), {_task(source).examples(split).key}
    for options in VARIANTS:
        try:
            examples = task.examples(split, **options)
            data = examples.load()
        except Unsupported as reason:
            return f"unsupported: {reason}"
        except TypeError as error:
            found = f"found {one_line(error)}"
            raise Nonconformant(f"examples(split, share=…): expected examples or Unsupported, {found}") from error
        told = ", ".join(f"{name}={value}" for name, value in options.items())
        expect(torch.equal(data.ids, plain.ids), f"{told}: expected the ids of the plain examples, found others")
        expect(torch.equal(data.labels, plain.labels), f"{told}: expected the plain examples' labels, found others")
        expect(examples.key not in keys, f"{told}: expected a key of its own, found that of another variant")
        keys.add(examples.key)
    return ""


def check_a_key_tells_everything(source: TaskSource) -> None:
    """The same seed gives the same key and data whatever the global seeds, which loading leaves alone."""
    for split in SPLITS:
        loaded, keys = [], []
        for global_seed in (1, 2):
            with global_states_restored():
                seed_globally(global_seed)
                before = _global_states()
                examples = _make(source, 0).examples(split)
                loaded.append(examples.load())
                keys.append(examples.key)
                untouched = _global_states() == before
            expect(untouched, f"{split}: loading draws from a global generator; use attribug.streams.generator")
        expect(keys[0] == keys[1], f"{split}: expected one key for one seed, found two")
        parts = [part for part in ("inputs", "labels", "ids") if not _same(loaded[0], loaded[1], part)]
        expect(not parts, f"{split}: one key, but loading twice gave other {' and '.join(parts)}")


def check_network_fits(source: TaskSource) -> None:
    """The recipe's network gives logits (N, K) for the task's inputs."""
    task, inputs = _task(source), _data(source, "test").inputs[:2]
    with seeded(generator("conformance")):
        model = task.recipe.network().eval()
    with torch.no_grad():
        outputs: Any = model(inputs)
    found = tuple(outputs.shape) if isinstance(outputs, torch.Tensor) else type(outputs).__name__
    expected = (len(inputs), len(task.classes))
    expect(found == expected, f"network: expected logits {expected}, found {found}")
    digest(task.recipe)  # raises for what has no content key


CHECKS: list[ConformanceCheck] = [
    check_data_are_here, check_facts_fit_together, check_examples_have_their_form, check_masks_have_their_form,
    check_ids_are_unique, check_no_test_example_was_trained_on, check_variants_keep_ids_and_labels,
    check_a_key_tells_everything, check_network_fits,
]  # fmt: skip


def small(name: str, seed: int = 0) -> Task:
    """A registered task with few examples and one epoch, as far as it has these options."""
    return _make(tasks.get(name), seed)


def _make(source: TaskSource, seed: int) -> Task:
    known = inspect.signature(source.function).parameters
    options = {option: value for option, value in SMALL.items() if option in known}
    if "model" in known:  # what somebody brings is found by all that was said of it
        options.pop("most", None)
    task: Task = source.function(seed=seed, other=small, **options)
    return task


@functools.lru_cache(maxsize=4)
def _task(source: TaskSource) -> Task:
    return _make(source, 0)


@functools.lru_cache(maxsize=4)
def _data(source: TaskSource, split: str) -> Data:
    return _task(source).examples(split).load()


def _same(one: Data, other: Data, part: str) -> bool:
    return torch.equal(getattr(one, part), getattr(other, part))


def _global_states() -> tuple[Any, ...]:
    return torch.get_rng_state().tolist(), str(np.random.get_state()), random.getstate()
