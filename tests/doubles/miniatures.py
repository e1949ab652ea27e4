"""Birds, dogs and scenes in small, laid down exactly as their makers lay them down."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw
from scipy.io import savemat

SPECIES = ("001.Black_footed_Albatross", "002.Laysan_Albatross")
BREEDS = (("american_bulldog", 2, 2, 1), ("Abyssinian", 1, 1, 1), ("beagle", 5, 2, 4))
"""Name, number among all breeds, species (1 cat, 2 dog), number in the species."""
SCENES = {"sky": (90, 150, 250), "bamboo_forest": (60, 140, 40)}


def photograph(seed: int, size: tuple[int, int]) -> tuple[Image.Image, np.ndarray]:
    """A disc on noise, and where it is, (H, W) bool."""
    rng = np.random.default_rng(seed)
    width, height = size
    picture = Image.fromarray(rng.integers(0, 255, (height, width, 3), dtype=np.uint8))
    shape = Image.new("1", size)
    radius = int(rng.integers(6, 10))
    x, y = int(rng.integers(radius, width - radius)), int(rng.integers(radius, height - radius))
    box = (x - radius, y - radius, x + radius, y + radius)
    ImageDraw.Draw(shape).ellipse(box, fill=1)
    ImageDraw.Draw(picture).ellipse(box, fill=tuple(int(each) for each in rng.integers(100, 255, 3)))
    return picture, np.asarray(shape)


def names(count: int, species: str) -> list[str]:
    stem = species.partition(".")[2]
    return [f"{species}/{stem}_{number:04d}_{79600 + number}.jpg" for number in range(1, count + 1)]


def cub_2011(folder: Path, each: int = 6) -> None:
    """The archive CUB_200_2011.tgz, unpacked, and that of the segmentations beside it."""
    rows = [name for species in SPECIES for name in names(each, species)]
    for number, name in enumerate(rows, 1):
        picture, shape = photograph(number, (50, 40 + number))
        soft = np.where(shape, 255, 0).astype(np.uint8)
        soft[0, 0] = 51  # one of five people was wrong
        write(folder / "images" / name, picture)
        write((folder / "segmentations" / name).with_suffix(".png"), Image.fromarray(soft))
    lines = {
        "images.txt": [f"{number} {name}" for number, name in enumerate(rows, 1)],
        "train_test_split.txt": [f"{number} {number % 2}" for number in range(1, len(rows) + 1)],
        "image_class_labels.txt": [f"{n} {1 + SPECIES.index(name.split('/')[0])}" for n, name in enumerate(rows, 1)],
        "bounding_boxes.txt": [f"{number} 1.0 2.0 30.0 20.0" for number in range(1, len(rows) + 1)],
        "classes.txt": [f"{number} {species}" for number, species in enumerate(SPECIES, 1)],
    }
    for file, content in lines.items():
        (folder / file).write_text("\n".join(content) + "\n")


def cub_2010(folder: Path, each: int = 6) -> None:
    """The archives images.tgz, annotations.tgz and lists.tgz, unpacked."""
    rows = [name for species in SPECIES for name in names(each, species)]
    for number, name in enumerate(rows, 1):
        picture, shape = photograph(number, (50, 40 + number))
        write(folder / "images" / name, picture)
        file = (folder / "annotations-mat" / name).with_suffix(".mat")
        file.parent.mkdir(parents=True, exist_ok=True)
        box = {"left": 1, "top": 2, "right": 30, "bottom": 20}
        savemat(file, {"seg": shape.astype(np.uint8), "bbox": box, "wikipedia": "text"})
    lists = {"train": rows[::2], "test": rows[1::2], "files": rows}
    (folder / "lists").mkdir()
    for name, content in lists.items():
        (folder / "lists" / f"{name}.txt").write_text("\n".join(content) + "\n")


def pets(folder: Path, each: int = 6) -> None:
    """The archives images.tar.gz and annotations.tar.gz, unpacked."""
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for place, (breed, number, species, its_own) in enumerate(BREEDS):
        for count in range(1, each + 1):
            name = f"{breed}_{count}"
            picture, shape = photograph(1000 * (place + 1) + count, (60 + count, 44))
            trimap = np.where(shape, 1, 2).astype(np.uint8)
            edge = shape ^ np.roll(shape, 1, 0)
            trimap[edge] = 3
            write(folder / "images" / f"{name}.jpg", picture)
            write(folder / "annotations" / "trimaps" / f"{name}.png", Image.fromarray(trimap))
            lists["trainval" if count % 2 else "test"].append(f"{name} {number} {species} {its_own}")
    for listed, lines in lists.items():
        (folder / "annotations" / f"{listed}.txt").write_text("\n".join(lines) + "\n")


def scenes(folder: Path, each: int = 10, form: str = "{scene}") -> None:
    """Photographs of sky and bamboo forest, in folders of a form."""
    for scene, colour in SCENES.items():
        for number in range(each):
            noise = np.random.default_rng(number).integers(-20, 20, (48, 64, 3))
            pixels = (np.asarray(colour) + noise).clip(0, 255).astype(np.uint8)
            write(folder / form.format(scene=scene, letter=scene[0]) / f"{number:08d}.jpg", Image.fromarray(pixels))


def heap(folder: Path, each: int = 10) -> None:
    """Places365's validation photographs of 256 pixels, as torchvision reads them."""
    numbers = {"airfield": 0, "bamboo_forest": 36, "sky": 307}
    lines = []
    for place, number in enumerate(numbers.values()):
        for count in range(each):
            name = f"Places365_val_{place * each + count + 1:08d}.jpg"
            write(folder / "val_256" / name, Image.new("RGB", (40, 40), (number % 256, 10, 10)))
            lines.append(f"{name} {number}")
    (folder / "places365_val.txt").write_text("\n".join(lines) + "\n")
    named = [f"/{scene[0]}/{scene} {number}" for scene, number in numbers.items()]
    (folder / "categories_places365.txt").write_text("\n".join(named) + "\n")


def everything(home: Path) -> None:
    """All that the task needs, in the data folder; birds of 2011."""
    cub_2011(home / "CUB_200_2011", each=20)
    pets(home / "oxford-iiit-pet", each=20)
    scenes(home / "places")


def write(path: Path, picture: Image.Image) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path, quality=95)
