"""Task `silhouettes`: which of ten animals, from the package animal-mnist."""

from __future__ import annotations

from collections.abc import Callable

from attribug import data_sources, tasks
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError
from attribug.tasks import grey_pictures

CLASSES = ("bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra")


def missing() -> str:
    """Empty where the data are there, else a line that says how they come to be."""
    return data_sources.missing("silhouettes")


@tasks.register(
    "silhouettes",
    source="10,000 silhouettes of the package animal-mnist, whose code is never run",
    licence="MIT",
    size="2.6 MB",
    missing=missing,
)
def silhouettes(
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
    """Which animal's silhouette is it, white on black? Its pixels are the mask.

    Inputs (3, pixels, pixels) in [0, 1]. Zebras have stripes.

    2,000 are held out, as many of each animal. A silhouette that is there twice is taken once.
    """
    if absent := missing():
        raise InputError(f"silhouettes: data are missing: {absent}")
    return grey_pictures.told_apart(
        "silhouettes", grey_pictures.found("silhouettes"), CLASSES, seed=seed, other=other,
        sizes={"train": train, "test": test, VALIDATION: validation}, pixels=pixels, epochs=epochs, width=width,
    )  # fmt: skip
