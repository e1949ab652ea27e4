"""Faces that smile: readers of the makers' own layouts, held to torchvision's, and both tasks on miniatures."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.datasets import CelebA

from attribug import data_sources, keys, tasks
from attribug.bugs.shortcut import shortcut
from attribug.conformance.checks import run_check
from attribug.conformance.tasks import CHECKS
from attribug.contracts.data import Data
from attribug.contracts.models import Given
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError, Unsupported
from attribug.keys import version
from attribug.tasks import celeba, celebamask_hq, faces
from attribug.tasks.celebamask_hq import PARTS, REGIONS
from doubles import miniatures

SMALL = {"epochs": 1, "pixels": 32, "network": "torchvision:squeezenet1_1"}
SIZES = {
    "celeba": {"train": 8, "test": 8, "validation": 4, **SMALL},
    "celebamask_hq": {"train": 6, "test": 4, "validation": 4, **SMALL},
}
SPLITS = ("train", "test", VALIDATION)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    miniatures.celeba(folder / "celeba")
    miniatures.celebamask_hq(folder / "CelebAMask-HQ")
    return folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ATTRIBUG_DATA", str(home))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return home


@pytest.fixture
def mine(here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same data where they may be changed."""
    shutil.copytree(here, tmp_path / "mine")
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path / "mine"))
    return tmp_path / "mine"


def smiling(seed: int = 0, **options: Any) -> Task:
    return celeba.celeba(seed=seed, other=smiling, **{**SIZES["celeba"], **options})  # type: ignore[arg-type]


def masked(seed: int = 0, **options: Any) -> Task:
    return celebamask_hq.celebamask_hq(seed=seed, other=masked, **{**SIZES["celebamask_hq"], **options})  # type: ignore[arg-type]


def hair(data: Data) -> torch.Tensor:
    """What is drawn: 0 blond, 1 black."""
    return (data.inputs[:, :, 2, 16].mean(1) < 0.5).long()


# --- both tasks ---


@pytest.mark.parametrize("name", sorted(SIZES))
@pytest.mark.parametrize("check", CHECKS)
def test_they_keep_what_every_task_must(here: Path, check: Callable[..., str | None], name: str) -> None:
    source = tasks.get(name)

    def made(**given: Any) -> Task:
        return source.function(**{**given, **SIZES[name]})

    result = run_check(check, "task", type(source)(source.name, made, source=source.source, missing=source.missing))
    assert result.passed, str(result)


@pytest.mark.parametrize("task", [smiling, masked])
def test_labels_take_turns_and_no_picture_is_in_two_splits(here: Path, task: Callable[..., Task]) -> None:
    made = task()
    assert made.splits == SPLITS
    data = {split: made.examples(split).load() for split in SPLITS}
    for each in data.values():
        assert torch.equal(each.labels, torch.arange(len(each)) % 2)
    pictures = [row.numpy().tobytes() for each in data.values() for row in each.inputs]
    assert len(set(pictures)) == len(pictures)


@pytest.mark.parametrize(("task", "folder", "file"), [
    (smiling, "celeba", "img_align_celeba"), (masked, "CelebAMask-HQ", "CelebA-HQ-img"),
    (masked, "CelebAMask-HQ", "CelebAMask-HQ-mask-anno/13"),
])  # fmt: skip
def test_other_files_than_were_described_are_not_read(
    mine: Path, task: Callable[..., Task], folder: str, file: str
) -> None:
    examples = task().examples("test")
    for path in (mine / folder / file).iterdir():
        path.write_bytes(path.read_bytes() + b"more")
    assert task().examples("test").key != examples.key
    with pytest.raises(InputError, match=r"expected the photographs that were described in .*, found others"):
        examples.load()


