"""Large folders: what is read of them, and how much memory it takes."""

from __future__ import annotations

import os
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from attribug.errors import InputError
from attribug.models.preparation import Preparation
from attribug.tasks import folders
from attribug.tasks.folders import pictures

CLASSES, EACH = 4, 25


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """A hundred pictures in four classes."""
    for number in range(CLASSES * EACH):
        place = tmp_path / "many" / f"c{number % CLASSES}"
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (12, 10), (number, 0, 255 - number)).save(place / f"{number // CLASSES:03d}.png")
    return tmp_path / "many"


def test_only_the_chosen_ones_are_opened(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    read = folders._read

    def noted(folder: Path, parts: tuple[str, ...]) -> Any:
        opened.append("/".join(parts))
        return read(folder, parts)

    monkeypatch.setattr(folders, "_read", noted)
    found = pictures(many, Preparation(8), most=10)
    assert tuple(opened) == found.names
    assert found.labels == (0, 0, 0, 1, 1, 1, 2, 2, 3, 3)


def test_they_are_those_that_a_slow_walk_finds(many: Path) -> None:
    for hidden in (".hidden/a.png", "c0/.hidden.png", "c1/.cache/b.png"):
        (many / hidden).parent.mkdir(exist_ok=True)
        Image.new("RGB", (12, 10)).save(many / hidden)
    (many / "c0" / "deep").mkdir()
    Image.new("RGB", (12, 10)).save(many / "c0" / "deep" / "Z.PNG")
    (many / "c0" / "text.txt").write_text("")
    every = sorted(path for path in many.rglob("*") if path.suffix.lower() == ".png")
    told = [path.relative_to(many) for path in every]
    expected = [path.as_posix() for path in told if not any(part.startswith(".") for part in path.parts)]
    found = pictures(many, Preparation(8))
    assert list(found.names) == expected
    assert "c0/deep/Z.PNG" in expected
    slow = [Preparation(8)(Image.open(many / name).convert("RGB")) for name in expected]
    assert torch.equal(found.inputs, torch.stack(slow))


def test_what_is_no_picture_leaves_no_row(many: Path) -> None:
    (many / "c0" / "000.png").write_text("no picture")
    os.symlink("nowhere.png", many / "c1" / "0.png")
    os.mkfifo(many / "c2" / "0.png")
    found = pictures(many, Preparation(8))
    assert len(found.inputs) == len(found.names) == len(found.labels) == CLASSES * EACH - 1
    assert [name for name, _ in found.skipped] == ["c0/000.png", "c1/0.png", "c2/0.png"]
    assert found.inputs.isfinite().all()
    with pytest.raises(InputError, match=r"c2: 0.png: no picture: .*expected a file"):
        pictures(many / "c2", Preparation(8), strict=True, most=1)


def grown(folder: Path, **options: Any) -> int:
    """Bytes of arrays that are there at once, of Python's and NumPy's, beside torch's."""
    tracemalloc.start()
    pictures(folder, Preparation(64), **options)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return peak


def test_nothing_for_people_is_kept_unless_somebody_looks(many: Path) -> None:
    bytes_shown = CLASSES * EACH * 64 * 64 * 3
    assert grown(many) > bytes_shown
    assert grown(many, shown=False) < bytes_shown / 2
    assert pictures(many, Preparation(8), shown=False).shown == ()
    shown = pictures(many, Preparation(8)).shown
    assert len(shown) == CLASSES * EACH
    assert shown[0].dtype == np.uint8


def test_rows_take_memory_once(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No more than one tensor of all rows is made, and what comes is written into it."""
    made: list[tuple[int, ...]] = []
    empty = torch.empty

    def noted(*sizes: Any, **options: Any) -> Tensor:
        tensor = empty(*sizes, **options)
        made.append(tuple(tensor.shape))
        return tensor

    monkeypatch.setattr(folders.torch, "empty", noted)
    monkeypatch.setattr(folders.torch, "stack", None)
    found = pictures(many, Preparation(8), most=20)
    assert made.count((20, 3, 8, 8)) == 1
    assert sum(np.prod(shape) for shape in made) == 20 * 3 * 8 * 8
    assert found.inputs.shape == (20, 3, 8, 8)
