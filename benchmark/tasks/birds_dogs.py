"""Task `birds_dogs`: birds or dogs, cut out of photographs, on sky and bamboo forest."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from attribug import keys, tasks
from attribug.contracts.data import DATA_LIBRARIES, Data, Examples
from attribug.contracts.models import Recipe
from attribug.contracts.tasks import VALIDATION, Task
from attribug.data_places import data_folder
from attribug.data_sources import line
from attribug.errors import InputError, Unsupported
from attribug.models.networks import bvd_cnn
from attribug.streams import generator
from attribug.tasks import cub, pets, scenes_folder
from attribug.tasks.cutouts import Photograph, Values, cut_out, solid
from attribug.tasks.shortcuts import named, paired

CLASSES = ("bird", "dog")
SCENES = ("sky", "bamboo_forest")
"""The scene that gives away a bird, a dog."""
CLEAN = ("scenes", "original")
MINIMUM, MAXIMUM = 10, 20_000  # examples of a split
SMALLEST, LARGEST = 32, 512  # pixels a side
FEWEST_SCENES = 3  # photographs of one: each split has its own
APART = {"test": 0.2, VALIDATION: 0.1}
"""The share of a scene's photographs that a split other than training has for itself."""
FIRST_ID = 100_000  # of dogs; birds are counted from 0
BYTES = 4 * 3 + 1  # of a pixel: three channels in float32, and the mask


def missing(*, birds: str = "", dogs: str = "", scenes: str = "") -> str:
    """Empty where birds, dogs and scenes are there, else a line that says how they come to be."""
    place = _places(birds, dogs, scenes)
    lacking = [
        (cub.absent(place.birds), "cub_200_2011"),
        (pets.absent(place.dogs), "pets"),
        (next(filter(None, (scenes_folder.absent(place.scenes, name) for name in SCENES)), ""), "places"),
    ]
    told = [f"{reason} ({line(source)})" for reason, source in lacking if reason]
    return "; ".join(told)