@pytest.mark.parametrize(("task", "folder"), [(smiling, "celeba"), (masked, "CelebAMask-HQ")])
def test_wherever_they_lie_they_are_the_same(
    here: Path, tmp_path: Path, task: Callable[..., Task], folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").symlink_to(here / folder, target_is_directory=True)
    made = task().examples("test")
    assert task(folder=str(tmp_path / "elsewhere")).examples("test").key == made.key
    assert task(pixels=40).examples("test").key != made.key
    monkeypatch.setattr(keys, "version", lambda name: "another" if name.lower() == "pillow" else version(name))
    assert task().examples("test").key != made.key


@pytest.mark.parametrize("name", sorted(SIZES))
def test_without_data_a_line_says_how_to_get_them(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path))
    task = tasks.get(name)
    assert task.absent == data_sources.missing(name)
    assert task.absent.startswith("agree to the terms at https://")
    assert "\n" not in task.absent
    assert data_sources.SOURCES[name].licence.startswith("non-commercial research only")
    with pytest.raises(InputError) as error:
        task.function(seed=0, other=None)
    assert str(error.value) == f"{name}: {task.absent}"
    told = task.absent_under({"folder": str(tmp_path / "there"), "train": 20})
    assert told.startswith("expected faces as ")
    assert str(tmp_path / "there") in told
    assert told.endswith(task.absent)


@pytest.mark.parametrize("name", sorted(SIZES))
def test_data_that_are_there_are_not_missing(here: Path, name: str) -> None:
    assert tasks.get(name).absent == data_sources.missing(name) == ""


@pytest.mark.parametrize("task", [smiling, masked])
@pytest.mark.parametrize(("options", "told"), [
    ({"train": 0}, "4 ≤ train ≤ 100000, found 0"), ({"validation": -1}, "0 ≤ validation ≤ 100000, found -1"),
    ({"pixels": 8}, "32 ≤ pixels ≤ 512, found 8"), ({"epochs": 0}, "above 0, found 0, 0.0003"),
    ({"learning_rate": 0.0}, "above 0, found 1, 0"),
])  # fmt: skip
def test_options_out_of_range_are_refused(
    here: Path, task: Callable[..., Task], options: dict[str, Any], told: str
) -> None:
    with pytest.raises(InputError, match=f"^celeba.*: expected .*{told}$"):
        task(**options)


@pytest.mark.parametrize("task", [smiling, masked])
def test_too_many_are_told_with_how_many_there_are(here: Path, task: Callable[..., Task]) -> None:
    with pytest.raises(InputError, match=r"expected at least \d+ test photographs of .*label not_smiling, found [24];"):
        task(test=40).examples("test")


# --- CelebA ---


def test_lists_are_read_as_torchvision_reads_them(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CelebA, "_check_integrity", lambda _: True)  # of all 200,000 pictures
    groups = celeba._groups(here / "celeba")
    ours = {face.name: (key, face) for key, group in groups.items() for face in group}
    seen = 0
    for split, published in (("train", "train"), ("valid", VALIDATION), ("test", "test")):
        theirs = CelebA(str(here), split, ["attr", "landmarks"])
        names = theirs.attr_names
        for row, name in enumerate(theirs.filename):
            attr, landmarks = theirs[row][1]
            told = {each: bool(value) for each, value in zip(names, attr.tolist(), strict=False)}
            if told["Black_Hair"] == told["Blond_Hair"]:
                assert name not in ours
                continue
            key, face = ours[name]
            assert key == (published, told["Smiling"], told["Black_Hair"])
            assert face.corners == tuple(landmarks[-4:].tolist())
            seen += 1
    assert seen == len(ours) == 48


