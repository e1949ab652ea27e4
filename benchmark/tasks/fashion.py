"""Task `fashion`: which of ten pieces of clothing, from Fashion-MNIST."""

from __future__ import annotations

from collections.abc import Callable

from attribug import data_sources, tasks
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError
from attribug.tasks import grey_pictures

CLASSES = (
    "T-shirt", "trousers", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot",
)  # fmt: skip


def missing() -> str:
    """Empty where the data are there, else a line that says how they come to be."""
    return data_sources.missing("fashion")


@tasks.register(
    "fashion",
    source="Fashion-MNIST, of Debian's package dataset-fashion-mnist or as torchvision stores it",
    licence="MIT",
    size="31 MB",
    missing=missing,
    paper="Xiao et al. 2017",
)
def fashion(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 3000,
    test: int = 500,
    validation: int = 500,
    pixels: int = 64,
    epochs: int = 10,
    width: int = 8,
) -> Task:
    """Which piece of clothing is it, grey on black? Its pixels are the mask.

    Inputs (3, pixels, pixels) in [0, 1].

    Training examples are among the published ones to train on, test examples among those to test, as many of each kind.
    """
    if absent := missing():
        raise InputError(f"fashion: data are missing: {absent}")
    return grey_pictures.told_apart(
        "fashion", grey_pictures.found("fashion"), CLASSES, seed=seed, other=other,
        sizes={"train": train, "test": test, VALIDATION: validation}, pixels=pixels, epochs=epochs, width=width,
    )  # fmt: skip
