"""Birds, dogs, scenes and faces in small, laid down exactly as their makers lay them down; weights as torch does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torchvision
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


# --- faces ---

CELEBA_SIZE = (178, 218)
GROUPS = ((0, 0), (0, 1), (1, 0), (1, 1))
"""Label, and hair: 0 blond, 1 black."""
COLOURS = {0: (230, 220, 90), 1: (15, 15, 15)}  # of hair
MOUTH = (220, 0, 0)


def celeba(folder: Path, each: int = 4) -> None:
    """CelebA as torchvision stores it: of each partition, label and hair some faces, and one without a colour of hair.

    A face is its hair's colour on top, and below a red bar as wide as its mouth, whose ends are the landmarks.
    """
    rows = [(part, smiles, hair) for part in range(3) for smiles, hair in GROUPS for _ in range(each)]
    rows += [(part, part % 2, 2) for part in range(3)]
    attributes, landmarks, partition = [], [], []
    rng = np.random.default_rng(0)
    for number, (part, smiles, hair) in enumerate(rows, 1):
        name = f"{number:06d}.jpg"
        left, right = int(rng.integers(60, 75)), int(rng.integers(95, 115))
        height = int(rng.integers(140, 160))
        picture = Image.new("RGB", CELEBA_SIZE, (150, 150 + number % 50, 180))
        draw = ImageDraw.Draw(picture)
        draw.rectangle((0, 0, 178, 50), fill=COLOURS.get(hair, (120, 60, 20)))
        draw.rectangle((left, height - 3, right, height + 3), fill=MOUTH)
        write(folder / "img_align_celeba" / name, picture)
        both = 1 if number == len(rows) else -1  # the last one's hair is said to be black and blond
        told = (
            both if hair == 2 else 2 * (hair == 1) - 1,
            both if hair == 2 else 2 * (hair == 0) - 1,
            -1,
            2 * smiles - 1,
        )
        attributes.append(f"{name} " + " ".join(f"{each:2d}" for each in told))
        landmarks.append(f"{name}    69  109  106  113   77  142   {left}  {height}   {right}  {height}")
        partition.append(f"{name} {part}")
    points = [f"{each}_{axis}" for each in ("lefteye", "righteye", "nose", "leftmouth", "rightmouth") for axis in "xy"]
    lists = {
        "list_attr_celeba.txt": [str(len(rows)), "Black_Hair Blond_Hair Male Smiling ", *attributes],
        "list_landmarks_align_celeba.txt": [str(len(rows)), " ".join(points), *landmarks],
        "list_eval_partition.txt": partition,
        "identity_CelebA.txt": [f"{number:06d}.jpg {number}" for number in range(1, len(rows) + 1)],
        "list_bbox_celeba.txt": ["0", "image_id x_1 y_1 width height"]
        + [f"{number:06d}.jpg 95 71 226 313" for number in range(1, len(rows) + 1)],
    }
    for file, lines in lists.items():
        (folder / file).write_text("\n".join(lines) + "\n")


NUMBERS = (0, 1, 2, 1999, 2000, 23_999, 24_000, 24_001, 26_998, 26_999, 27_000, 27_001, 27_002, 27_003, 29_999)
"""Of CelebAMask-HQ's 30,000: at both ends of splits and of folders of masks."""
DRAWN = {
    "skin": (100, 80, 420, 480), "l_brow": (150, 160, 230, 180), "r_brow": (290, 160, 370, 180),
    "l_eye": (160, 200, 220, 220), "r_eye": (300, 200, 360, 220), "nose": (230, 220, 290, 320),
    "mouth": (200, 370, 320, 400), "u_lip": (196, 360, 324, 370), "l_lip": (196, 400, 324, 412),
    "neck": (180, 480, 340, 511), "hair": (80, 20, 440, 166), "l_ear": (70, 220, 100, 300),
}  # fmt: skip
"""Rectangles of parts in a mask, left, top, right, bottom inclusive; hair lies over a part of the brows."""
GLASSES, EARLESS, FACELESS = 2000, 27_001, 29_999
"""Faces with glasses, with no ears, with no mouth."""


def parts(number: int) -> dict[str, tuple[int, int, int, int]]:
    """Rectangles of a face's parts: each lies a little lower than that of the number before."""
    place = NUMBERS.index(number)
    drawn = {name: (box[0], box[1] + place, box[2], min(511, box[3] + place)) for name, box in DRAWN.items()}
    if number == GLASSES:
        drawn["eye_g"] = (150, 196, 370, 230)
    absent = {EARLESS: {"l_ear"}, FACELESS: {"mouth", "u_lip", "l_lip"}}.get(number, set())
    return {name: box for name, box in drawn.items() if name not in absent}


def celebamask_hq(folder: Path) -> None:
    """CelebAMask-HQ.zip, unpacked; every other face smiles. A picture is red where the mouth and its lips are."""
    for number in NUMBERS:
        picture = Image.new("RGB", (1024, 1024), (90, 120, 150 + NUMBERS.index(number)))
        for name, box in parts(number).items():
            mask = Image.new("RGB" if name == "skin" else "L", (512, 512))
            ImageDraw.Draw(mask).rectangle(box, fill="white")
            write(folder / "CelebAMask-HQ-mask-anno" / str(number // 2000) / f"{number:05d}_{name}.png", mask)
            if name in {"mouth", "u_lip", "l_lip"}:
                large = (2 * box[0], 2 * box[1], 2 * box[2] + 1, 2 * box[3] + 1)
                ImageDraw.Draw(picture).rectangle(large, fill=MOUTH)
        write(folder / "CelebA-HQ-img" / f"{number}.jpg", picture)
    attributes = [f"{number}.jpg  -1 {2 * (row % 2) - 1:2d}  1" for row, number in enumerate(NUMBERS)]
    mapping = [f"{number:<12d}{number + 7:<12d}{number + 8:06d}.jpg" for number in NUMBERS]
    lists = {
        "CelebAMask-HQ-attribute-anno.txt": [str(len(NUMBERS)), "Male Smiling Young ", *attributes],
        "CelebA-HQ-to-CelebA-mapping.txt": ["idx         orig_idx    orig_file   ", *mapping],
    }
    for file, lines in lists.items():
        (folder / file).write_text("\n".join(lines) + "\n")


# --- weights ---


def cached_weights(hub: Path, name: str) -> dict[str, torch.Tensor]:
    """Random weights where torch would keep those that torchvision has published of a classifier; its state dict."""
    file = torchvision.models.get_model_weights(name).DEFAULT.url.rpartition("/")[2]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        state: dict[str, torch.Tensor] = torchvision.models.get_model(name, weights=None).state_dict()
    (hub / "checkpoints").mkdir(parents=True)
    torch.save(state, hub / "checkpoints" / file)
    return state
