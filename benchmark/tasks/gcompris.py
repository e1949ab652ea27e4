"""Photographs of Debian's package gcompris-qt-data, an educational program's: labelled, and there without a network.

| group | photographs | labels |
| --- | --- | --- |
| `animals` | 24, the longer side about 1024 px | the animal, every one once |
| `scenes` | 123, the longer side 320 px | tools 39, renewable energy 29, fishes 28, monuments 27 |

Drawings, sounds and the rest of the program stay where they are. Labels are the program's: its chameleon is a garden
lizard. Licences are the pictures' own: by the READMEs beside them in version 3.1, public domain or CC0, but for one
under the GPL (windmill6) and one that none lists (screwDriver); the package's copyright file
(`/usr/share/doc/gcompris-qt-data/copyright`) has CC BY and CC BY-SA as well, for pictures of earlier versions among
others. None of them comes with attribug.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from attribug.errors import InputError, near_misses, one_line
from attribug.sources import DIGEST_CHARACTERS
from attribug.tasks.rcc import read_rcc

if TYPE_CHECKING:
    from PIL import Image

FOLDER = Path("/usr/share/gcompris-qt/rcc")
PHOTOGRAPH = ".webp"  # drawings are .svg
ANIMALS = ("explore_farm_animals", "explore_world_animals")
SCENES = {"fishes": "fishes", "monuments": "monuments", "renewable": "renewable energy", "tools": "tools"}
"""Labels by the folder in the program's activity `categorization`."""
FILES = {"animals": ANIMALS, "scenes": ("categorization",)}
"""Activities by group."""
GROUPS = tuple(FILES)
FULL_NAMES = {"dragon": "Komodo dragon"}


def photographs(group: str) -> list[tuple[str, str, Image.Image]]:
    """Name, label and picture (RGB) of every photograph of a group, sorted by label and name.

    An animal's name is its label. Raises `InputError` for another group, and where the package is not installed or
    holds something else.
    """
    if group not in GROUPS:
        raise InputError(f"gcompris: expected one of {', '.join(GROUPS)}, found {group!r}{near_misses(group, GROUPS)}")
    if absent := missing():
        raise InputError(absent)
    found = _animals() if group == "animals" else _scenes()
    ordered = sorted((label, name, content) for name, label, content in found)
    return [(name, label, _picture(name, content)) for label, name, content in ordered]


def missing() -> str:
    """Empty where the package is installed, else a line that says how it comes to be."""
    files = [f"{activity}.rcc" for activities in FILES.values() for activity in activities]
    absent = [name for name in files if not (FOLDER / name).is_file()]
    if not absent:
        return ""
    expected = f"expected photographs in {FOLDER}, found no {absent[0]}"
    return f"gcompris: {expected}; install Debian's package: apt-get install gcompris-qt-data"


def content(*groups: str) -> str:
    """Digest of the files that photographs of some groups are read from; of scenes, where no group is named."""
    files = dict.fromkeys(name for group in groups or ("scenes",) for name in FILES[group])
    total = hashlib.sha256(b"".join((FOLDER / f"{name}.rcc").read_bytes() for name in files))
    return total.hexdigest()[:DIGEST_CHARACTERS]


def _animals() -> list[tuple[str, str, bytes]]:
    found = []
    for activity in ANIMALS:
        for stem, content in _stored(activity, "animals"):
            name = FULL_NAMES.get(stem, stem.replace("_", " "))
            found.append((name, name, content))
    return found


def _scenes() -> list[tuple[str, str, bytes]]:
    return [
        (stem, label, content)
        for folder, label in SCENES.items()
        for stem, content in _stored("categorization", f"images/{folder}")
    ]


def _stored(activity: str, folder: str) -> list[tuple[str, bytes]]:
    """Names, as the program has them, and files of the photographs in a folder of an activity."""
    place = f"/gcompris/src/activities/{activity}/resource/{folder}"
    files = read_rcc(FOLDER / f"{activity}.rcc", PHOTOGRAPH)
    found = [(Path(path).stem, content) for path, content in files.items() if path.rpartition("/")[0] == place]
    if not found:
        raise InputError(f"gcompris: expected photographs in {place} of {activity}.rcc, found none: another version?")
    return found


def _picture(name: str, content: bytes) -> Image.Image:
    from PIL import Image

    try:
        return Image.open(io.BytesIO(content)).convert("RGB")
    except Exception as error:  # whatever a damaged file makes of its reader
        raise InputError(f"gcompris: {name}: no picture: {one_line(error)}") from error