@pytest.mark.parametrize("split", SPLITS)
def test_hair_tells_nothing_at_a_share_of_zero(here: Path, split: str) -> None:
    data = smiling().examples(split).load()
    assert data.groups is not None
    assert data.groups.bincount(minlength=4).tolist() == [len(data) // 4] * 4
    assert torch.equal(data.groups, data.labels * 2 + hair(data))
    assert smiling().examples(split).key == smiling().examples(split, share=0.0).key


@pytest.mark.parametrize(("swapped", "told"), [(False, [0, 1]), (True, [1, 0])])
def test_hair_tells_the_label_or_lies(here: Path, swapped: bool, told: list[int]) -> None:
    data = smiling().examples("test", share=1.0, swapped=swapped).load()
    assert [hair(data)[data.labels == label].unique().tolist() for label in (0, 1)] == [[each] for each in told]
    assert torch.equal(data.groups, data.labels * 2 + hair(data))  # type: ignore[arg-type]


def test_an_example_keeps_its_photographs_of_both_hairs(here: Path) -> None:
    made = smiling()
    few, many, lying = (
        made.examples("train", share=share, swapped=swapped).load()
        for share, swapped in ((0.5, False), (1.0, False), (1.0, True))
    )
    free = made.examples("train").load()
    assert torch.equal(few.ids, free.ids)
    for one, other in ((few, many), (few, lying), (free, many), (free, lying), (many, lying)):
        same = hair(one) == hair(other)
        assert torch.equal((one.inputs == other.inputs).flatten(1).all(1), same)
    assert not (hair(many) == hair(lying)).any()
    assert bool((hair(many) == many.labels)[hair(few) == few.labels].all())
    shown = {row.numpy().tobytes() for each in (many, lying) for row in each.inputs}
    assert len(shown) == 2 * len(free), "no photograph is in two examples"


@given(
    number=st.integers(1, 60), label=st.integers(0, 1), share=st.floats(0, 1), swapped=st.booleans()
)  # fmt: skip
def test_no_rank_is_taken_twice_and_no_larger_one_than_needed(
    number: int, label: int, share: float, swapped: bool
) -> None:
    telling = round(share * number)
    found = [celeba._hair_and_rank(turn, number, label, telling, swapped) for turn in range(number)]
    assert len(set(found)) == number
    assert all(shown == label ^ swapped for shown, _ in found[:telling])
    rest = [shown for shown, _ in found[telling:]]
    assert abs(rest.count(0) - rest.count(1)) <= 1
    assert max(rank for _, rank in found) < number
    if telling == 0:
        assert max(rank for _, rank in found) < (number + 1) // 2


def test_training_takes_the_papers_groups_and_no_others(here: Path) -> None:
    """Eight faces on which hair tells all need four of two groups; balanced ones two of each."""
    assert len(smiling().examples("train", share=1.0).load()) == 8
    assert len(smiling(train=16).examples("train").load()) == 16
    with pytest.raises(InputError, match=r"at least 8 train photographs of Blond_Hair and label not_smiling, found 4"):
        smiling(train=16).examples("train", share=1.0)


@pytest.mark.parametrize("pixels", [32, 64, 100, 178])
def test_the_mouth_is_where_it_is_drawn(here: Path, pixels: int) -> None:
    data = smiling(pixels=pixels).examples("test").load()
    assert data.masks is not None
    red = (data.inputs[:, 0] > 0.6) & (data.inputs[:, 1:].amax(1) < 0.35)
    per_pixel = 178 / pixels
    for mask, drawn in zip(data.masks, red, strict=True):
        rows, columns = (torch.nonzero(mask.any(axis)).flatten() for axis in (1, 0))
        lips, across = (torch.nonzero(drawn.any(axis)).flatten() for axis in (1, 0))
        assert mask.sum() == len(rows) * len(columns), "a rectangle"
        assert bool(mask[drawn].all())
        wide = len(across) * per_pixel
        assert len(columns) * per_pixel == pytest.approx(2 * wide, abs=3 * per_pixel + 2)
        assert len(rows) * per_pixel == pytest.approx(wide, abs=3 * per_pixel + 2)
        for outer, inner in ((rows, lips), (columns, across)):
            assert (outer[0] + outer[-1]) / 2 == pytest.approx(float(inner[0] + inner[-1]) / 2, abs=1.1)
    assert torch.equal(data.annotations, (~data.masks)[:, None].expand(data.inputs.shape))  # type: ignore[arg-type]


def test_at_its_own_size_a_face_is_the_middle_of_its_photograph(here: Path) -> None:
    path = here / "celeba" / "img_align_celeba" / "000001.jpg"
    found = faces.shown(path, 178, (178, 218))
    with Image.open(path) as opened:
        whole = np.asarray(opened.convert("RGB"), np.float32) / 255
    np.testing.assert_array_equal(np.moveaxis(found.numpy(), 0, -1), whole[20:198])


@given(
    box=st.tuples(*[st.floats(-50, 250)] * 4), size=st.sampled_from([(178, 218), (218, 178), (100, 100)]),
    pixels=st.sampled_from([32, 50]),
)  # fmt: skip
def test_a_rectangle_covers_the_pixels_that_it_touches(
    box: tuple[float, float, float, float], size: tuple[int, int], pixels: int
) -> None:
    """Each pixel is a square of the picture: those whose inside the rectangle's meets, one by one."""
    left, right = sorted(box[:2])
    top, bottom = sorted(box[2:])
    mask = faces.rectangle((left, top, right, bottom), size, pixels)
    side = min(size)
    width, across, down = side / pixels, (size[0] - side) / 2, (size[1] - side) / 2

    def apart(low: float, high: float, begins: float, place: int) -> float:
        """How deep one lies in the other; below 0: how far they are apart."""
        return min(high, begins + (place + 1) * width) - max(low, begins + place * width)

    for row in range(0, pixels, 3):
        for column in range(0, pixels, 3):
            depth = min(apart(top, bottom, down, row), apart(left, right, across, column))
            if abs(depth) > 1e-6:
                assert bool(mask[row, column]) == (depth > 0)


def test_a_mouth_without_a_width_or_outside_the_square_is_none() -> None:
    assert celeba.Face("", 0, (70, 150, 110, 152)).has_mouth
    assert not celeba.Face("", 0, (70, 150, 70, 150)).has_mouth
    assert not celeba.Face("", 0, (70, 217, 72, 217)).has_mouth


@given(corners=st.tuples(*[st.integers(-60, 260)] * 4))
def test_a_mouth_is_seen_where_its_rectangle_covers_a_pixel(corners: tuple[int, int, int, int]) -> None:
    face = celeba.Face("", 0, corners)
    assert face.has_mouth == (corners[0] != corners[2] and bool(faces.rectangle(face.mouth, (178, 218), 128).any()))


def test_the_shortcut_befalls_it(here: Path) -> None:
    contrast = shortcut(smiling(), 1.0, 0, (0, 1))
    assert contrast.truth == "annotated"
    assert set(contrast.tests) == {"biased", "decorrelated", "swapped", "clean"}
    assert set(contrast.held_out) == {"biased", "balanced"}
    control = shortcut(smiling(), 0.0, 1, (0, 1))
    assert control.contaminated in control.controls


def test_what_is_no_variant_is_declined(here: Path) -> None:
    with pytest.raises(Unsupported, match="no background apart from its subject"):
        smiling().examples("test", foreground=False)
    with pytest.raises(InputError, match="expected a share from 0 to 1, found 2"):
        smiling().examples("test", share=2.0)
    with pytest.raises(Unsupported, match="no background apart from its subject"):
        masked().examples("test", share=1.0)


@pytest.mark.parametrize(("file", "change", "told"), [
    ("list_attr_celeba.txt", lambda text: text.replace("Smiling", "Grinning"), "a column Smiling in .*, found none"),
    ("list_attr_celeba.txt", lambda text: text.partition("\n")[2], "a number of pictures and names of columns"),
    ("list_attr_celeba.txt", lambda text: text.replace("51\n", "52\n", 1), "52 pictures in .*, found 51"),
    ("list_attr_celeba.txt", lambda text: text.replace(" -1", " 0"), "1 or -1 for 000001.jpg in .*, found"),
    ("list_attr_celeba.txt", lambda text: text.replace("000003.jpg", "000003.jpg 1"), "4 whole numbers for 000003"),
    ("list_landmarks_align_celeba.txt", lambda text: text.replace("  1", "  1."), r"10 whole numbers for \d+.jpg in"),
    ("list_landmarks_align_celeba.txt", lambda text: text.replace("000001", "900001"), "the same pictures in"),
    ("list_eval_partition.txt", lambda text: text.replace(".jpg 2", ".jpg 3"), "partitions 0, 1 and 2 in .*, found 3"),
    ("list_eval_partition.txt", lambda text: text.replace(".jpg 2", ".jpg"), "2 columns in .*, found '0000"),
])  # fmt: skip
def test_lists_of_another_form_are_refused(mine: Path, file: str, change: Callable[[str], str], told: str) -> None:
    path = mine / "celeba" / file
    path.write_text(change(path.read_text()))
    celeba._groups.cache_clear()
    with pytest.raises(InputError, match=f"expected .*{told}") as error:
        smiling().examples("test")
    assert "\n" not in str(error.value)


def test_pictures_of_another_size_or_none_are_refused(mine: Path) -> None:
    folder = mine / "celeba" / "img_align_celeba"
    for path in folder.iterdir():
        Image.new("RGB", (200, 200)).save(path)
    with pytest.raises(InputError, match=r"expected \(width, height\) \(178, 218\), found \(200, 200\)"):
        smiling().examples("test").load()
    for path in folder.iterdir():
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"picture \d+.jpg: cannot be read: UnidentifiedImageError"):
        smiling().examples("test").load()


