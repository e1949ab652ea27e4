"""Task `celebamask_hq`: does a face smile, with masks that people drew of its parts.

Photographs and masks as the makers of CelebAMask-HQ lay them down (Lee et al. 2020): `CelebA-HQ-img/N.jpg`, 1024 pixels
a side; `CelebAMask-HQ-mask-anno/F/NNNNN_PART.png`, 512 pixels a side, F the whole part of N / 2000, not 0 where the
part is, and no file where a face shows none; `CelebAMask-HQ-attribute-anno.txt`, a list as `attribug.tasks.faces` reads
it; `CelebA-HQ-to-CelebA-mapping.txt`, names of columns and, a line each, N, its number in CelebA and its file there.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from attribug import data_sources, keys, tasks
from attribug.contracts.data import DATA_LIBRARIES, Data, Examples
from attribug.contracts.subjects import Regions
from attribug.contracts.tasks import VALIDATION, Task
from attribug.data_places import data_folder
from attribug.errors import InputError, one_line
from attribug.streams import generator
from attribug.tasks import celeba, faces
from attribug.tasks.faces import CLASSES
from attribug.tasks.shortcuts import expect_share

PICTURES, MASKS = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno"
ATTRIBUTES, MAPPING = "CelebAMask-HQ-attribute-anno.txt", "CelebA-HQ-to-CelebA-mapping.txt"
IN_A_FOLDER = 2000  # photographs' masks
PARTS = (
    "skin", "l_brow", "r_brow", "l_eye", "r_eye", "eye_g", "l_ear", "r_ear", "ear_r", "nose", "mouth", "u_lip", "l_lip",
    "neck", "neck_l", "cloth", "hair", "hat",
)  # fmt: skip
"""In the order in which the makers' own script paints them over each other: of two on one pixel the later is seen."""
REGIONS = {
    "mouth": ("mouth", "u_lip", "l_lip"),
    "nose": ("nose",),
    "eyes": ("l_eye", "r_eye", "eye_g"),
    "brows": ("l_brow", "r_brow"),
    "ears": ("l_ear", "r_ear", "ear_r"),
    "skin": ("skin",),
    "hair": ("hair",),
}
"""Seven regions of a face by the parts they unite; glasses belong to the eyes, earrings to the ears. Neck, necklace,
cloth, hat and what is behind a face are in none."""
FIRST = {VALIDATION: 24_000, "test": 27_000}
"""The first numbers of the last two tenths of the 30,000; training has those before them."""
NUMBERS, CELEBA = "numbers", "celeba"
SPLITS = (NUMBERS, CELEBA)


def missing(*, folder: str = "", splits: str = NUMBERS) -> str:
    """Empty where CelebAMask-HQ is there, and CelebA's partition where splits are CelebA's, else a line that says how
    they come to be."""
    reason = absent(_place(folder), splits)
    if not reason:
        return ""
    got = data_sources.line("celebamask_hq")
    return f"{reason}; {got}" if folder or splits != NUMBERS else got


def absent(folder: Path, splits: str = NUMBERS) -> str:
    """Empty where CelebAMask-HQ lies in a folder, else what was expected there."""
    names = [PICTURES, MASKS, ATTRIBUTES, *([MAPPING] if splits == CELEBA else [])]
    lacking = [name for name in names if not (folder / name).exists()]
    if lacking:
        return f"expected faces as CelebAMask-HQ lays them down in {folder}, found no {lacking[0]}"
    lists = [place / celeba.PARTITION for place in _partitions(folder)]
    if splits == CELEBA and not any(each.is_file() for each in lists):
        return f"expected CelebA's {celeba.PARTITION} in {' or '.join(str(each.parent) for each in lists)}, found none"
    return ""


