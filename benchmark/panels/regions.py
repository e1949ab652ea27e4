"""Panel `regions`: which part of a face does a model look at that tells smiles?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attribug import panels
from attribug.contracts.contrasts import Side
from attribug.contracts.subjects import Ask, Subject
from attribug.tasks.celebamask_hq import regions as face_regions

FACES = "celebamask_hq"


@panels.register("regions", paper="Bang et al. 2024 (Explanation Alignment), regions of faces ranked on CelebAMask-HQ")
def regions(ask: Ask, *, seed: int, seeds: Sequence[int]) -> Iterator[Subject]:
    """How far do maps of a model that tells smiles agree with each of seven regions of faces?

    The mouth is expected.

    Any other folder of region masks is ranked alike, of your own model: `--masks FOLDER`, a folder a region.
    """
    task = ask(FACES)
    examples = task.examples("test")
    for each in seeds:
        side = Side(task.clean(each), examples)
        yield Subject("smiles", "faces", side, face_regions(examples), tested=side, classes=task.classes)
