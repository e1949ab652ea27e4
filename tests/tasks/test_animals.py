"""The task of birds and mammals: which cut-outs it takes, whose masks are theirs, scenes that may tell the label."""

from __future__ import annotations

import os
import shutil
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from attribug import tasks
from attribug.contracts.data import Data
from attribug.contracts.tasks import Task
from attribug.errors import InputError
from attribug.models import headed, pretrained
from attribug.models.given import load
from attribug.models.lab import Lab
from attribug.models.memory import Memory
from attribug.tasks import gcompris, scenery, stamps
from attribug.tasks.animals import COPIES, animals, compose, missing

here = pytest.mark.skipif(bool(missing()) and not os.environ.get("CI"), reason=missing())
SPLITS = ("train", "test", "validation")


def task(seed: int = 0, **options: Any) -> Task:
    return animals(seed=seed, other=task, **{"pixels": 64, "train": 60, "test": 40, "validation": 20, **options})


def species(data: Data) -> list[tuple[str, str]]:
    names = list(stamps.names().items())
    return [names[number // COPIES][1] for number in data.ids.tolist()]


# --- the list of cut-outs ---


@here
def test_every_picture_of_the_folders_is_used_or_left_out_for_a_reason() -> None:
    folders = [stamps.FOLDER / group for group in ("birds", "mammals")]
    there = {
        str(file.relative_to(stamps.FOLDER).with_suffix("")) for folder in folders for file in folder.rglob("*.png")
    }
    assert sorted([*stamps.names(), *stamps.EXCLUDED]) == sorted(there)
    assert all(stamps.EXCLUDED.values())


def flat(name: str) -> float:
    """The share of a stamp's opaque pixels that are exactly as their neighbours to the right are."""
    picture = np.asarray(Image.open(stamps.FOLDER / f"{name}.png").convert("RGBA"))
    opaque = (picture[..., 3] > 250)[:, 1:] & (picture[..., 3] > 250)[:, :-1]
    same = (picture[:, 1:, :3] == picture[:, :-1, :3]).all(2)
    return float(same[opaque].mean())


@here
def test_no_drawing_is_among_them() -> None:
    """Drawings and silhouettes, which this must tell, have areas of one colour; photographs have hardly any."""
    drawn = {name for name, reason in stamps.EXCLUDED.items() if reason in {stamps.DRAWING, "a silhouette"}}
    assert len(drawn) == 6
    assert min(flat(name) for name in drawn) > 0.7
    assert max(flat(name) for name in stamps.names()) < 0.4


@here
def test_a_species_is_of_one_class_and_folders_agree() -> None:
    for name, (kind, _) in stamps.names().items():
        assert name.startswith(f"{kind}s/")
    held = [name for group in stamps.SPECIES.values() for names in group.values() for name in names]
    assert len(held) == len(set(held)) == len(stamps.names())


# --- splits ---


@here
@pytest.mark.parametrize("seed", range(4))
def test_no_species_of_a_split_occurs_in_another(seed: int) -> None:
    made = task(seed)
    found = {split: set(species(made.examples(split).load())) for split in SPLITS}
    assert sum(map(len, found.values())) == sum(map(len, stamps.SPECIES.values()))
    assert not found["train"] & found["test"]
    assert not found["train"] & found["validation"]
    assert not found["test"] & found["validation"]


@here
def test_large_splits_use_every_cut_out_and_show_each_animal_of_a_class_alike_often() -> None:
    made = task(train=150, test=110, validation=50)
    numbers = [number // COPIES for split in SPLITS for number in made.examples(split).load().ids.tolist()]
    assert set(numbers) == set(range(len(stamps.names())))
    shown: dict[tuple[str, str], int] = {}
    for each in species(made.examples("train").load()):
        shown[each] = shown.get(each, 0) + 1
    for kind in stamps.SPECIES:
        counts = [count for (known, _), count in shown.items() if known == kind]
        assert max(counts) - min(counts) <= 1


@here
def test_labels_take_turns_and_are_the_cut_outs() -> None:
    data = task().examples("test").load()
    assert data.labels.tolist() == [0, 1] * 20
    assert [kind for kind, _ in species(data)] == ["bird", "mammal"] * 20


@here
def test_another_seed_splits_otherwise_and_fewer_pictures_are_the_first_ones() -> None:
    one, other = (task(seed).examples("test").load() for seed in (0, 1))
    assert set(species(one)) != set(species(other))
    few = task(test=20).examples("test").load()
    assert torch.equal(few.ids, one.ids[:20])
    assert torch.equal(few.inputs, one.inputs[:20])


# --- pictures ---


def opacity(data: Data, alone: Data, beside: Data, beside_alone: Data) -> tuple[Tensor, Tensor]:
    """Of the same animals on two backgrounds, (N, H, W), and where backgrounds differ enough to tell: equation 11 of
    Smith and Blinn (1996), Blue screen matting."""
    between = alone.inputs - beside_alone.inputs
    size = between.square().sum(1)
    return 1 - ((data.inputs - beside.inputs) * between).sum(1) / size, size > 0.05


@here
@pytest.mark.parametrize("pixels", [64, 96, 128])
def test_masks_are_where_the_animal_hides_its_background(pixels: int) -> None:
    made = task(pixels=pixels, test=20)
    scenes = ({"share": 1.0}, {"share": 1.0, "swapped": True})
    pairs = [made.examples("test", **each, foreground=front).load() for each in scenes for front in (True, False)]
    found, told = opacity(*pairs)
    masks = pairs[0].masks
    assert masks is not None
    assert torch.equal(masks, pairs[2].masks)  # type: ignore[arg-type]
    assert told.double().mean() > 0.5
    sure = told & ((found - 0.5).abs() > 0.01)
    assert torch.equal((found > 0.5)[sure], masks[sure])
    moved = masks.roll(1, dims=2)
    assert not torch.equal((found > 0.5)[sure], moved[sure])
    assert (found[told] > -0.01).all()
    assert (found[told] < 1.01).all()


@here
def test_an_animal_is_all_of_its_stamp_in_its_colours() -> None:
    data = task().examples("test").load()
    names = list(stamps.names())
    for row, mask in enumerate(data.masks):  # type: ignore[arg-type]
        picture = Image.open(stamps.FOLDER / f"{names[int(data.ids[row]) // COPIES]}.png").convert("RGBA")
        stamp = np.asarray(picture)
        solid = stamp[..., 3] > 127
        lines, columns = mask.nonzero().T.double()
        extent = max(lines.max() - lines.min(), columns.max() - columns.min()) + 1
        assert 0.6 * 64 <= extent <= 0.96 * 64
        height, width = (int(side.max() - side.min()) + 1 for side in solid.nonzero())
        fills = solid.sum() / (height * width)
        box = (lines.max() - lines.min() + 1) * (columns.max() - columns.min() + 1)
        assert abs(float(mask.sum() / box) - fills) < 0.12
        seen = data.inputs[row][:, mask].mean(1).numpy()
        np.testing.assert_allclose(seen, stamp[solid][:, :3].mean(0) / 255, atol=0.05)


@here
def test_backgrounds_alone_are_what_shows_beside_the_animals() -> None:
    whole, alone = (task().examples("test", share=1.0, foreground=front).load() for front in (True, False))
    assert alone.masks is None
    assert torch.equal(whole.ids, alone.ids)
    untouched = (whole.inputs == alone.inputs).all(1)
    masks: Tensor = whole.masks  # type: ignore[assignment]
    grown = nn.functional.max_pool2d(masks[:, None].float(), 7, stride=1, padding=3)[:, 0] > 0
    assert untouched[~grown].double().mean() > 0.99
    assert untouched[masks].double().mean() < 0.01
    assert len({image.numpy().tobytes() for image in alone.inputs}) == len(alone)


@here
@pytest.mark.parametrize(("swapped", "kinds"), [(False, ["sky", "greenery"]), (True, ["greenery", "sky"])])
def test_scenes_of_labels_are_told_by_groups_and_seen_in_colours(swapped: bool, kinds: list[str]) -> None:
    alone = task().examples("test", share=1.0, swapped=swapped, foreground=False).load()
    groups: Tensor = alone.groups  # type: ignore[assignment]
    assert [scenery.KINDS[said] for said in (groups % 3).tolist()] == kinds * 20
    assert torch.equal(groups // 3, alone.labels)
    _, green, blue = alone.inputs.mean((2, 3)).T
    looks_green = green > blue + 0.02
    assert looks_green.tolist() == [kind == "greenery" for kind in kinds] * 20


@here
def test_shares_are_nested_and_leave_all_other_pictures_as_they_are() -> None:
    shown = [task().examples("train", share=share).load() for share in (0.0, 0.4, 0.8, 1.0)]
    telling = []
    for data in shown:
        assert torch.equal(data.ids, shown[0].ids)
        assert torch.equal(data.masks, shown[0].masks)  # type: ignore[arg-type]
        telling.append((data.inputs == shown[-1].inputs).flatten(1).all(1))
        same = (data.inputs == shown[0].inputs).flatten(1).all(1)
        assert (same | telling[-1]).all(), "either its own scene or that of its label"
    for fewer, more in pairwise(telling):
        assert (more | ~fewer).all()
        assert more.sum() > fewer.sum()


@here
def test_clean_scenes_know_nothing_of_the_label() -> None:
    data = task(train=900).examples("train", foreground=False).load()
    table = data.groups.bincount(minlength=6).reshape(2, 3).double()  # type: ignore[union-attr]
    expected = table.sum(1, keepdim=True) * table.sum(0, keepdim=True) / table.sum()
    assert ((table - expected).square() / expected).sum() < 9.21  # χ², two degrees of freedom, 1 %
    assert table.sum(0).min() > 250


@here
def test_annotated_is_what_is_not_the_animal() -> None:
    data = task().examples("validation", share=1.0).load()
    assert torch.equal(data.truth("annotated"), ~data.masks)  # type: ignore[arg-type,operator]
    assert data.annotations.shape == data.inputs.shape  # type: ignore[union-attr]


# --- the network ---


@here
def test_dense_or_not_the_network_computes_the_same_on_imagenets_features() -> None:
    dense, plain = (headed.with_features(classes=2, task="any", seed=0, dense=dense).eval() for dense in (True, False))
    last, convolution = dense.get_submodule(headed.DENSE), plain.get_submodule(headed.HEAD)
    convolution.load_state_dict({"weight": last.weight[:, :, None, None], "bias": last.bias})
    inputs = task().examples("test").load().inputs[:6]
    with torch.no_grad():
        torch.testing.assert_close(dense(inputs), plain(inputs))
        last.weight.mul_(1.1)
        assert not torch.allclose(dense(inputs), plain(inputs))


@here
def test_what_learns_is_the_last_layer_and_the_stages_below() -> None:
    made = task(stages=2)
    model = load(made.start)  # type: ignore[arg-type]
    names = made.trainable(model)  # type: ignore[misc]
    assert names == ["features.11", "features.12", "classifier.2"]
    assert task(stages=0).trainable(model) == ["classifier.2"]  # type: ignore[misc]
    assert len(task(stages=8).trainable(model)) == 9  # type: ignore[misc]
    lab = Lab(Memory())
    after = lab.model(task(stages=1, train=20, epochs=1).clean(0)).state_dict()
    changed = {name.rsplit(".", 1)[0] for name, value in model.state_dict().items() if not value.equal(after[name])}
    assert changed == {*(f"features.12.{part}" for part in ("squeeze", "expand1x1", "expand3x3")), "classifier.2"}


@here
def test_a_model_whose_scenes_told_the_label_is_led_by_them() -> None:
    lab, made = Lab(Memory()), task(train=120, test=60, epochs=6, learning_rate=1e-3)
    led, clean = (made.trained(made.examples("train", share=share), 0) for share in (1.0, 0.0))

    def right(model: Any, **scene: Any) -> float:
        examples = made.examples("test", **scene)
        return float((lab.outputs(model, examples).argmax(1) == examples.load().labels).double().mean())

    def misled(model: Any) -> float:
        return right(model, share=1.0) - right(model, share=1.0, swapped=True)

    assert misled(led) >= 0.6
    assert right(led, share=1.0, foreground=False) >= 0.9
    assert misled(clean) <= 0.3


# --- what is refused ---


@here
@pytest.mark.parametrize(("options", "found"), [
    ({"pixels": 32}, "32"), ({"pixels": 300}, "300"), ({"train": 19}, "19, 40, 20"), ({"validation": -1}, "60, 40, -1"),
    ({"epochs": 0}, "0, 0.002, 3"), ({"learning_rate": 0.0}, "10, 0, 3"), ({"stages": 9}, "10, 0.002, 9"),
])  # fmt: skip
def test_options_out_of_range_are_refused(options: dict[str, Any], found: str) -> None:
    with pytest.raises(InputError, match=f"^animals: expected .*, found {found}$"):
        task(**options)


@here
def test_without_validation_there_is_no_such_split() -> None:
    assert task().splits == SPLITS
    assert task(validation=0).splits == SPLITS[:2]


@here
def test_other_files_than_were_described_are_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    described = task().examples("test")
    shutil.copytree(stamps.FOLDER / "birds", tmp_path / "birds", ignore=shutil.ignore_patterns("*.ogg", "*.txt"))
    shutil.copytree(stamps.FOLDER / "mammals", tmp_path / "mammals", ignore=shutil.ignore_patterns("*.ogg", "*.txt"))
    monkeypatch.setattr(stamps, "FOLDER", tmp_path)
    assert task().examples("test").key == described.key
    shutil.copy(tmp_path / "birds" / "crow.png", tmp_path / "birds" / "lark.png")
    assert task().examples("test").key != described.key
    assert described.build.func is compose  # type: ignore[attr-defined]
    with pytest.raises(InputError, match=r"animals: expected the files that were described in .*, found others"):
        described.load()
    (tmp_path / "birds" / "lark.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"stamps: birds/lark: no picture"):
        stamps.stamp("birds/lark")


def test_without_the_package_the_task_says_how_to_get_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "FOLDER", tmp_path)
    told = tasks.get("animals").absent
    assert "\n" not in told
    assert told.endswith("; install Debian's package: apt-get install tuxpaint-stamps-default")
    with pytest.raises(InputError) as error:
        task()
    assert str(error.value) == told


def test_without_scenes_or_weights_it_says_so_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stamps, "missing", lambda: "")
    with monkeypatch.context() as other:
        other.setattr(gcompris, "FOLDER", tmp_path)
        assert missing().endswith("; install Debian's package: apt-get install gcompris-qt-data")
    monkeypatch.setattr(gcompris, "missing", lambda: "")
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    assert missing().endswith("pip install 'attribug[pretrained]'")