# --- CelebAMask-HQ ---


def painted(number: int, pixels: int) -> dict[str, np.ndarray]:
    """The regions of a face, by what was drawn: the last part in the makers' order on each pixel's middle."""
    middle = ((np.arange(pixels) + 0.5) * 512 / pixels).astype(int)
    boxes, seen = miniatures.parts(number), np.full((pixels, pixels), -1)
    for place, part in enumerate(PARTS):
        if part in boxes:
            left, top, right, bottom = boxes[part]
            rows, columns = (middle >= top) & (middle <= bottom), (middle >= left) & (middle <= right)
            seen[np.ix_(rows, columns)] = place
    return {name: np.isin(seen, [PARTS.index(part) for part in parts]) for name, parts in REGIONS.items()}


@pytest.mark.parametrize("pixels", [64, 100, 256])
def test_regions_are_exactly_what_was_drawn(here: Path, pixels: int) -> None:
    data_set = here / "CelebAMask-HQ"
    numbers = miniatures.NUMBERS
    content = celebamask_hq.described(data_set, numbers)
    found = celebamask_hq.face_masks(place=data_set, content=content, numbers=numbers, pixels=pixels)
    assert list(found) == ["mouth", "nose", "eyes", "brows", "ears", "skin", "hair"]
    for row, number in enumerate(numbers):
        for name, expected in painted(number, pixels).items():
            np.testing.assert_array_equal(found[name][row].numpy(), expected, f"{number} {name}")
    assert int(torch.stack(list(found.values())).sum(0).max()) == 1, "no pixel is in two regions"
    row = numbers.index(miniatures.EARLESS)
    assert not found["ears"][row].any()
    assert not found["mouth"][numbers.index(miniatures.FACELESS)].any()
    assert found["ears"][0].any()