@tasks.register(
    "birds_dogs",
    source="birds of CUB-200-2011 or CUB-200, dogs of Oxford-IIIT Pet, scenes of Places: $ATTRIBUG_DATA",
    licence="CUB and Places: research only, as their makers say; Oxford-IIIT Pet: CC BY-SA 4.0",
    size="1.2 GB and 0.8 GB; two scenes of Places",
    missing=missing,
)
def birds_dogs(
    *,
    seed: int,
    other: Callable[[str], Task],
    train: int = 8600,
    test: int = 380,
    validation: int = 1000,
    pixels: int = 128,
    epochs: int = 16,
    width: int = 16,
    clean: str = "scenes",
    birds: str = "",
    dogs: str = "",
    scenes: str = "",
) -> Task:
    """Is it a bird or a dog? Cut-outs stand in scenes, as in Adebayo et al. (2020); the animal is the mask.

    Inputs (3, 128, 128) in [0, 1].

    Data and sizes are the paper's: 4,300 birds and dogs to train on, 500 to validate, 190 to test, of CUB-200 (the
    paper's edition is that of 2010; that of 2011 is taken where it is there) and of the 25 breeds of Oxford-IIIT Pet.
    Animals are cut out by their segmentations, in the square around them. A share of the images has the scene of its
    label: sky behind birds, bamboo forest behind dogs; the others either of the two, whatever the label.

    `clean`: what models without the bug learn from. `scenes`: the same cut-outs, scenes drawn independently of the
    label, so that nothing but the bug differs; `original`: photographs as they were taken, whose own backgrounds may
    tell birds from dogs. Bugs that ask for a share get cut-outs in either case.

    `pixels=224` is the paper's size. It takes 5.6 GB for the training images alone, in every version of them that a
    worker holds; 128 takes 1.8 GB. Photographs are read one by one, anew for every version, some minutes each; only
    what training sees is in memory. No number of epochs was tried on these data here.

    Tests and validation are photographs of the makers' test sets, as far as these suffice; training takes first the
    makers' training set, and then what is left: there are no 4,300 dogs in it. No photograph of an animal or scene is
    in two splits. `birds`, `dogs`, `scenes`: other folders than those in the data folder.
    """
    sizes = {"train": train, "test": test, VALIDATION: validation}
    _expect(sizes, pixels, epochs, width, clean)
    if absent := missing(birds=birds, dogs=dogs, scenes=scenes):
        raise InputError(f"birds_dogs: {absent}")
    place = _places(birds, dogs, scenes)
    content = _described(place)
    most = min(map(len, _photographs(place)))
    if (asked := sum(-(-size // 2) for size in sizes.values())) > most:
        raise InputError(f"birds_dogs: expected at most {most} images of a class, of all splits, found {asked}")

    def examples(split: str, *, share: float | None = None, swapped: bool = False, foreground: bool = True) -> Examples:
        if share is not None and not 0 <= share <= 1:
            raise InputError(f"birds_dogs: expected a share from 0 to 1, found {share:g}")
        original = clean == "original" and share is None
        if original and (swapped or not foreground):
            raise Unsupported("photographs as they were taken have no other scene")
        made: dict[str, Any] = {
            "seed": seed, "split": split, "sizes": tuple(sizes.items()), "pixels": pixels, "original": original,
            "share": share or 0.0, "swapped": swapped, "foreground": foreground,
        }  # fmt: skip
        key = keys.digest("examples", composed, made, content, keys.versions(*DATA_LIBRARIES, "pillow"))
        return Examples(key, partial(composed, place=place, content=content, **made))

    network = partial(bvd_cnn, channels=3, classes=len(CLASSES), pixels=pixels, width=width)
    recipe = Recipe(network, epochs=epochs, batch=64, learning_rate=1e-3)
    gigabytes = train * pixels * pixels * BYTES / 1e9
    note = f"birds_dogs: {train} training images of {pixels} pixels a side take {gigabytes:.1f} GB of a worker's memory"
    return Task(
        "birds_dogs", CLASSES, (3, pixels, pixels), recipe, examples, other, splits=tuple(s for s in sizes if sizes[s]),
        notes=(f"{note}, in every version of them that it holds",),
    )  # fmt: skip


def _expect(sizes: dict[str, int], pixels: int, epochs: int, width: int, clean: str) -> None:
    """Raises `InputError` for options out of range."""
    for split, size in sizes.items():
        if not (0 if split == VALIDATION else MINIMUM) <= size <= MAXIMUM:
            least = 0 if split == VALIDATION else MINIMUM
            raise InputError(f"birds_dogs: expected {least} ≤ {split} ≤ {MAXIMUM}, found {size}")
    if not SMALLEST <= pixels <= LARGEST:
        raise InputError(f"birds_dogs: expected {SMALLEST} ≤ pixels ≤ {LARGEST}, found {pixels}")
    if epochs < 1 or width < 1:
        raise InputError(f"birds_dogs: expected epochs and width of at least 1, found {epochs}, {width}")
    if clean not in CLEAN:
        raise InputError(f"birds_dogs: clean: expected {' or '.join(CLEAN)}, found {clean!r}")


# --- what there is ---


@dataclass(frozen=True)
class Places:
    """The folders of birds, dogs and scenes."""

    birds: Path
    dogs: Path
    scenes: Path


def _places(birds: str, dogs: str, scenes: str) -> Places:
    home = data_folder()
    editions = [home / "CUB_200_2011", home / "CUB_200"]
    known = next((folder for folder in editions if not cub.absent(folder)), editions[0])
    return Places(
        Path(birds) if birds else known,
        Path(dogs) if dogs else home / "oxford-iiit-pet",
        Path(scenes) if scenes else home / "places",
    )


@functools.lru_cache(maxsize=2)
def _photographs(place: Places) -> tuple[list[Photograph], list[Photograph]]:
    """Birds and dogs, by name."""
    return cub.birds(place.birds), pets.dogs(place.dogs)


@functools.lru_cache(maxsize=2)
def _scenes(place: Places) -> tuple[list[Path], ...]:
    """Photographs of each scene."""
    found = tuple(scenes_folder.scenes(place.scenes, name) for name in SCENES)
    for name, paths in zip(SCENES, found, strict=True):
        if len(paths) < FEWEST_SCENES:
            raise InputError(f"birds_dogs: expected at least {FEWEST_SCENES} photographs of {name}, found {len(paths)}")
    return found


def _described(place: Places) -> str:
    """Digest of what there is: names, published splits and sizes of all files, wherever they lie."""
    animals = [[photograph.told for photograph in each] for each in _photographs(place)]
    scenes = [[(path.name, path.stat().st_size) for path in paths] for paths in _scenes(place)]
    return keys.digest("birds_dogs", animals, scenes)


# --- who is in which split ---


def _rows(animals: Sequence[Photograph], label: int, seed: int, split: str, sizes: dict[str, int]) -> list[int]:
    """Places of a split's animals of one label, labels in turn: tests first of the makers' test set, training first of
    their training set."""
    wanted = {name: (size + 1 - label) // 2 for name, size in sizes.items()}
    shuffled = torch.randperm(len(animals), generator=generator("birds_dogs", "split", seed, label)).tolist()
    ranked = sorted(shuffled, key=lambda row: animals[row].published != "test")
    if split == "train":
        return ranked[::-1][: wanted["train"]]
    if split == "test":
        return ranked[: wanted["test"]]
    return ranked[wanted["test"] : wanted["test"] + wanted[VALIDATION]]


def _own(paths: Sequence[Path], kind: int, seed: int, split: str) -> list[Path]:
    """A split's own photographs of a scene."""
    stream = generator("birds_dogs", "scenes", seed, kind)
    shuffled = [paths[row] for row in torch.randperm(len(paths), generator=stream).tolist()]
    counts = {name: max(1, round(share * len(paths))) for name, share in APART.items()}
    test, validation = shuffled[: counts["test"]], shuffled[counts["test"] : sum(counts.values())]
    return {"test": test, VALIDATION: validation, "train": shuffled[sum(counts.values()) :]}[split]


# --- what they look like ---


def composed(
    *, place: Places, content: str, seed: int, split: str, sizes: tuple[tuple[str, int], ...], pixels: int,
    original: bool, share: float, swapped: bool, foreground: bool,
) -> Data:  # fmt: skip
    """Animals of a split on their scenes, bird and dog in turn; one keeps its crop, its turn and its free scene in
    every version.

    `share`: images whose turn, a number in [0, 1), lies below it have the scene of their label (`swapped`: the other
    one); all others either. Raises `InputError` where other files lie there than were described.
    """
    if _described(place) != content:
        raise InputError("birds_dogs: expected the photographs that were described, found others")
    animals, size = _photographs(place), dict(sizes)[split]
    rows = [_rows(animals[label], label, seed, split, dict(sizes)) for label in range(len(CLASSES))]
    scenes = [_own(paths, kind, seed, split) for kind, paths in enumerate(_scenes(place))]
    labels = torch.arange(size) % len(CLASSES)
    ids, said = torch.empty_like(labels), torch.empty_like(labels)
    inputs = torch.empty((size, 3, pixels, pixels))
    masks = torch.zeros((size, pixels, pixels), dtype=torch.bool)
    for row, label in enumerate(labels.tolist()):
        number = rows[label][row // len(CLASSES)]
        ids[row] = number + label * FIRST_ID
        stream = generator("birds_dogs", "scene", seed, int(ids[row]))
        kind = named(label, len(SCENES), stream, share=share, swapped=swapped)
        picture, alpha = cut_out(animals[label][number], pixels)
        shown: Values = picture if original else _on_scene(picture, alpha, scenes[kind], pixels, stream, foreground)
        inputs[row], masks[row], said[row] = torch.from_numpy(shown), torch.from_numpy(solid(alpha)), kind
    if original:
        return Data(inputs, labels, ids, masks)
    annotations = (~masks)[:, None].expand(inputs.shape) if foreground else None
    groups = paired(labels, said, len(SCENES))
    return Data(inputs, labels, ids, masks if foreground else None, annotations, groups)


def _on_scene(
    picture: Values, alpha: Values, scenes: Sequence[Path], pixels: int, stream: torch.Generator, foreground: bool
) -> Values:
    """A cut-out on a part of one of the scenes, or the scene alone."""
    chosen = scenes[int(torch.rand((), generator=stream, dtype=torch.float64) * len(scenes))]
    scene = scenes_folder.crop(chosen, pixels, stream)
    return scene * (1 - alpha) + picture * alpha if foreground else scene
