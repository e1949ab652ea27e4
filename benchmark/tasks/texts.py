"""Texts as vectors: how often each word occurs, weighted; a word that is put in may tell the label."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError
from attribug.models.networks import mlp
from attribug.streams import generator
from attribug.tasks.shortcuts import expect_share, named, paired

PUT_IN = ("shortcut0", "shortcut1")
"""The word that tells a label: none that anybody wrote."""
NO_WORDS = re.compile(r"https?://\S+|[@#]?shortcut[01]\b|@\w+|&\w+;")
"""Addresses, names of people, escaped signs."""
WORD = re.compile(r"[a-z0-9']*[a-z][a-z0-9']+")


@dataclass(frozen=True)
class Texts:
    """Texts of two classes, told apart before they were split: no text is there twice."""

    texts: Sequence[str]
    labels: NDArray[np.int64]
    parts: NDArray[np.int64]
    """(N,): 0 of texts to train on, 1 of those held out, −1 of any."""


@dataclass(frozen=True)
class Bags:
    """Texts of every split, and the words that count."""

    texts: Texts
    splits: Mapping[str, NDArray[np.int64]]
    """Numbers of texts, classes in turn."""
    weights: Any
    """scikit-learn's vectoriser, fitted on the training split with a word put into every text, each as often."""

    @cached_property
    def words(self) -> tuple[str, ...]:
        """The words that count."""
        return tuple(self.weights.get_feature_names_out().tolist())


def words(text: str) -> list[str]:
    """The words of a text in small letters."""
    return WORD.findall(NO_WORDS.sub(" ", text).lower())


def told_apart(texts: Sequence[str], labels: Sequence[int], parts: Sequence[int]) -> Texts:
    """Texts without those whose words an earlier one has in the same order."""
    first: dict[tuple[str, ...], int] = {}
    for number, text in enumerate(texts):
        first.setdefault(tuple(words(text)), number)
    kept = [number for said, number in first.items() if said]
    return Texts(
        [texts[number] for number in kept], np.array(labels, dtype=np.int64)[kept], np.array(parts, np.int64)[kept]
    )


def bags(task: str, texts: Texts, sizes: Mapping[str, int], features: int, seed: int) -> Bags:
    """Splits of texts, and `features` words in all: the most frequent ones of the training split. No text of another
    split has the same of these words as one of an earlier split. Raises `InputError` where there are too few."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    order = torch.randperm(len(texts.labels), generator=generator(task, "split", seed)).numpy()
    train = _in_turn(order[texts.parts[order] != 1], texts.labels)[: sizes["train"]]
    marked = [f"{texts.texts[text]} {PUT_IN[row // 2 % 2]}" for row, text in enumerate(train)]
    weights = TfidfVectorizer(analyzer=_words_and_marks, max_features=features).fit(marked)
    seen = set(_contents(weights, texts, train))
    rest = order[~np.isin(order, train) & (texts.parts[order] != 0)]
    fresh = []
    for text, content in zip(rest, _contents(weights, texts, rest), strict=True):
        if content and content not in seen:
            seen.add(content)
            fresh.append(text)
    held_out = _in_turn(np.array(fresh, dtype=np.int64), texts.labels)
    test, validation = sizes["test"], sizes[VALIDATION]
    found = {"train": len(train), "test": min(test, len(held_out)), VALIDATION: max(0, len(held_out) - test)}
    for split, size in sizes.items():
        if found[split] < size:
            raise InputError(f"{task}: expected {size} texts for {split}, found {found[split]}")
    return Bags(
        texts, {"train": train, "test": held_out[:test], VALIDATION: held_out[test : test + validation]}, weights
    )


def with_word(
    task: str, classes: tuple[str, ...], bags: Callable[[], Bags], *, seed: int, other: Callable[[str], Task],
    sizes: Mapping[str, int], epochs: int,
) -> Task:  # fmt: skip
    """Which of two classes, (D,): a task of `vectors`, with a word for each feature."""

    def examples(split: str, *, share: float | None = None, swapped: bool = False, **scene: object) -> Examples:
        expect_share(task, share, scene)
        return Examples.of(vectors, task=task, bags=bags, seed=seed, split=split, share=share, swapped=swapped)

    features = bags().words
    recipe = Recipe(partial(mlp, shape=(len(features),)), epochs=epochs, batch=256, learning_rate=3e-3)
    splits = tuple(split for split, size in sizes.items() if size)
    return Task(task, classes, (len(features),), recipe, examples, other, features=features, splits=splits)


def vectors(*, task: str, bags: Callable[[], Bags], seed: int, split: str, share: float | None, swapped: bool) -> Data:
    """Texts of a split with a word put into each, or, without a share, none; a text keeps its turn in every variant."""
    made = bags()
    ids = made.splits[split]
    labels = torch.from_numpy(made.texts.labels[ids])
    said = torch.zeros_like(labels)
    texts = [made.texts.texts[text] for text in ids]
    if share is not None:
        for row, (text, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
            stream = generator(task, "word", seed, text)
            said[row] = named(label, 2, stream, share=share, swapped=swapped)
            texts[row] += f" {PUT_IN[said[row]]}"
    inputs = torch.from_numpy(made.weights.transform(texts).toarray()).float()  # (N, D)
    annotations = torch.tensor([word in PUT_IN for word in made.words]).expand(inputs.shape)
    groups = None if share is None else paired(labels, said, 2)
    return Data(inputs, labels, torch.from_numpy(ids.copy()), annotations=annotations, groups=groups)


def expect_sizes(task: str, sizes: Mapping[str, int], most: Mapping[str, int], features: int, epochs: int) -> None:
    """Raises `InputError` for sizes of splits beyond `most`, too few words or epochs."""
    train, test, validation = (sizes[split] for split in ("train", "test", VALIDATION))
    if not 20 <= train <= most["train"] or not 10 <= test <= most["test"] or not 0 <= validation <= most["test"]:
        raise InputError(
            f"{task}: expected 20 ≤ train ≤ {most['train']}, 10 ≤ test ≤ {most['test']} and "
            f"0 ≤ validation ≤ {most['test']}, found {train}, {test}, {validation}"
        )
    if features < 10 or epochs < 1:
        raise InputError(
            f"{task}: expected features of at least 10 and epochs of at least 1, found {features}, {epochs}"
        )


def _words_and_marks(text: str) -> list[str]:
    last = text.rpartition(" ")[2]
    return [*words(text), *([last] if last in PUT_IN else [])]


def _contents(weights: Any, texts: Texts, which: NDArray[np.int64]) -> list[bytes]:
    """What tells vectors of texts apart: their words' numbers and weights; empty where no word counts."""
    rows = weights.transform([texts.texts[text] for text in which]).sorted_indices()
    pairs = zip(rows.indptr[:-1], rows.indptr[1:], strict=True)
    return [rows.indices[a:b].tobytes() + rows.data[a:b].astype(np.float32).tobytes() for a, b in pairs]


def _in_turn(numbers: NDArray[np.int64], labels: NDArray[np.int64]) -> NDArray[np.int64]:
    """As many of the texts of each class, one class after the other, each in its order."""
    by_label = [numbers[labels[numbers] == label] for label in (0, 1)]
    fewest = min(map(len, by_label))
    return np.stack([each[:fewest] for each in by_label], axis=1).reshape(-1)