def test_regions_of_examples_are_in_their_order(here: Path) -> None:
    examples = masked(pixels=128).examples("train")
    found, data = celebamask_hq.regions(examples), examples.load()
    assert found.names == tuple(REGIONS)
    masks = found.load()
    assert torch.equal(masks["mouth"], data.masks)  # type: ignore[arg-type]
    for row, number in enumerate(data.ids.tolist()):
        np.testing.assert_array_equal(masks["hair"][row].numpy(), painted(number, 128)["hair"])
    red = (data.inputs[:, 0] > 0.6) & (data.inputs[:, 1:].amax(1) < 0.2)
    agree = (red & masks["mouth"]).sum((1, 2)) / (red | masks["mouth"]).sum((1, 2))
    assert (agree > 0.8).all(), "masks lie on what photographs show"
    again = celebamask_hq.regions(masked(pixels=128).examples("train"))
    assert found == again
    assert celebamask_hq.regions(masked(seed=1, pixels=128).examples("train")).key != found.key
    assert celebamask_hq.regions(masked(pixels=32).examples("train")).key != found.key


def test_regions_are_of_this_task_only(here: Path) -> None:
    with pytest.raises(InputError, match="expected examples of this task, found others"):
        celebamask_hq.regions(smiling().examples("test"))


def test_splits_by_number_are_the_last_tenths(here: Path) -> None:
    made = masked()
    ids = {split: set(made.examples(split).load().ids.tolist()) for split in SPLITS}
    assert ids["test"] <= set(range(27_000, 30_000))
    assert ids[VALIDATION] == {24_000, 24_001, 26_998, 26_999}
    assert max(ids["train"]) < 24_000
    assert celebamask_hq._split_by_number(23_999) == "train"


