"""Task `newsgroups`: atheism or christianity, from posts of 1993; a word that is put in may tell it."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

from attribug import data_sources, tasks
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError
from attribug.tasks.texts import Bags, Texts, bags, expect_sizes, told_apart, with_word

GROUPS = ("alt.atheism", "soc.religion.christian")
CLASSES = ("atheism", "christian")
FILE = data_sources.POSTS
MOST = {"train": 1000, "test": 700}


def missing() -> str:
    """Empty where the data are there, else a line that says how they come to be."""
    return data_sources.missing("newsgroups")


@tasks.register(
    "newsgroups",
    source="20 Newsgroups, by date, as scikit-learn stores them",
    licence="none stated; the posts are their writers'",
    size="14 MB",
    missing=missing,
)
def newsgroups(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 940,
    test: int = 500,
    validation: int = 100,
    features: int = 5000,
    epochs: int = 64,
) -> Task:
    """Was it posted among atheists or among Christians? Texts are counts of words, weighted by rarity.

    alt.atheism or soc.religion.christian, as many of each: TF-IDF of 5,000 words, vectors in [0, 1]. Ross et al.
    (2017), section 4.1, have the same two groups and as many words.

    Texts are whole posts, headers included. Training and held-out posts are those of the published split by date; a
    word is put in as in task `tweets`. Nothing is downloaded: scikit-learn's folder has the posts, or the task says how
    to get them.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    expect_sizes("newsgroups", sizes, MOST, features, epochs)
    if absent := missing():
        raise InputError(f"newsgroups: data are missing: {absent}")
    made = partial(
        _bags, train=train, test=test, validation=validation, features=features, seed=seed, content=content()
    )
    return with_word("newsgroups", CLASSES, made, seed=seed, other=other, sizes=sizes, epochs=epochs)


def content() -> str:
    """Digest of the file with the posts."""
    return hashlib.sha256(_file().read_bytes()).hexdigest()


@functools.lru_cache(maxsize=4)
def _bags(*, train: int, test: int, validation: int, features: int, seed: int, content: str) -> Bags:
    return bags("newsgroups", _texts(content), {"train": train, "test": test, VALIDATION: validation}, features, seed)


@functools.lru_cache(maxsize=1)
def _texts(described: str) -> Texts:
    from sklearn.datasets import fetch_20newsgroups

    if content() != described:
        raise InputError(f"newsgroups: expected the posts that were described in {_file()}, found others")
    texts: list[str] = []
    labels: list[int] = []
    parts: list[int] = []
    for part, subset in enumerate(("train", "test")):
        found = fetch_20newsgroups(
            data_home=str(_file().parent), subset=subset, categories=GROUPS, shuffle=False, download_if_missing=False
        )
        texts += found.data
        labels += [GROUPS.index(found.target_names[kind]) for kind in found.target]
        parts += [part] * len(found.data)
    return told_apart(texts, labels, parts)


def _file() -> Path:
    """Where scikit-learn stores the posts."""
    return data_sources.scikit_learn_folder() / FILE