@tasks.register(
    "celebamask_hq",
    source="CelebAMask-HQ, as its makers lay it down: $ATTRIBUG_DATA/CelebAMask-HQ",
    licence="non-commercial research only, as its makers say; the photographs are their makers'",
    size="3 GB",
    missing=missing,
)
def celebamask_hq(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 8000,
    test: int = 1000,
    validation: int = 1000,
    pixels: int = 128,
    epochs: int = 5,
    learning_rate: float = 3e-4,
    network: str = faces.NETWORK,
    splits: str = NUMBERS,
    folder: str = "",
) -> Task:
    """Does the face smile? Photographs of CelebAMask-HQ; the mask is the mouth with its lips.

    Inputs (3, pixels, pixels) in [0, 1]; ids are the photographs' numbers. `regions` gives masks of seven parts of
    these faces.

    Labels take turns; which photographs of a label are taken, the seed draws. Faces without any file of the mouth are
    left out. `splits`: `numbers`, photographs from 24,000 on validate and those from 27,000 on test, where a person may
    be in two splits; `celeba`, CelebA's partitions, where nobody is: that takes CelebA's `list_eval_partition.txt`,
    beside these data or in CelebA's folder.

    Network and training as in the task `celeba`; reading takes a while: a photograph has up to 18 files of masks. No
    number of epochs was tried on these data here.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    faces.expect("celebamask_hq", sizes, pixels, epochs, learning_rate)
    if splits not in SPLITS:
        raise InputError(f"celebamask_hq: splits: expected {' or '.join(SPLITS)}, found {splits!r}")
    if lacking := missing(folder=folder, splits=splits):
        raise InputError(f"celebamask_hq: {lacking}")
    place = _place(folder)

    def examples(split: str, **scene: object) -> Examples:
        expect_share("celebamask_hq", None, scene)
        numbers = chosen(place, splits=splits, seed=seed, split=split, size=sizes[split])
        content = described(place, numbers)
        made: dict[str, Any] = {"numbers": numbers, "pixels": pixels}
        key = keys.digest("examples", photographs, made, content, keys.versions(*DATA_LIBRARIES, "pillow"))
        return Examples(key, partial(photographs, place=place, content=content, **made))

    learner = faces.learner(
        "celebamask_hq", network, seed, sizes=sizes, pixels=pixels, epochs=epochs, learning_rate=learning_rate
    )
    return Task("celebamask_hq", CLASSES, (3, pixels, pixels), examples=examples, other=other, **learner)


def regions(examples: Examples) -> Regions:
    """Masks of seven regions of the faces in examples of this task, the mouth first; a face that shows none of a region
    has an empty mask. What lies over a part, as hair over a brow, is none of it: no pixel is in two regions.

    Nothing is read. Raises `InputError` for examples of another task.
    """
    made = examples.build
    if not (isinstance(made, partial) and made.func is photographs):
        raise InputError("celebamask_hq: regions: expected examples of this task, found others")
    key = keys.digest("regions", REGIONS, face_masks, examples.key)
    return Regions(key, tuple(REGIONS), partial(face_masks, **made.keywords))


# --- what there is ---


def _place(folder: str) -> Path:
    return Path(folder) if folder else data_folder() / "CelebAMask-HQ"


def _partitions(place: Path) -> tuple[Path, ...]:
    """Folders where CelebA's list of partitions may lie."""
    return place, data_folder() / "celeba"


@functools.lru_cache(maxsize=4)
def _labels(place: Path) -> dict[int, bool]:
    """Who smiles, by number. Raises `InputError` for pictures that are not called by a number."""
    told = faces.attributes(place / ATTRIBUTES, (faces.SMILING,))
    return {_number(Path(name).stem, place / ATTRIBUTES): smiles for name, (smiles,) in told.items()}


