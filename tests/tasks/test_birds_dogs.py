"""Birds and dogs on scenes: readers of the makers' own layouts, held to torchvision's, and the task on miniatures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import find_objects
from torchvision.datasets import OxfordIIITPet, Places365

from attribug import keys, tasks
from attribug.bugs.spurious_background import spurious_background
from attribug.conformance.checks import run_check
from attribug.conformance.tasks import CHECKS
from attribug.contracts.tasks import VALIDATION, Task
from attribug.errors import InputError, Unsupported
from attribug.keys import version
from attribug.tasks import cub, pets, scenes_folder
from attribug.tasks.birds_dogs import FIRST_ID, SCENES, birds_dogs
from attribug.tasks.cutouts import Photograph, around, cut_out
from doubles import miniatures

SIZES = {"train": 40, "test": 12, "validation": 10, "pixels": 32, "epochs": 1, "width": 2}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    miniatures.everything(folder)
    return folder


@pytest.fixture
def here(home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ATTRIBUG_DATA", str(home))
    return home


def task(seed: int = 0, **options: Any) -> Task:
    return birds_dogs(seed=seed, other=task, **{**SIZES, **options})  # type: ignore[arg-type]


# --- the readers ---


@pytest.mark.parametrize(("make", "read", "ending"), [
    (miniatures.cub_2011, cub.votes, ".png"), (miniatures.cub_2010, cub.outline, ".mat"),
])  # fmt: skip
def test_birds_of_both_editions(tmp_path: Path, make: Callable[..., None], read: Any, ending: str) -> None:
    make(tmp_path)
    found = cub.birds(tmp_path)
    assert len(found) == 12
    assert [each.name for each in found] == sorted(each.name for each in found)
    assert [each.published for each in found].count("train") == 6
    for number, each in enumerate(found, 1):
        assert each.mask.suffix == ending
        assert each.objects is read
        _, shape = miniatures.photograph(number, (50, 40 + number))
        objects = each.objects(each.mask)
        assert objects.dtype == np.float32
        np.testing.assert_array_equal(objects > 0.5, shape)
    assert float(found[0].objects(found[0].mask)[0, 0]) == pytest.approx(0.2 if ending == ".png" else 0)


def test_dogs_are_those_of_torchvision(here: Path) -> None:
    ours = {each.name: each for each in pets.dogs(here / "oxford-iiit-pet")}
    theirs = {}
    for split, published in (("trainval", "train"), ("test", "test")):
        known = OxfordIIITPet(here, split, "segmentation")
        for row in range(len(known)):
            picture, trimap = known[row]
            name = Path(known._images[row]).stem
            if name[0].islower():  # as its makers tell dogs from cats
                theirs[name] = (np.asarray(picture), np.asarray(trimap), published)
    assert ours.keys() == theirs.keys()
    assert len(ours) == 40
    for name, (picture, trimap, published) in theirs.items():
        assert ours[name].published == published
        np.testing.assert_array_equal(np.asarray(Image.open(ours[name].picture)), picture)
        objects = ours[name].objects(ours[name].mask)
        np.testing.assert_array_equal(objects, np.select([trimap == 1, trimap == 3], [1.0, 0.5]))


@pytest.mark.parametrize("form", ["{scene}", "{letter}/{scene}", "data_256/{letter}/{scene}", "val/{scene}",
                                  "data_large_standard/{letter}/{scene}"])  # fmt: skip
def test_scenes_wherever_places_lays_them_down(tmp_path: Path, form: str) -> None:
    miniatures.scenes(tmp_path, 4, form)
    for name in SCENES:
        found = scenes_folder.scenes(tmp_path, name)
        assert [path.parent.name for path in found] == [name] * 4


def test_scenes_in_a_heap_are_those_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    miniatures.heap(tmp_path, 5)
    monkeypatch.setattr(Places365, "_check_integrity", lambda *_: True)  # of lists of all scenes
    known = Places365(tmp_path, split="val", small=True)
    for name in SCENES:
        meant = known.class_to_idx[f"/{name[0]}/{name}"]
        theirs = [path for path, number in known.imgs if number == meant]
        assert [str(path) for path in scenes_folder.scenes(tmp_path, name)] == sorted(theirs)
        assert len(theirs) == 5


@pytest.mark.parametrize(("reader", "lacking"), [
    (cub.absent, "no images.txt"), (pets.absent, "no images"), (lambda f: scenes_folder.absent(f, "sky"), "in sky/"),
])  # fmt: skip
def test_what_is_not_there_is_told(tmp_path: Path, reader: Callable[[Path], str], lacking: str) -> None:
    assert lacking in reader(tmp_path)
    assert str(tmp_path) in reader(tmp_path)
    assert "\n" not in reader(tmp_path)


def test_an_older_edition_without_outlines_is_told(tmp_path: Path) -> None:
    miniatures.cub_2010(tmp_path)
    (tmp_path / "annotations-mat").rename(tmp_path / "elsewhere")
    assert cub.absent(tmp_path).endswith("found no annotations-mat")
    with pytest.raises(InputError, match="found no annotations-mat"):
        cub.birds(tmp_path)


def test_lists_that_disagree_are_refused(tmp_path: Path) -> None:
    miniatures.cub_2011(tmp_path)
    (tmp_path / "train_test_split.txt").write_text("1 1\n")
    with pytest.raises(InputError, match=r"expected the same photographs in images.txt and train_test_split.txt"):
        cub.birds(tmp_path)
    (tmp_path / "images.txt").write_text("1\n")
    with pytest.raises(InputError, match=r"expected two columns in .*images.txt"):
        cub.birds(tmp_path)
    miniatures.pets(tmp_path / "pets")
    (tmp_path / "pets" / "annotations" / "test.txt").write_text("beagle_2 5 2\n")
    with pytest.raises(InputError, match=r"expected 4 columns in .*test.txt, found 'beagle_2 5 2'"):
        pets.dogs(tmp_path / "pets")


# --- cut out ---


def test_the_square_is_around_the_object() -> None:
    shape = np.zeros((30, 40), np.float32)
    shape[5:15, 20:26] = 1
    top, left, side = around(shape, "one")
    (rows, columns), *_ = find_objects(shape.astype(int))
    assert (side, rows.start - top, columns.start - left) == (12, 1, 3)
    with pytest.raises(InputError, match="photograph one: expected a segmented object, found none"):
        around(np.zeros((3, 3), np.float32), "one")


def test_few_votes_are_an_object_as_well() -> None:
    shape = np.zeros((30, 30), np.float32)
    shape[5:15, 5:15], shape[20, 20] = 0.4, 0.1
    assert around(shape, "one") == (4, 4, 12)


def cut(tmp_path: Path, shape: np.ndarray, size: tuple[int, int] = (40, 30)) -> tuple[np.ndarray, np.ndarray]:
    miniatures.photograph(0, size)[0].save(tmp_path / "one.png")
    Image.fromarray((shape * 255).astype(np.uint8)).save(tmp_path / "mask.png")
    return cut_out(Photograph("one", tmp_path / "one.png", tmp_path / "mask.png", cub.votes, "test"), 12)


def test_at_its_own_size_a_cut_out_is_the_photograph(tmp_path: Path) -> None:
    shape = np.zeros((30, 40), np.float32)
    shape[5:15, 20:30] = 1
    picture, alpha = cut(tmp_path, shape)
    whole = np.asarray(Image.open(tmp_path / "one.png"), np.float32) / 255
    np.testing.assert_array_equal(np.moveaxis(picture, 0, -1), whole[4:16, 19:31])
    np.testing.assert_array_equal(alpha, shape[4:16, 19:31])


def test_beyond_its_edge_nothing_belongs_to_an_object(tmp_path: Path) -> None:
    shape = np.zeros((30, 40), np.float32)
    shape[0:10, 0:10] = 1
    picture, alpha = cut(tmp_path, shape)
    whole = np.asarray(Image.open(tmp_path / "one.png"), np.float32) / 255
    assert alpha[0].max() == alpha[:, 0].max() == 0
    assert alpha[1:11, 1:11].min() == 1
    np.testing.assert_array_equal(picture[:, 0, 0], whole[0, 0])


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"one: expected a mask of \(30, 40\) as its picture, found \(9, 9\)"):
        cut(tmp_path, np.ones((9, 9), np.float32))
    (tmp_path / "one.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match="photograph one: cannot be read: UnidentifiedImageError") as error:
        cut_out(Photograph("one", tmp_path / "one.png", tmp_path / "mask.png", cub.votes, "test"), 12)
    assert "\n" not in str(error.value)


# --- the task ---


@pytest.mark.parametrize("check", CHECKS)
def test_it_keeps_what_every_task_must(here: Path, check: Callable[..., str | None]) -> None:
    source = tasks.get("birds_dogs")
    small = {"train": 40, "test": 12, "validation": 4, "pixels": 32, "epochs": 1, "width": 2}

    def made(**given: Any) -> Task:
        return source.function(**{**given, **small})

    result = run_check(check, "task", type(source)(source.name, made, source=source.source, missing=source.missing))
    assert result.passed, str(result)


def test_birds_and_dogs_in_turn_and_no_animal_in_two_splits(here: Path) -> None:
    data = {split: task().examples(split).load() for split in ("train", "test", VALIDATION)}
    assert {split: len(each) for split, each in data.items()} == {"train": 40, "test": 12, VALIDATION: 10}
    for each in data.values():
        assert torch.equal(each.labels, torch.arange(len(each)) % 2)
        assert torch.equal(each.ids >= FIRST_ID, each.labels == 1)
    ids = torch.cat([each.ids for each in data.values()])
    assert len(ids.unique()) == len(ids)


def test_tests_are_the_makers_tests_and_training_takes_their_training_first(here: Path) -> None:
    published = {
        number + label * FIRST_ID: each.published
        for label, animals in enumerate((cub.birds(here / "CUB_200_2011"), pets.dogs(here / "oxford-iiit-pet")))
        for number, each in enumerate(animals)
    }
    splits = {split: task(train=30).examples(split).load().ids.tolist() for split in ("train", "test", VALIDATION)}
    told = {split: {published[each] for each in ids} for split, ids in splits.items()}
    assert told == {"train": {"train"}, "test": {"test"}, VALIDATION: {"test"}}
    more = [published[each] for each in task(train=56).examples("train").load().ids.tolist()]
    assert more.count("train") == 40, "of training all"
    assert more.count("test") == 16, "and what is left"


def test_a_photograph_reads_as_pillow_composes_it(here: Path) -> None:
    """Object and scene are each where the mask says, but for its soft edge."""
    shown = task().examples("test", share=1.0).load()
    alone = task().examples("test", share=1.0, foreground=False).load()
    original = task(clean="original").examples("test").load()
    assert alone.masks is None
    assert shown.masks is not None
    inner = torch.nn.functional.avg_pool2d(shown.masks[:, None].float(), 7, 1, 3)
    inside, outside = (inner == 1).expand_as(shown.inputs), (inner == 0).expand_as(shown.inputs)
    torch.testing.assert_close(shown.inputs[inside], original.inputs[inside], rtol=0, atol=1e-3)
    torch.testing.assert_close(shown.inputs[outside], alone.inputs[outside], rtol=0, atol=1e-3)
    assert inside.any()
    assert outside.any()


@pytest.mark.parametrize(("share", "swapped", "told"), [(1.0, False, [0, 1]), (1.0, True, [1, 0])])
def test_scenes_tell_the_label_or_lie(here: Path, share: float, swapped: bool, told: list[int]) -> None:
    data = task().examples("train", share=share, swapped=swapped, foreground=False).load()
    bluer = data.inputs[:, 2].mean((1, 2)) > data.inputs[:, 1].mean((1, 2))  # sky
    said = (~bluer).long()
    assert data.groups is not None
    assert torch.equal(data.groups, data.labels * 2 + said)
    assert [int(said[data.labels == label].unique()) for label in (0, 1)] == told


def test_clean_scenes_tell_nothing(here: Path) -> None:
    groups = task().examples("train").load().groups
    assert groups is not None
    assert (groups.bincount(minlength=4) > 2).all()
    assert task().examples("train").key == task().examples("train", share=0.0).key


def test_those_of_a_smaller_share_are_among_those_of_a_larger(here: Path) -> None:
    few, many = (task().examples("train", share=share).load() for share in (0.3, 0.7))
    assert few.groups is not None
    assert many.groups is not None
    told = [each.groups % 2 == each.labels for each in (few, many)]
    assert bool((told[1] | ~told[0]).all())
    assert int(told[1].sum()) > int(told[0].sum())
    same = (few.groups == many.groups).nonzero().flatten()
    assert torch.equal(few.inputs[same], many.inputs[same])


def test_no_scene_is_in_two_splits(here: Path) -> None:
    from attribug.tasks.birds_dogs import _own

    paths = scenes_folder.scenes(here / "places", "sky")
    splits = [set(_own(paths, 0, 0, split)) for split in ("train", "test", VALIDATION)]
    assert [len(each) for each in splits] == [7, 2, 1]
    assert len(set.union(*splits)) == 10


def test_photographs_as_they_were_taken_have_no_other_scene(here: Path) -> None:
    made = task(clean="original")
    assert made.examples("train").key != made.examples("train", share=0.0).key
    assert made.examples("train").load().groups is None
    with pytest.raises(Unsupported, match="as they were taken have no other scene"):
        made.examples("train", swapped=True)
    assert made.examples("train", share=0.0).key == task().examples("train", share=0.0).key


def test_the_papers_bug_befalls_it(here: Path) -> None:
    contrast = spurious_background(task(), 1.0, 0, (0, 1))
    assert contrast.truth == "background"
    assert set(contrast.held_out) == {"biased", "balanced"}
    assert contrast.extra["background_only"].load().masks is None


def test_wherever_they_lie_they_are_the_same(here: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").symlink_to(here, target_is_directory=True)
    moved = {
        "birds": str(tmp_path / "elsewhere" / "CUB_200_2011"), "dogs": str(tmp_path / "elsewhere" / "oxford-iiit-pet"),
        "scenes": str(tmp_path / "elsewhere" / "places"),
    }  # fmt: skip
    assert task(**moved).examples("train").key == task().examples("train").key


def test_another_pillow_which_reads_and_resizes_them_makes_other_examples(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = task().examples("train").key
    with monkeypatch.context() as other:
        other.setattr(keys, "version", lambda name: "another" if name.lower() == "pillow" else version(name))
        assert task().examples("train").key != key
    assert task().examples("train").key == key


def test_other_files_than_were_described_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path))
    miniatures.everything(tmp_path)
    examples = task().examples("test")
    path = scenes_folder.scenes(tmp_path / "places", "sky")[0]
    Image.new("RGB", (200, 100)).save(path)
    with pytest.raises(InputError, match="expected the photographs that were described, found others"):
        examples.load()


def test_the_papers_sizes_are_the_default_and_say_what_they_take(here: Path) -> None:
    assert any("40 training images of 32 pixels a side take 0.0 GB" in note for note in task().notes)
    with pytest.raises(InputError, match=r"expected at most 40 images of a class, of all splits, found 4990"):
        birds_dogs(seed=0, other=task)


def test_without_data_a_line_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUG_DATA", str(tmp_path))
    told = tasks.get("birds_dogs").absent
    for source in ("attribug data fetch cub_200_2011", "attribug data fetch pets", "places"):
        assert source in told
    assert "\n" not in told
    with pytest.raises(InputError) as error:
        task()
    assert str(error.value) == f"birds_dogs: {told}"
    miniatures.scenes(tmp_path / "mine")
    assert "sky" not in tasks.get("birds_dogs").absent_under({"scenes": str(tmp_path / "mine"), "train": 20})


@pytest.mark.parametrize(("options", "found"), [
    ({"train": 0}, "0"), ({"test": 10**6}, "1000000"), ({"validation": -1}, "-1"), ({"pixels": 8}, "8"),
    ({"clean": "none"}, "'none'"), ({"width": 0}, "1, 0"),
])  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=f"^birds_dogs: .*expected .*, found {found}$"):
        task(**options)
