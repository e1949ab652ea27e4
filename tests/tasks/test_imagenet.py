"""Networks that know ImageNet, as tasks: what they see, what is known of photographs, what bugs do with them."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as vision
from PIL import Image

from attribug import bugs, tasks
from attribug.bugs.reinit import layers
from attribug.conformance.tasks import small
from attribug.contracts.models import Derived
from attribug.contracts.tasks import Task
from attribug.errors import InputError, Unsupported
from attribug.models import perturbed
from attribug.models.given import load
from attribug.models.lab import Lab, logits
from attribug.models.memory import Memory
from attribug.models.own import own
from attribug.models.preparation import Preparation
from attribug.models.pretrained import classes
from attribug.plans import planning
from attribug.tasks import imagenet as module
from attribug.tasks.folders import Prepared
from attribug.tasks.imagenet import ANIMALS, imagenet, of_pictures

TASKS = ("imagenet_lite0", "imagenet_squeezenet")
SEEDS = (0, 1)
NET = """
import torch
from torch import nn
from attribug.models.preparation import Preparation

def load():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 1000)
        )
    return network, Preparation(40, (0.4, 0.5, 0.6), (0.2, 0.25, 0.3), bgr={bgr})
"""
KINDS = ("koala", "jaguar")


def here(name: str) -> pytest.MarkDecorator:
    absent = tasks.get(name).absent
    return pytest.mark.skipif(bool(absent) and not os.environ.get("CI"), reason=absent)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs of two of ImageNet's classes and a small network, in a folder."""
    folder = tmp_path_factory.mktemp("imagenet")
    for bgr in (False, True):
        (folder / f"net_{bgr}.py".lower()).write_text(NET.format(bgr=bgr))
    rng = np.random.default_rng(0)
    for kind in KINDS:
        (folder / "photographs" / kind).mkdir(parents=True)
        for number in range(10):
            picture = rng.integers(0, 256, (50, 70, 3), dtype=np.uint8)
            Image.fromarray(picture).resize((140, 100)).save(folder / "photographs" / kind / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def _anew() -> None:
    module._looked.cache_clear()
    module._read.cache_clear()


def task(place: Path, seed: int = 0, **options: Any) -> Task:
    given = {"network": f"{place}/net_false.py:load", "data": f"{place}/photographs", "pixels": 40}
    return imagenet(seed=seed, other=small, **{**given, **options})


# --- the network ---


@pytest.mark.parametrize("bgr", [False, True])
@pytest.mark.parametrize("side", [40, 24, 64])
def test_a_network_sees_in_pictures_what_its_makers_prepare(place: Path, bgr: bool, side: int) -> None:
    """torchvision resizes and normalises."""
    name = f"{place}/net_{bgr}.py:load".lower()
    model, network = of_pictures(name=name, pixels=40), own(name).model
    shown = torch.rand(3, 3, side, side, generator=torch.Generator().manual_seed(side))
    sized = shown if side == 40 else vision.resize(shown, [40, 40], antialias=False)
    ordered = sized.flip(1) if bgr else sized
    with torch.no_grad():
        expected = network(vision.normalize(ordered, [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
        other = network(vision.normalize(ordered.flip(1), [0.4, 0.5, 0.6], [0.2, 0.25, 0.3]))
        torch.testing.assert_close(model(shown), expected, rtol=1e-4, atol=1e-5)
        assert not torch.allclose(model(shown), other, rtol=1e-4, atol=1e-5)


@here("imagenet_squeezenet")
def test_squeezenet_sees_blue_green_red(place: Path) -> None:
    published, shown = own("squeezenet"), torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    prepare = published.transform
    assert isinstance(prepare, Preparation)
    assert prepare.bgr
    with torch.no_grad():
        expected = published.model(vision.normalize(shown.flip(1), list(prepare.mean), list(prepare.std) * 3))
        torch.testing.assert_close(of_pictures(name="squeezenet", pixels=64)(shown), expected, rtol=1e-3, atol=1e-2)


def test_the_task_explains_the_network_itself(place: Path) -> None:
    made = task(place)
    assert made.given is not None
    model, data = load(made.given.spec), made.examples("test").load()
    assert (float(data.inputs.min()), float(data.inputs.max())) == pytest.approx((0, 1), abs=0.1)
    assert logits(model, data.inputs).shape == (10, 1000)
    assert made.classes == classes()
    assert made.given.layers == ("network.0", "network.4")


def test_random_weights_are_refused(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError, match="network 'torchvision:alexnet': expected published weights, found none"):
        of_pictures(name="torchvision:alexnet", pixels=64)


# --- the photographs ---


def test_photographs_are_labelled_by_their_folders(place: Path) -> None:
    made = task(place)
    assert made.given is not None
    assert made.given.known is not None
    data, known = made.examples("test").load(), made.given.known.load()
    assert sorted(data.labels.unique().tolist()) == sorted(classes().index(kind) for kind in KINDS)
    assert len(known) == 20
    assert known.labels.bincount().max() == 10


def test_halves_share_no_photograph_and_hold_every_label(place: Path) -> None:
    train, test = (task(place).examples(split).load() for split in ("train", "test"))
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == list(range(300_000, 300_020))
    assert sorted(train.labels.unique(return_counts=True)[1].tolist()) == [5, 5]
    assert len(set(test.labels[:2].tolist())) == 2, "any few have every label"
    assert task(place, 1).examples("test").load().ids.tolist() != test.ids.tolist()


def test_photographs_without_folders_get_the_networks_labels(place: Path, tmp_path: Path) -> None:
    for number, path in enumerate(sorted((place / "photographs").rglob("*.png"))):
        Image.open(path).save(tmp_path / f"{number}.png")
    made = task(place, data=str(tmp_path))
    assert made.given is not None
    data = made.examples("test").load()
    assert data.labels.tolist() == logits(load(made.given.spec), data.inputs).argmax(1).tolist()
    assert made.given.known is None
    assert "nobody says what they show" in made.notes[0]


def test_wordnets_names_are_in_the_order_of_the_outputs() -> None:
    folders = tuple(f"n{number:08d}" for number in range(1000))
    read = Prepared(torch.zeros(3, 1), (), ("a", "b", "c"), folders, (999, 0, 7))
    assert module._named(read, classes()) == (999, 0, 7)
    fewer = Prepared(torch.zeros(3, 1), (), ("a", "b", "c"), folders[:8], (7, 0, 7))
    assert module._named(fewer, classes()) == (None, None, None)


def test_the_folder_that_torchvision_unpacks_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path))
    assert module._place("") == tmp_path / "imagenet"
    (tmp_path / "imagenet" / "val").mkdir(parents=True)
    assert module._place("") == tmp_path / "imagenet" / "val"
    assert module._place("gcompris:animals") == "gcompris:animals"


def test_animals_have_names_of_imagenets() -> None:
    assert set(ANIMALS.values()) <= set(classes())


def test_others_than_were_described_are_not_read(place: Path, tmp_path: Path) -> None:
    for number in range(8):
        Image.new("RGB", (50, 50), (number, 0, 0)).save(tmp_path / f"{number}.png")
    examples = task(place, data=str(tmp_path)).examples("test")
    Image.new("RGB", (50, 50), (200, 0, 0)).save(tmp_path / "3.png")
    module._read.cache_clear()
    with pytest.raises(InputError, match=r"expected those that were described in .*, found others"):
        examples.load()


# --- what is not done twice ---


def test_the_network_is_looked_at_once(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path))
    first = task(place)
    assert first.given is not None
    (stored,) = (tmp_path / "given").glob("*.json")
    monkeypatch.setattr(perturbed, "largest", None)
    module._looked.cache_clear()
    again = task(place, seed=1)
    assert again.given is not None
    assert (again.given.sigma, again.given.spec) == (first.given.sigma, first.given.spec)
    stored.write_text("damaged")
    module._looked.cache_clear()
    with pytest.raises(TypeError):
        task(place)


# --- bugs ---


def test_layers_are_reinitialised_from_the_top_from_the_bottom_and_alone(place: Path) -> None:
    made, lab = task(place), Lab(Memory())
    assert made.given is not None
    before = load(made.given.spec).state_dict()
    changed = {}
    for name, level in (("reinit", 1), ("reinit_bottom", 1), ("reinit_single", 2), ("reinit", "all")):
        contrast = bugs.get(name).function(made, level, 0, SEEDS)
        assert contrast.control == "perturbed"
        after = lab.model(contrast.contaminated.model).state_dict()
        changed[name, level] = {key.rpartition(".")[0] for key in after if not torch.equal(after[key], before[key])}
    top, bottom = {"network.4"}, {"network.0"}
    assert list(changed.values()) == [top, bottom, top, top | bottom]
    with pytest.raises(Unsupported, match="expected a level from 1 to 2 or 'all' for task imagenet, found 3"):
        bugs.get("reinit").function(made, 3, 0, SEEDS)


@here("imagenet_squeezenet")
def test_every_layer_of_squeezenet_can_be_reinitialised() -> None:
    made = tasks.get("imagenet_squeezenet").function(seed=0, other=small, pixels=64, most=8)
    assert made.given is not None
    count = len(layers(load(made.given.spec), made.given.layers))
    assert count == 26
    found = [bugs.get("reinit").function(made, level, 0, SEEDS) for level in (1, count, "all")]
    assert len({contrast.contaminated.model for contrast in found[:2]}) == 2
    with pytest.raises(Unsupported):
        bugs.get("reinit").function(made, count + 1, 0, SEEDS)


def test_nothing_is_trained(place: Path) -> None:
    with pytest.raises(Unsupported, match="task imagenet explains a network as it is"):
        task(place).clean(0)
    with pytest.raises(Unsupported, match="no background apart from its subject"):
        task(place).examples("test", share=1.0)


# --- as strangers ---


def foreign(place: Path, **options: Any) -> Any:
    """Digits in small, whose run has the network's task as well."""
    return replace(small("digits"), other=lambda name: task(place, **options))


def test_its_copies_explain_digits(place: Path) -> None:
    contrast = bugs.get("ood").function(foreign(place), "imagenet", 1, SEEDS)
    stranger, lab = contrast.contaminated.model, Lab(Memory())
    made = task(place)
    assert made.given is not None
    assert isinstance(stranger, Derived)
    assert stranger == perturbed.perturbed(made.given, 1)
    assert (contrast.contaminated.seed, contrast.target) == (1, "own")
    assert lab.outputs(stranger, contrast.contaminated.examples).shape[1] == 1000, "of 32 pixels a side, enlarged"
    (knows, *clean) = contrast.checks
    assert (knows.models, knows.examples) == ((stranger,), made.given.known)
    assert knows.at_least == pytest.approx(0.75), "half of the way from 10 of 20 to all"
    assert [check.models for check in clean] == [(side.model,) for side in contrast.controls]
    other = bugs.get("ood").function(foreign(place), "imagenet", 0, SEEDS)
    assert other.contaminated.model != stranger


def test_a_network_of_which_nobody_knows_whether_it_knows_anything_declines(place: Path, tmp_path: Path) -> None:
    for number in range(8):
        Image.new("RGB", (50, 50), (number, 0, 0)).save(tmp_path / f"{number}.png")
    with pytest.raises(Unsupported, match="nobody says what the photographs of task imagenet show"):
        bugs.get("ood").function(foreign(place, data=str(tmp_path)), "imagenet", 0, SEEDS)


def test_pictures_of_other_channels_are_refused(place: Path) -> None:
    grey = replace(foreign(place), shape=(1, 32, 32))
    with pytest.raises(InputError, match=r"pictures of 3 channels for imagenet, found digits with \(1, 32, 32\)"):
        bugs.get("ood").function(grey, "imagenet", 0, SEEDS)


# --- what is missing ---


@pytest.fixture
def nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("ATTRIBUG_DATA", "TORCH_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    return tmp_path


def test_what_is_missing_is_told_under_the_options(nothing: Path, place: Path) -> None:
    source = tasks.get("imagenet")
    assert "torchvision's weights of vgg16" in source.absent
    assert "attribug data fetch vgg16" in source.absent
    (nothing / "vgg16").mkdir()
    (nothing / "vgg16" / "vgg16-397923af.pth").touch()
    assert "expected a folder of photographs" in source.absent
    assert not source.absent_under({"data": f"{place}/photographs", "pixels": 64})
    (nothing / "imagenet").mkdir()
    (nothing / "imagenet" / "ILSVRC2012_img_val.tar").touch()
    assert "found ILSVRC2012_img_val.tar; unpack it: python -c" in source.absent
    assert "get_model('alexnet'" in source.absent_under({"network": "torchvision:alexnet"})
    assert all("\n" not in each for each in (source.absent, source.absent_under({"network": "torchvision:alexnet"})))


def test_a_plan_without_data_says_so(nothing: Path) -> None:
    chosen = {"tasks": ["imagenet", "birds_dogs"], "bugs": ["reinit"], "levels": {"reinit": [1]}, "seeds": 2}
    plan = planning.make(planning.load_suite("smoke", chosen))
    assert {cell.task: cell.verdict for cell in plan.cells} == {"imagenet": "unsupported", "birds_dogs": "unsupported"}
    assert all(cell.reason.startswith("data are missing: ") for cell in plan.cells)


@pytest.mark.parametrize(("name", "option"), [("imagenet", "data"), ("imagenet", "network"), ("birds_dogs", "birds")])
def test_a_number_instead_of_a_name_is_one_line(nothing: Path, name: str, option: str) -> None:
    chosen = {"tasks": [name], "bugs": ["reinit"], "task_options": {name: {option: 3}}}
    with pytest.raises(InputError, match=rf"^task_options\.{name}\.{option}: expected str, found 3$"):
        planning.make(planning.load_suite("smoke", chosen))


def test_a_plan_with_the_users_network_needs_no_other(nothing: Path, place: Path) -> None:
    options = {"network": f"{place}/net_false.py:load", "data": f"{place}/photographs", "pixels": 40}
    chosen = {
        "tasks": ["imagenet"], "bugs": ["reinit"], "levels": {"reinit": [1, "all"]}, "seeds": 2,
        "task_options": {"imagenet": options},
    }  # fmt: skip
    plan = planning.make(planning.load_suite("smoke", chosen))
    assert [cell.verdict for cell in plan.cells] == [""] * 4
    assert plan.given
    assert not plan.trainings


@pytest.mark.parametrize(("options", "found"), [({"pixels": 8}, "8"), ({"most": 2}, "2")])
def test_options_out_of_range_are_refused(place: Path, options: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=f"^imagenet: expected .*, found {found}$"):
        task(place, **options)
