"""docs/extending.md: its tables of fields are the dataclasses', and its bug of the training data does what it says."""

import dataclasses
import re
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch

from attribug import bugs
from attribug.conformance.tasks import small
from attribug.contracts import Check, Contrast, Side
from attribug.contracts.contrasts import TRUTHS
from attribug.plugins import load_plugin
from doubles.pieces import forgotten

PAGE = (Path(__file__).parent.parent / "docs" / "extending.md").read_text()
BLOCKS = dict(re.findall(r"(?ms)^```python\n(?=# (\w+\.py)\n)(.*?)^```", PAGE))
ROW = re.compile(r"(?m)^\| `(\w+)` \| `[^`]+` \| .+ \| (.+) \|$")


def table(page: str, kind: type) -> list[tuple[str, bool]]:
    """Fields in a table and whether each is needed."""
    (rows,) = re.findall(rf"(?m)^\| field of `{kind.__name__}` .*\n\|[-|]+\|\n((?:\|.*\n)+)", page)
    return [(name, default == "needed") for name, default in ROW.findall(rows)]


def fields(kind: type) -> list[tuple[str, bool]]:
    """A dataclass's fields and whether each is needed."""
    missing = dataclasses.MISSING
    return [
        (each.name, each.default is missing and each.default_factory is missing) for each in dataclasses.fields(kind)
    ]


@pytest.mark.parametrize("kind", [Contrast, Side, Check])
def test_every_field_is_told(kind):
    assert table(PAGE, kind) == fields(kind)


@pytest.mark.parametrize("kind", [Contrast, Side, Check])
def test_a_field_that_is_not_told_is_noticed(kind):
    """And one that is told as optional and is not, and one that is there no more."""
    head, rows = PAGE.split(f"| field of `{kind.__name__}` ")
    for wrong in (re.sub(r"(?m)^\| `examples`.*\n|^\| `controls`.*\n", "", rows, count=1),
                  rows.replace("| needed |", "| `None` |", 1), rows.replace("| `", "| `old_", 1)):  # fmt: skip
        assert wrong != rows
        assert table(f"{head}| field of `{kind.__name__}` {wrong}", kind) != fields(kind)


@pytest.mark.parametrize(("kind", "field"), [(Contrast, "target"), (Contrast, "truth"), (Check, "statistic")])
def test_words_that_a_field_takes_are_told(kind, field):
    (row,) = re.findall(rf"(?m)^\| `{field}` .*", PAGE)
    hint = get_type_hints(kind)[field]
    words = {word for part in (hint, *get_args(hint)) for word in get_args(part) if isinstance(word, str)}
    assert len(words) == 3
    assert all(f"`{word}`" in row for word in words)


def test_truths_are_those_of_the_contract():
    (words, _) = get_args(get_type_hints(Contrast)["truth"])
    assert set(get_args(words)) == set(TRUTHS)


class TestColouredPatch:
    @pytest.fixture
    def contrast(self, tmp_path):
        (tmp_path / "coloured_patch.py").write_text(BLOCKS["coloured_patch.py"])
        with forgotten():
            load_plugin(str(tmp_path / "coloured_patch.py"))
            yield lambda level: bugs.get("coloured_patch").function(small("digits"), level, 0, (0, 1, 2))

    @pytest.mark.parametrize(("level", "low", "high"), [(1.0, 1, 1), (0.9, 0.88, 0.99), (0.0, 0.35, 0.65)])
    def test_the_share_is_what_the_level_says(self, contrast, level, low, high):
        """Of two classes, a patch that tells nothing is right on every second image."""
        data = contrast(level).contaminated.model.examples.load()
        assert low <= float((told(data) == data.labels).double().mean()) <= high

    def test_controls_saw_the_same_images_with_patches_that_tell_nothing(self, contrast):
        described = contrast(1.0)
        ours = described.contaminated.model.examples.load()
        for side in described.controls:
            data = side.model.examples.load()
            off = ~data.masks[:, None].expand_as(data.inputs)
            assert torch.equal(data.inputs[off], ours.inputs[off])
            assert 0.35 <= float((told(data) == data.labels).double().mean()) <= 0.65

    def test_patches_lie_where_it_is_checked(self, contrast):
        truth, lie = (check.examples.load() for check in contrast(1.0).checks)
        assert torch.equal(told(truth), truth.labels)
        assert not (told(lie) == lie.labels).any()


def told(data):
    """The class that a patch tells, of two."""
    return (data.inputs[:, 0, 0, 0] > data.inputs[:, 2, 0, 0]).long()