def test_a_face_without_a_mouth_is_left_out(here: Path) -> None:
    assert set(masked().examples("test").load().ids.tolist()) == {27_000, 27_001, 27_002, 27_003}
    assert not celebamask_hq._labels(here / "CelebAMask-HQ")[miniatures.FACELESS]
    with pytest.raises(InputError, match="expected at least 3 test photographs of label not_smiling, found 2"):
        masked(test=5).examples("test")


def test_splits_may_be_celebas(mine: Path) -> None:
    lists = mine / "CelebAMask-HQ" / "list_eval_partition.txt"
    parts = {number: place % 6 // 2 for place, number in enumerate(miniatures.NUMBERS)}  # of both labels
    lists.write_text("".join(f"{number + 8:06d}.jpg {part}\n" for number, part in parts.items()))
    made = masked(splits="celeba", train=4, validation=4, test=4)
    for part, split in enumerate(("train", VALIDATION, "test")):
        found = made.examples(split).load().ids.tolist()
        assert {parts[number] for number in found} == {part}
    lists.unlink()
    celebamask_hq._splits_of_celeba.cache_clear()
    with pytest.raises(InputError, match=r"expected a partition of 002007.jpg, found none"):
        masked(splits="celeba").examples("test")
    shutil.rmtree(mine / "celeba")
    with pytest.raises(InputError, match=r"expected CelebA's list_eval_partition.txt in .*, found none; agree"):
        masked(splits="celeba")
    with pytest.raises(InputError, match="splits: expected numbers or celeba, found 'mine'"):
        masked(splits="mine")


def test_masks_that_do_not_fit_are_refused(mine: Path) -> None:
    masks = mine / "CelebAMask-HQ" / "CelebAMask-HQ-mask-anno" / "0"
    for path in masks.glob("*_nose.png"):
        Image.new("L", (256, 256)).save(path)
    with pytest.raises(InputError, match=r"masks of 0\d{4}: expected one square size, found \[\(256, 256\), \(512"):
        masked().examples("train").load()
    for path in masks.glob("*_nose.png"):
        path.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"mask 0\d{4}_nose.png: cannot be read: UnidentifiedImageError"):
        masked().examples("train").load()


# --- the network ---


@pytest.mark.parametrize("task", [smiling, masked])
def test_the_network_is_the_papers_from_random_weights(here: Path, task: Callable[..., Task]) -> None:
    made = task(network=faces.NETWORK)
    assert made.recipe.network.keywords["name"] == "torchvision:resnet50"  # type: ignore[attr-defined]
    assert made.start is None
    begun, held = made.notes
    assert begun.startswith(f"{made.name}: torchvision:resnet50 is trained from random weights: network 'torchvision:")
    assert begun.endswith("expected weights that torchvision has downloaded, found none")
    assert "training images of 32 pixels a side take 0.0 GB" in held
    with pytest.raises(InputError, match=r"network 'resnet50': expected lite0, .* or torchvision:NAME"):
        task(network="resnet50")


def test_weights_in_torchs_cache_are_gone_on_from(here: Path, tmp_path: Path) -> None:
    name = "torchvision:squeezenet1_1"
    plain = smiling(network=name)
    miniatures.cached_weights(tmp_path / "torch" / "hub", "squeezenet1_1")
    made = smiling(network=name)
    assert isinstance(made.start, Given)
    assert made.notes[0] == f"celeba: {name} is trained from what ImageNet taught it"
    assert made.clean(0).key != plain.clean(0).key
    assert smiling(seed=1, network=name).start != made.start, "each seed draws a last layer"
