"""Words: what every piece says of itself is one plain sentence, and a word of ours means the same everywhere."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from pathlib import Path

import pytest

from attribug.plugins import all_registries
from attribug.terminal import listing

ROOT = Path(__file__).parent.parent
KINDS = ("task", "bug", "fix", "panel", "method", "metric")
SHIPPED = [pytest.param(kind, n, id=f"{kind}-{n}") for kind in KINDS for n in all_registries()[kind].declared()]
LONGEST = 110
SYMBOLS = re.compile(r"[Σ∑∂∫‖|⊙·√½∩∪≤≥←→⁺₀-₉Ͱ-Ͽ]|[A-Za-z]_[a-z]|\([A-Z0-9, ]*,[^)]*\)")
"""What belongs into a definition: signs of mathematics, Greek letters, subscripts, shapes."""
OPENING = re.compile(r"[A-Z]")
CONTROL = "A control is a model without the bug, made like the buggy one in everything else."
DEFINING_CONTROL = ("README.md", "docs/words.md", "docs/reading.md", "docs/extending.md", "results/report.html.jinja")
ONCE_SAID = re.compile(r"differs?( from (a clean one|those))? in everything but the bug")
WORDS = (
    "control", "reference", "benign", "floor", "effect", "verdict", "took", "headroom", "post", "level", "draw",
    "triple", "visible", "undefined", "unit", "panel", "grain", "shortcut", "fix",
)  # fmt: skip


def complaints(told: str) -> set[str]:
    """What keeps the first line of a docstring from being one plain sentence; empty where nothing does."""
    first, *others = told.split("\n")
    found = {
        "no end": not first.endswith((".", "?")) or first.endswith(("…", "...", "al.")),
        "goes on": bool(others) and bool(others[0].strip()),
        "no beginning": not OPENING.match(first),
        "long": len(first) > LONGEST,
        "formula": SYMBOLS.search(first) is not None,
        "no sentence": len(first.split()) < 5,
    }
    return {what for what, holds in found.items() if holds}


def plain(text: str) -> str:
    """Text without marks of emphasis and without line breaks."""
    return " ".join(re.sub(r"</?em>|\*", "", text).split())


def first_line(kind: str, name: str) -> str:
    return (inspect.getdoc(all_registries()[kind].get(name).function) or "").partition("\n")[0]


@pytest.mark.parametrize(("kind", "name"), SHIPPED)
def test_a_piece_says_what_it_is_in_one_plain_sentence(kind: str, name: str) -> None:
    assert complaints(inspect.getdoc(all_registries()[kind].get(name).function) or "") == set()


@pytest.mark.parametrize("name", all_registries()["metric"].declared())
def test_a_metric_asks_a_question_and_says_what_its_numbers_mean(name: str) -> None:
    question, mark, answers = first_line("metric", name).partition("?")
    assert question
    assert mark
    assert re.search(r"(?<![\w.])0 \w", answers), "what 0 means"
    assert re.search(r"(?<![\w.])1 \w", answers), "what 1 means"


@pytest.mark.parametrize(
    ("told", "why"),
    [
        ("Gradient of the target's logit in which every ReLU passes the positive part, whatever its\nown was.",
         {"no end", "goes on"}),
        ("Smiling or not, of the photographs. The mask is the mouth and\nlips.", {"no end", "goes on"}),
        ("A sentence that ends here.\nAnother one that follows at once.", {"goes on"}),
        ("the gradient shows where a class is seen.", {"no beginning"}),
        ("Σ_G R / Σ R: the share of relevance inside the mask.", {"no beginning", "formula"}),
        ("The sum over pixels is |S ∩ G| / |G|, of the salient ones.", {"formula"}),
        ("It multiplies x by ∂F_t/∂x at every pixel.", {"formula"}),
        ("Which digit is it, (3, 28, 28) in [0, 1]?", {"formula"}),
        ("One of the methods of Ross et al.", {"no end"}),
        ("Integrated gradients.", {"no sentence"}),
        ("This sentence goes on and on, " + "and on, " * 12 + "until it ends.", {"long"}),
        ("", {"no end", "no beginning", "no sentence"}),
    ],
)  # fmt: skip
def test_anything_else_is_rejected(told: str, why: set[str]) -> None:
    assert complaints(told) == why


@pytest.mark.parametrize("kind", KINDS)
def test_no_two_pieces_of_a_kind_say_the_same(kind: str) -> None:
    counted = Counter(first_line(kind, name) for name in all_registries()[kind].declared())
    assert counted.most_common(1)[0][1] == 1, counted.most_common(1)


@pytest.mark.parametrize("kind", KINDS)
def test_lists_print_sentences_whole(kind: str) -> None:
    registry = all_registries()[kind]
    shown = listing.text({registry.plural: listing.listed(registry.plural)}).splitlines()
    for name in registry.declared():
        assert any(re.fullmatch(rf"  {name} +{re.escape(first_line(kind, name))}", line) for line in shown), name


@pytest.mark.parametrize("place", DEFINING_CONTROL)
def test_a_control_is_the_same_everywhere(place: str) -> None:
    assert CONTROL in plain((ROOT / place).read_text())


def test_nowhere_is_a_control_what_it_is_not() -> None:
    assert ONCE_SAID.search(plain("read against a *control* that differs in everything but the bug"))
    assert ONCE_SAID.search(
        plain("A <em>control</em> is a model that differs from a clean one in everything\n but the bug.")
    )
    assert ONCE_SAID.search(plain("which differ from those in everything *but* the bug"))
    places = [ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "results").glob("*.jinja")]
    assert not [place.name for place in places if ONCE_SAID.search(plain(place.read_text()))]


def entries(page: str) -> dict[str, str]:
    """What stands behind each word set in bold at the beginning of a paragraph."""
    return {word.lower(): text for word, text in re.findall(r"(?ms)^\*\*(\w+)\.\*\*\s(.*?)(?=\n\n|\Z)", page)}


def test_every_word_of_ours_has_a_sentence_and_an_example() -> None:
    told = entries((ROOT / "docs" / "words.md").read_text())
    assert set(told) == set(WORDS)
    for word, text in told.items():
        assert len(re.findall(r"[.?:](?=\s|$)", text)) >= 2, f"{word}: a sentence and an example"
        assert re.search(r"\d|`|for example|:", text), f"{word}: a number or a small example"


def test_the_words_are_found_from_the_readme() -> None:
    assert "(docs/words.md)" in (ROOT / "README.md").read_text()