@functools.lru_cache(maxsize=4)
def _files(place: Path) -> dict[int, dict[str, Path]]:
    """Files of masks by number and part."""
    found: dict[int, dict[str, Path]] = {}
    for path in sorted((place / MASKS).glob("*/*.png")):
        number, _, part = path.stem.partition("_")
        if number.isdigit() and part in PARTS and path.parent.name == str(int(number) // IN_A_FOLDER):
            found.setdefault(int(number), {})[part] = path
    return found


def _split_by_number(number: int) -> str:
    return "test" if number >= FIRST["test"] else VALIDATION if number >= FIRST[VALIDATION] else "train"


@functools.lru_cache(maxsize=4)
def _splits_of_celeba(place: Path) -> dict[int, str]:
    """Splits by number, as CelebA partitions the photographs' originals. Raises `InputError` for one that it lacks."""
    lists = [folder / celeba.PARTITION for folder in _partitions(place)]
    partitions = dict(faces.columns(next(path for path in lists if path.is_file()), 2))
    found = {}
    for number, _, original in faces.columns(place / MAPPING, 3, header=True):
        partition = partitions.get(original, "")
        if partition not in celeba.PARTITIONS:
            raise InputError(f"celebamask_hq: expected a partition of {original}, found {partition or 'none'}")
        found[_number(number, place / MAPPING)] = celeba.PARTITIONS[partition]
    return found


def _number(name: str, path: Path) -> int:
    if not name.isdigit():
        raise InputError(f"celebamask_hq: expected a photograph's number in {path}, found {name!r}")
    return int(name)


def chosen(place: Path, *, splits: str, seed: int, split: str, size: int) -> tuple[int, ...]:
    """Numbers of a split's photographs, labels in turn. Raises `InputError` where there are too few."""
    known = None if splits == NUMBERS else _splits_of_celeba(place)
    files, found = _files(place), [0] * size
    for label in range(len(CLASSES)):
        there = [
            number for number, smiles in sorted(_labels(place).items())
            if smiles == bool(label) and not files.get(number, {}).keys().isdisjoint(REGIONS["mouth"])
            and (_split_by_number(number) if known is None else known.get(number)) == split
        ]  # fmt: skip
        asked = (size + 1 - label) // 2
        if asked > len(there):
            group = f"{split} photographs of label {CLASSES[label]}"
            expected = f"expected at least {asked} {group}, found {len(there)}"
            raise InputError(f"celebamask_hq: {expected}; ask for a smaller {split}")
        order = torch.randperm(len(there), generator=generator("celebamask_hq", "faces", seed, split, label))
        found[label :: len(CLASSES)] = [there[row] for row in order[:asked].tolist()]
    return tuple(found)


def described(place: Path, numbers: Sequence[int]) -> str:
    """Digest of some photographs: numbers, labels and sizes of their files, masks included, wherever they lie."""
    files, labels = _files(place), _labels(place)
    told = [
        (
            number, labels.get(number), faces.size_of(_picture(place, number)),
            {part: faces.size_of(path) for part, path in files.get(number, {}).items()},
        )
        for number in numbers
    ]  # fmt: skip
    return keys.digest("celebamask_hq", told)


def _picture(place: Path, number: int) -> Path:
    return place / PICTURES / f"{number}.jpg"


# --- what they look like ---


def photographs(*, place: Path, content: str, numbers: Sequence[int], pixels: int) -> Data:
    """Faces of some numbers, their mouths as masks. Raises `InputError` where other files lie there than were
    described."""
    masks = face_masks(place=place, content=content, numbers=numbers, pixels=pixels)["mouth"]
    inputs = torch.stack([faces.shown(_picture(place, number), pixels) for number in numbers])
    labels = torch.tensor([int(_labels(place)[number]) for number in numbers])
    annotations = (~masks)[:, None].expand(inputs.shape)
    return Data(inputs, labels, torch.tensor(numbers), masks, annotations)


def face_masks(*, place: Path, content: str, numbers: Sequence[int], pixels: int) -> dict[str, Tensor]:
    """The seven regions of faces, (N, pixels, pixels) bool each. Raises `InputError` as `photographs`."""
    if described(place, numbers) != content:
        raise InputError(f"celebamask_hq: expected the photographs that were described in {place}, found others")
    seen = np.stack([_parts_seen(_files(place).get(number, {}), pixels) for number in numbers])
    places = {part: number for number, part in enumerate(PARTS, 1)}
    return {name: torch.from_numpy(np.isin(seen, [places[part] for part in parts])) for name, parts in REGIONS.items()}


def _parts_seen(files: dict[str, Path], pixels: int) -> NDArray[np.uint8]:
    """Which part each pixel shows, (pixels, pixels): 1 for the first of `PARTS` and so on, 0 for none; of a larger mask
    what lies in the middle of a pixel. Raises `InputError` for masks that cannot be read or differ in size."""
    from PIL import Image

    painted: NDArray[np.uint8] = np.zeros((pixels, pixels), np.uint8)
    sizes = set()
    for number, part in enumerate(PARTS, 1):
        if part not in files:
            continue
        try:
            with Image.open(files[part]) as opened:
                sizes.add(opened.size)
                small = opened.resize((pixels, pixels), Image.Resampling.NEAREST).convert("L")
        except Exception as error:  # whatever a damaged file makes of its reader
            raise InputError(f"mask {files[part].name}: cannot be read: {one_line(error)}") from error
        painted[np.asarray(small) > 0] = number
    if len(sizes) > 1 or any(width != height for width, height in sizes):
        raise InputError(f"masks of {min(files.values()).stem[:5]}: expected one square size, found {sorted(sizes)}")
    return painted
