"""Cut-outs of animals of Debian's package tuxpaint-stamps-default, a drawing program's: photographs, with outlines.

Of the 105 pictures of birds and mammals those of `SPECIES` are photographs of one whole animal and nothing else, each
looked at on sky, on grass and on magenta; those of `EXCLUDED` are not. A stamp's name is the path of its file below the
folder, without the ending. It is in colour, with its opacity; the longer side has 100 to 400 pixels.

By its copyright file, `/usr/share/doc/tuxpaint-stamps-default/copyright`, the package as a whole is under the GPL,
version 2; who gave a stamp is in the changelog beside. None of them comes with attribug.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from attribug.errors import InputError, one_line
from attribug.sources import DIGEST_CHARACTERS

if TYPE_CHECKING:
    from PIL import Image

FOLDER = Path("/usr/share/tuxpaint/stamps/animals")
ENDING = ".png"
OPAQUE = 128  # of 255: pixels from here on belong to the animal
SPECIES: dict[str, dict[str, tuple[str, ...]]] = {
    "bird": {
        "blackbird": ("birds/blackbird",),
        "chicken": ("birds/chicken_profile", "birds/hen", "birds/rooster"),
        "crane": ("birds/crowned_crane",),
        "crow": ("birds/crow",),
        "cuckoo": ("birds/cuckoo",),
        "duck": ("birds/drake", "birds/duck"),
        "flamingo": ("birds/pink_flamingo",),
        "goose": ("birds/gander",),
        "guineafowl": ("birds/guineafowl",),
        "gull": ("birds/seagull", "birds/silver-gull"),
        "heron": ("birds/heron_greatblue", "birds/heron_greatblue_flying"),
        "lark": ("birds/lark",),
        "magpie": ("birds/magpie",),
        "ostrich": ("birds/nandou", "birds/ostrich"),
        "owl": ("birds/owl",),
        "parrot": ("birds/adelaide-rosella", "birds/rainbow-lorikeet"),
        "peafowl": ("birds/peacock",),
        "pelican": ("birds/pelican",),
        "penguin": ("birds/little-penguin", "birds/magellanic_penguin", "birds/penguin"),
        "pigeon": ("birds/pigeon",),
        "toucan": ("birds/tucan",),
        "turkey": ("birds/turkey",),
        "vulture": ("birds/vulture",),
    },
    "mammal": {
        "badger": ("mammals/badger",),
        "bear": ("mammals/bears/bear", "mammals/bears/european-bear"),
        "beaver": ("mammals/rodents/beaver",),
        "bison": ("mammals/bovines/bison",),
        "camel": ("mammals/camel/camel", "mammals/camel/dromedary"),
        "cattle": (
            "mammals/bovines/bull",
            "mammals/bovines/cow",
            "mammals/bovines/cow_white",
            "mammals/bovines/yak",
            "mammals/bovines/zebu",
        ),
        "chimpanzee": ("mammals/apes/chimp",),
        "deer": ("mammals/deer/caribou", "mammals/deer/deer", "mammals/deer/doe", "mammals/deer/wapiti"),
        "dog": ("mammals/dogs/dingo", "mammals/dogs/dog"),
        "dolphin": ("mammals/aquatic/dolphin",),
        "donkey": ("mammals/equines/donkey", "mammals/equines/donkey_eating"),
        "elephant": ("mammals/elephant",),
        "ferret": ("mammals/ferret",),
        "giraffe": ("mammals/giraffe",),
        "gnu": (
            "mammals/bovines/gnu-baby",
            "mammals/bovines/gnu-baby-stand",
            "mammals/bovines/gnu-sitting",
            "mammals/bovines/gnu-stand",
        ),
        "goat": ("mammals/bovines/goat", "mammals/bovines/mountaingoat"),
        "gorilla": ("mammals/apes/gorilla",),
        "hippopotamus": ("mammals/hippopotamus",),
        "horse": ("mammals/equines/horse",),
        "lion": ("mammals/cats/lion-2",),
        "marmot": ("mammals/rodents/marmot",),
        "mouse": ("mammals/rodents/mouse", "mammals/rodents/rat"),
        "otter": ("mammals/aquatic/otter",),
        "pig": ("mammals/pig", "mammals/pig_golden", "mammals/pig_golden2"),
        "rabbit": ("mammals/rabbit_little", "mammals/rodents/rabbit", "mammals/rodents/rabbit-2"),
        "rhinoceros": ("mammals/rhino_black",),
        "sea lion": ("mammals/aquatic/sea_lion",),
        "sheep": ("mammals/bovines/ram", "mammals/bovines/sheep", "mammals/bovines/sheep_lamb"),
        "squirrel": ("mammals/rodents/squirrel",),
        "tiger": ("mammals/cats/tiger",),
        "zebra": ("mammals/equines/zebra",),
    },
}
"""Stamps by class and by species, or what looks like one: the same animal photographed twice stands in one species."""
DRAWING, TOY, GROUND = "a drawing", "a toy", "grass or ground around it belongs to the picture"
EXCLUDED = {
    "birds/albino_peahen": GROUND,
    "birds/cartoon/penguin_with_spider": DRAWING,
    "birds/cartoon/pengwin": DRAWING,
    "birds/cartoon/tux": DRAWING,
    "birds/helmeted_guineafowl": "blades of grass across its body",
    "birds/quetzal": "the branch it sits on belongs to the picture",
    "mammals/apes/tamarin_emperor": "head and shoulders only, with leaves between its hairs",
    "mammals/aquatic/orca": "a print, with its lines",
    "mammals/aquatic/whale": "coloured by the water it was photographed in",
    "mammals/bears/cartoon/teddy_bear": DRAWING,
    "mammals/bears/toys/edward_bear": TOY,
    "mammals/bovines/indian_blackbuck": GROUND,
    "mammals/cats/cartoon/lion": "a painting of a toy",
    "mammals/cats/lion": GROUND,
    "mammals/cats/tiger_sumatran": GROUND,
    "mammals/dogs/fox": "the stump it stands on belongs to the picture",
    "mammals/echidna": "a silhouette",
    "mammals/hedgehog": DRAWING,
    "mammals/rodents/capybara": "no legs, and a fringe of grass",
    "mammals/wildboar": "two animals, with a fringe",
}
"""Stamps that are not for use, and why."""


def names() -> dict[str, tuple[str, str]]:
    """Class and species of every stamp that is for use, by its name."""
    return {
        stamp: (kind, species) for kind, held in SPECIES.items() for species, stamps in held.items() for stamp in stamps
    }


def stamp(name: str) -> Image.Image:
    """A stamp that is for use, RGBA, as large as its animal. Raises `InputError` where the package has another file."""
    return _stamp(FOLDER, name)


def missing() -> str:
    """Empty where the package is installed, else a line that says how it comes to be."""
    absent = next((name for name in names() if not (FOLDER / f"{name}{ENDING}").is_file()), "")
    if not absent:
        return ""
    expected = f"expected cut-outs in {FOLDER}, found no {absent}{ENDING}"
    return f"stamps: {expected}; install Debian's package: apt-get install tuxpaint-stamps-default"


def content() -> str:
    """Digest of the files of all stamps that are for use."""
    total = hashlib.sha256()
    for name in names():
        total.update(hashlib.sha256((FOLDER / f"{name}{ENDING}").read_bytes()).digest())
    return total.hexdigest()[:DIGEST_CHARACTERS]


@functools.lru_cache(maxsize=256)
def _stamp(folder: Path, name: str) -> Image.Image:
    from PIL import Image

    try:
        picture = Image.open(folder / f"{name}{ENDING}").convert("RGBA")
        box = picture.getchannel("A").point(lambda opacity: 255 * (opacity >= OPAQUE)).getbbox()
    except Exception as error:  # whatever a damaged file makes of its reader
        raise InputError(f"stamps: {name}: no picture: {one_line(error)}") from error
    if box is None:
        raise InputError(f"stamps: {name}: expected an animal, found a picture that is transparent")
    return picture.crop(box)
