"""A model and data that somebody brings to a run: from Python, from a folder, and one line for every mistake."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import attribug
from attribug import tasks
from attribug.api import planned
from attribug.errors import InputError
from attribug.models import brought, perturbed
from attribug.models.given import load
from attribug.plans.plan import Plan
from attribug.running.bringing import asked_for
from attribug.running.calibration import measured
from attribug.running.jobs import Train
from doubles import mine

NET = """
import torch
from torch import nn

torch.manual_seed(0)

def load(channels=3, classes=2):
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 100, classes))

def one(): return load(classes=1)
def five(): return load(classes=5)
def probabilities(): return nn.Sequential(load(), nn.Softmax(1))
def sigmoid(): return nn.Sequential(one(), nn.Sigmoid())
def half(): return load().half()
def double(): return load().double()
def grey(): return load(1)
def raises(): raise RuntimeError("no luck")
def nothing(): return 3
def scalar(): return nn.Sequential(load(), Total())
def several(): return nn.Sequential(load(), Several())

class Total(nn.Module):
    def forward(self, x): return x.sum()

class Several(nn.Module):
    def forward(self, x): return {"logits": x, "half": x / 2}

def fit(model, inputs, labels, seed): pass
def two(model, loader): pass
"""
QUICK: dict[str, Any] = {
    "methods": ["gradient", "random", "edges", "predictions"], "metrics": ["spearman", "total_variation"], "seeds": 3,
    "examples": 12,
}  # fmt: skip


def half_of(effects: pd.DataFrame, **chosen: str) -> pd.Series:
    rows = effects
    for column, value in chosen.items():
        rows = rows[rows[column] == value]
    assert len(rows), chosen
    return rows["effect"]


@pytest.mark.slow
def test_a_small_run_finds_what_was_damaged(tmp_path: Path, in_process: None, monkeypatch: pytest.MonkeyPatch) -> None:
    model, data = mine.trained(), mine.bars(2, 24)
    given: dict[str, Any] = {
        "model": model, "data": (data.inputs.numpy(), data.labels), "masks": data.masks, "out": tmp_path / "run",
        "bugs": ["reinit"], "changes": {"levels": {"reinit": [0, "all"]}},
        **QUICK,
    }  # fmt: skip
    run = attribug.run("own", **given)
    assert run.complete, run.facts["failures"]
    results = run.results[(run.results["control"] == "perturbed") & (run.results["bug"] == "reinit")]
    spearman = results[results["metric"] == "spearman"]
    assert (half_of(results, level="0") == 0.5).all()
    for name in ("random", "edges"):
        taken = spearman[spearman["verdict"] != "not taken"]
        assert (half_of(taken, method=name) == 0.5).all()
    found = spearman[(spearman["method"] == "gradient") & (spearman["bug"] == "reinit") & (spearman["level"] == "all")]
    assert set(found["verdict"]) == {"detects"}
    notes = run.facts["pieces"]["tasks"]["own"]["notes"]
    assert any("the model is right on 1.00 of them" in line for line in notes), notes
    assert attribug.run("own", **given).outcome is None, "what is done is not done again"
    assert not model[1].training


@pytest.mark.slow
def test_vectors_and_their_names(tmp_path: Path, in_process: None) -> None:
    table = pd.DataFrame(np.random.default_rng(0).normal(size=(40, 5)), columns=["a", "b", "c", "d", "e"])
    labels = (table["a"] > 0).astype(int)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    optimiser = torch.optim.Adam(model.parameters(), 0.05)
    for _ in range(60):
        optimiser.zero_grad()
        inputs = torch.tensor(table.to_numpy(), dtype=torch.float32)
        nn.functional.cross_entropy(model(inputs), torch.tensor(labels)).backward()
        optimiser.step()
    options = {"bugs": ["reinit"], "changes": {"levels": {"reinit": ["all"]}}} | QUICK
    run = attribug.run("own", model=model, data=(table, labels), out=tmp_path / "run", **options)
    assert set(run.results["method"]) >= {"gradient", "random"}
    assert len(run.results[run.results["verdict"] == "unsupported"]) > 0, "edges are of images"


# --- mistakes ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A network, twelve pictures in two folders by class and as arrays."""
    (tmp_path / "net.py").write_text(NET)
    generator = np.random.default_rng(0)
    for kind in ("a", "b"):
        for root in ("photos", "masks"):
            (tmp_path / root / kind).mkdir(parents=True)
        for number in range(6):
            picture = generator.integers(0, 255, (14, 12, 3), np.uint8)
            Image.fromarray(picture).save(tmp_path / "photos" / kind / f"{number}.png")
            Image.fromarray(picture[..., 0] // 128 * 255).save(tmp_path / "masks" / kind / f"{number}.png")
    (tmp_path / "flat").mkdir()
    for number in range(2):
        shutil.copy(tmp_path / "photos" / "a" / f"{number}.png", tmp_path / "flat")
    save(tmp_path)
    return tmp_path


def save(folder: Path, **changes: Any) -> None:
    inputs = np.random.default_rng(0).random((12, 3, 12, 12), np.float32)
    np.savez(folder / "data.npz", **{"inputs": inputs, "labels": np.arange(12) % 2} | changes)


def rgba(folder: Path) -> None:
    Image.new("RGBA", (12, 14)).save(folder / "photos" / "a" / "7.png")


def classes(folder: Path) -> None:
    (folder / "classes.txt").write_text("one\ntwo\nthree\n")


def other_mask(folder: Path) -> None:
    Image.new("L", (3, 3)).save(folder / "masks" / "a" / "0.png")


def no_mask(folder: Path) -> None:
    (folder / "masks" / "a" / "0.png").unlink()


def empty_mask(folder: Path) -> None:
    Image.new("L", (12, 14)).save(folder / "masks" / "a" / "0.png")


def strange_mask(folder: Path) -> None:
    shutil.copy(folder / "masks" / "a" / "0.png", folder / "masks" / "a" / "9.png")


def bad_mask(folder: Path) -> None:
    (folder / "masks" / "a" / "0.png").write_text("no picture")


def two_masks(folder: Path) -> None:
    Image.new("L", (12, 14), 255).save(folder / "masks" / "a" / "0.gif")


def regions_too(folder: Path) -> None:
    shutil.copytree(folder / "masks" / "a", folder / "masks" / "mouth" / "a")


def other_weights(folder: Path) -> None:
    torch.save(nn.Linear(2, 2).state_dict(), folder / "weights.pt")


def file(folder: Path) -> None:
    (folder / "file").write_text("")


def empty(folder: Path) -> None:
    (folder / "empty").mkdir()


def arrays(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: save(folder, **changes)


NAN = np.full((12, 3, 12, 12), np.nan, np.float32)
PHOTOS = ("--model", "net.py:load", "--data", "photos", "--pixels", "12")
ARRAYS = ("--model", "net.py:load", "--data", "data.npz")
STRICT = (*PHOTOS, "--masks", "masks", "--strict")
MASKS = np.ones((12, 12, 12), bool)


def of(name: str) -> tuple[str, ...]:
    return ("--model", f"net.py:{name}", "--data", "data.npz")


MISTAKES: dict[str, tuple[Callable[[Path], None] | None, tuple[str, ...], str]] = {
    "no such file": (None, ("--model", "nett.py:load", *PHOTOS[2:]), r"model .*: .*no such file: nett.py"),
    "no such data": (None, (*PHOTOS[:2], "--data", "photo", *PHOTOS[4:]), r"data photo: .*, found nothing there"),
    "no such arrays": (None, (*PHOTOS[:2], "--data", "photo.npz"), r"data photo.npz: no such file"),
    "class names": (classes, (*PHOTOS, "--classes", "classes.txt"), r"--classes classes.txt: expected 2 lines, .* 3"),
    "probabilities": (None, of("probabilities"), r"model .*: expected logits, found probabilities; .* softmax away"),
    "a probability": (None, of("sigmoid"), r"model .*: expected a logit, found a probability; .* sigmoid away"),
    "transparency": (rgba, PHOTOS, r"picture 7.png: expected 1 or 3 channels, found one of transparency.*"),
    "mask of another size": (other_mask, STRICT, r"--masks masks/a/0.png: .*, 12 × 14, found 3 × 3"),
    "missing mask": (no_mask, STRICT, r"--masks masks: expected one mask .*a/0.*, found none"),
    "empty mask": (empty_mask, STRICT, r"--masks masks/a/0.png: expected a mask that shows something .*, found none"),
    "mask of no picture": (strange_mask, STRICT, r"--masks masks/a/9.png: expected a picture of this name .*none"),
    "mask that is none": (bad_mask, STRICT[:-1], r"--masks masks/a/0.png: no picture: UnidentifiedImageError.*"),
    "masks of others": (None, (*PHOTOS, "--masks", "flat"), r"--masks flat: expected masks .*, .* none of 2 .*"),
    "two masks": (two_masks, STRICT[:-1], r"--masks masks: expected one mask named a/0.*2 \(0.gif, 0.png\)"),
    "masks of two kinds": (
        regions_too, STRICT[:-1],
        r"--masks masks: expected masks named as the pictures, or .*, found both \(a/0, mouth/a/0\)",
    ),
    "masks nowhere": (None, (*PHOTOS, "--masks", "mask"), r"--masks mask: expected a folder of masks, found no folder"),
    "masks of arrays": (None, (*ARRAYS, "--masks", "masks"), r"--masks masks: expected masks beside .* data.npz, .*"),
    "another network's weights": (other_weights, (*PHOTOS, "--weights", "weights.pt"), r"weights .*: do not fit .*"),
    "a factory that raises": (None, of("raises"), r"model .*: raises raises RuntimeError: no luck"),
    "no model": (None, of("nothing"), r"model .*: expected a torch.nn.Module.*, found int"),
    "a number": (None, of("scalar"), r"model .*: raises on inputs .*: RuntimeError: zero-dimensional .*"),
    "several outputs": (None, of("several"), r"model .*: .*found dict; --output NAME picks one of logits, half"),
    "unknown output": (None, (*of("several"), "--output", "z"), r"--output z: expected one of .*, found logits, half"),
    "an empty folder": (empty, (*PHOTOS[:2], "--data", "empty", *PHOTOS[4:]), r"data empty: expected pictures .*none"),
    "a file": (file, (*PHOTOS[:2], "--data", "file", *PHOTOS[4:]), r"data file: expected a folder .*, found a file"),
    "two pictures": (None, (*PHOTOS[:2], "--data", "flat", *PHOTOS[4:]), r"data: expected at least 3 .*, found 2"),
    "NaN": (arrays(inputs=NAN), ARRAYS, r"data data.npz: inputs: expected finite numbers, found NaN or infinity"),
    "labels beyond": (arrays(labels=np.arange(12)), ARRAYS, r"labels: expected numbers below 2, .*, found 11"),
    "labels not whole": (arrays(labels=np.arange(12) / 2), ARRAYS, r"data .*: labels: expected \(12,\) whole .*"),
    "infinite labels": (arrays(labels=np.full(12, np.inf)), ARRAYS, r"data .*: labels: expected \(12,\) whole .*"),
    "labels by one": (arrays(labels=np.arange(11) % 2), ARRAYS, r"data .*: labels: expected .*, found \(11,\).*"),
    "unknown array": (arrays(label=np.arange(12)), ARRAYS, r"data .*found 'label'; did you mean 'labels'\?"),
    "complex": (arrays(inputs=NAN * 1j), ARRAYS, r"data .*: inputs: expected real numbers, found torch.complex.*"),
    "objects": (arrays(inputs=np.array([None] * 12)), ARRAYS, r"data data.npz: expected arrays in a file .npz: .*"),
    "region of another size": (
        arrays(masks_mouth=np.ones((12, 3))), ARRAYS, r"data .*: masks of mouth: expected .*, found \(12, 3\)"),
    "the object twice": (
        arrays(masks=MASKS, masks_object=MASKS), ARRAYS, r"data .*: expected masks or masks_object, .*, found both"),
    "a region without name": (arrays(masks_=MASKS), ARRAYS, r"data .*: expected arrays named .*, found 'masks_'.*"),
    "other masks": (arrays(masks=np.ones((12, 3))), ARRAYS, r"data .*: masks: expected .*, found \(12, 3\)"),
    "one dimension": (arrays(inputs=np.ones(12)), ARRAYS, r"data .*: inputs: expected \(N, C, H, W\), .* shape .*"),
    "not a number": (None, (*PHOTOS[:4], "--pixels", "many"), r"Invalid value for '--pixels': .*found 'many' .*"),
    "no pixels": (None, (*PHOTOS[:4], "--pixels", "0"), r"--pixels: expected at least 1, found 0"),
    "no pictures": (None, (*PHOTOS, "--most", "0"), r"--most: expected at least 1, found 0"),
    "fewer than none": (None, (*ARRAYS, "--most", "-1"), r"--most: expected at least 1, found -1"),
    "model alone": (None, PHOTOS[:2], r"task own: expected --model NAME and --data FOLDER, found no --data"),
    "data alone": (None, PHOTOS[2:4], r"task own: expected --model NAME and --data FOLDER, found no --model"),
    "tune": (None, (*ARRAYS, "--tune", "sideways"), r".*--tune: expected head or all, found 'sideways'"),
    "fit by no name": (None, (*ARRAYS, "--fit", "fit"), r"--fit: expected FILE.py:FUNCTION or MODULE:.*, found 'fit'"),
    "fit nowhere": (None, (*ARRAYS, "--fit", "nett.py:fit"), r"--fit nett.py:fit: .* import: .*no such file: nett.py"),
    "fit of another name": (None, (*ARRAYS, "--fit", "net.py:fits"), r"--fit .*: .* 'fits'; did you mean 'fit'.*"),
    "fit of other arguments": (
        None, (*ARRAYS, "--fit", "net.py:two"),
        r"--fit net.py:two: expected a function of \(model, inputs, labels, seed\), found \(model, loader\)",
    ),
    "two trainings": (
        None, (*ARRAYS, "--fit", "net.py:fit", "--tune", "all"),
        r"--fit net.py:fit: expected no tune beside your function, which decides itself what learns, .*",
    ),
    "epochs of a fit": (
        None, (*ARRAYS, "--fit", "net.py:fit", "--set", "task_options.own.epochs=3"),
        r"--fit net.py:fit: expected no epochs beside your function, .*",
    ),
    "fit of another suite": (None, ("quick", "--fit", "net.py:fit"), r"--fit: expected a suite with the task own.*"),
    "against": (None, (*ARRAYS, "--against", "net.py:grey"), r"model 'net.py:grey': raises on inputs .*"),
    "against nothing": (None, (*PHOTOS, "--against", "nowhere"), r"--against nowhere: .*\(FILE.py:.*, found neither"),
    "against no arrays": (None, (*ARRAYS, "--against", "no.npz"), r"data no.npz: no such file"),
    "against no labels": (None, (*PHOTOS, "--against", "flat"), r"--against flat: expected labels .*; found none"),
    "against fewer channels": (
        arrays(inputs=np.ones((12, 1, 12, 12))), (*PHOTOS, "--against", "data.npz"),
        r"--against data.npz: expected inputs \(3, 12, 12\), as the data's, found \(1, 12, 12\)"),
    "pictures against arrays": (None, (*ARRAYS, "--against", "photos"), r"--against photos: expected arrays, as .*"),
    "half": (None, of("half"), r"model .*: expected weights in float32, found torch.float16; give model.float\(\)"),
    "double": (None, of("double"), r"model .*: expected weights in float32, found torch.float64; give model.float\(\)"),
    "another suite": (None, ("quick", *ARRAYS), r"--model: expected a suite with the task own, .*, found quick"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_get_one_line(folder: Path, inside: Callable[..., Any], mistake: str) -> None:
    prepare, arguments, expected = MISTAKES[mistake]
    if prepare is not None:
        prepare(folder)
    suite = () if arguments[0] == "quick" else ("own",)
    answer = inside("run", *suite, *arguments, "--dry-run")
    assert answer.returncode == 2, answer.stdout
    (line,) = answer.stderr.splitlines()
    assert re.fullmatch(f"attribug: {expected}", line), line


class Bare(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.dense(x)
        return found


VECTORS = torch.rand(12, 4), torch.arange(12) % 2
FROM_PYTHON: dict[str, tuple[dict[str, Any], str]] = {
    "a list": ({"data": [*VECTORS]}, r"data: expected inputs, or a tuple \(inputs, labels\), found a list.*"),
    "texts": ({"data": (VECTORS[0], ["a"] * 12)}, r"data: labels: expected numbers: .*"),
    "no region": ({"masks": {}}, r"masks: expected those of a region or more, by name, found none"),
    "a region of no name": ({"masks": {3: np.ones((12, 4))}}, r"masks: expected the names of regions, texts, found 3"),
    "a region of another size": ({"masks": {"mouth": np.ones((12, 3))}}, r"masks of mouth: expected \(12, 4\), .*3\)"),
    "masks in a folder": ({"masks": "masks"}, r"--masks masks: expected masks beside the inputs.*"),
    "a number as model": ({"model": 3}, r"model: expected a torch.nn.Module or a name as FILE.py:FUNCTION, found int"),
    "a model to compare": ({"against": Bare()}, r"--against: expected a model's name, or data, found the module Bare"),
    "data without labels": ({"against": VECTORS[0]}, r"--against the data from Python: expected labels .*; found none"),
    "weights beside a module": ({"weights": "mine.pt"}, r"--weights mine.pt: expected none beside a module.*"),
    "pixels beside arrays": ({"pixels": 8}, r"--pixels: expected pictures in a folder, found arrays.*"),
    "a mean without its std": ({"mean": [0.5]}, r"--mean, --std: expected both beside arrays.*"),
    "two means": ({"mean": np.zeros(2), "std": torch.ones(2)}, r"--mean: expected 1 or 4 numbers, found 2"),
    "no std": ({"mean": [0.0], "std": [0.0]}, r"--std: expected positive numbers, found 0.0"),
    "a number as fit": ({"fit": 3}, r"--fit: expected a function or a name as FILE.py:FUNCTION, found 3"),
    "a fit of two": ({"fit": lambda model, loader: None}, r"--fit <lambda>: expected a function of .*, .*loader\)"),
    "a fit of C": ({"fit": max}, r"--fit max: expected a function of .*, found one without a signature"),
    "one number": ({"mean": 0.5, "std": 0.5}, r".*mean.*"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", FROM_PYTHON)
def test_mistakes_from_python_get_one_line(mistake: str) -> None:
    changes, expected = FROM_PYTHON[mistake]
    with pytest.raises(InputError) as caught:
        planned("own", **{"model": Bare(), "data": VECTORS, **QUICK} | changes)
    assert re.fullmatch(expected, str(caught.value)), str(caught.value)[:300]


def test_a_second_model_of_fewer_classes_need_not_know_the_labels(folder: Path) -> None:
    save(folder, labels=np.arange(12) % 5)
    plan = planned(
        "own", model=f"{folder}/net.py:five", data=folder / "data.npz", against=f"{folder}/net.py:load", **QUICK,
        bugs=["ood"],
    )  # fmt: skip
    assert [cell.verdict for cell in plan.cells] == [""] * QUICK["seeds"]


def told(plan: Plan, start: str) -> list[str]:
    """What was found, of lines that start so."""
    found = brought.find(asked_for(plan.suite.task_options["own"]), plan.suite.seed)
    assert found is not None
    return [line for line in found.lines if line.startswith(start)]


def test_copies_learn_a_second_folder_with_the_first_preparation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "others").mkdir()
    for kind in ("x", "y", "z"):
        shutil.copytree("photos/a", f"others/{kind}")
    options = {"model": "net.py:load", "data": "photos", "pixels": 12, "mean": [0.5], "std": [0.25], "bugs": ["ood"]}
    plan = planned("own", **options, against="others", **QUICK)
    assert [cell.verdict for cell in plan.cells] == [""] * QUICK["seeds"]
    assert told(plan, "against others") == [
        "against others: 18 pictures of 3 classes (x, y, z): half of them teach copies of the model with a last layer "
        "for these classes",
        "against others: its inputs are prepared as the first data are",
    ]
    found = brought.find(asked_for(plan.suite.task_options["own"]), plan.suite.seed)
    assert found is not None
    assert found.foreign is not None
    data = found.foreign.examples.load()
    expected = (np.asarray(Image.open("photos/a/0.png").resize((12, 12), box=(0, 1, 12, 13))) / 255 - 0.5) / 0.25
    assert any(np.allclose(each.permute(1, 2, 0), expected, atol=0.02) for each in data.inputs)
    shipment = brought.shipped(found)
    monkeypatch.setattr(brought, "_BROUGHT", {})
    monkeypatch.setattr(brought, "_PICKLED", {})
    monkeypatch.setattr(brought, "_DATA", {})
    brought.unload(shipment)  # as another process does
    task = tasks.get("own").function(seed=plan.suite.seed, other=None, **plan.suite.task_options["own"])
    stranger = task.stranger.clean(0)
    assert load(stranger.start)(data.inputs).shape == (18, 3)
    assert not set(stranger.examples.load().ids.tolist()) & set(task.stranger.examples("test").load().ids.tolist())


def test_a_second_model_gets_the_first_ones_preparation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    plan = planned("own", model="net.py:load", data="photos", pixels=12, against="net.py:five", bugs=["ood"], **QUICK)
    expected = "against net.py:five: its inputs are prepared as the first model's"
    assert told(plan, "against net.py:five: its inputs") == [expected]


@pytest.mark.slow
def test_a_run_against_arrays_from_python(tmp_path: Path, in_process: None) -> None:
    model, data, foreign = mine.trained(), mine.bars(2, 24), mine.bars(3, 60)
    run = attribug.run(
        "own", model=model, data=(data.inputs, data.labels), against=(foreign.inputs.flip(3) - 1, foreign.labels),
        out=tmp_path / "run", bugs=["ood"], tune="all", **QUICK,
    )  # fmt: skip
    assert run.complete, run.facts["failures"]
    checks = {check["check"]: check["figure"] for check in run.facts["checks"]}
    assert checks["foreign models know their own test set"] > 0.9
    found = run.results[(run.results["method"] == "random") & (run.results["metric"] == "spearman")]
    assert (found["effect"].isna() | (found["effect"] == 0.5)).all()


def test_bugs_of_labels_are_not_for_those_who_have_none() -> None:
    plan = planned("own", model=Bare(), data=VECTORS[0], **QUICK, bugs=["label_flips", "reinit"])
    verdicts = {cell.bug: cell.verdict for cell in plan.cells}
    assert verdicts["label_flips"] == "unsupported"


# --- from a folder, and again ---


def noise_files() -> list[Path]:
    return sorted((Path(os.environ["ATTRIBUG_CACHE"]) / "given").glob("*.json"))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "cache"))


def test_a_folder_is_read_again_with_the_noise_that_was_found(
    folder: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: None
) -> None:
    monkeypatch.chdir(folder)
    asked = {"model": "net.py:load", "data": "photos", "masks": "masks", "pixels": 12, "bugs": ["reinit"]}
    first = planned("own", **QUICK, **asked)
    (stored,) = noise_files()
    content = stored.read_bytes()
    stored.write_bytes(b"\x00 damaged")
    assert planned("own", **QUICK, **asked).key == first.key
    assert stored.read_bytes() == content, "searched for again"
    monkeypatch.setattr(perturbed, "largest", None)
    assert planned("own", **QUICK, **asked).key == first.key, "not searched for again"


def test_what_does_not_fit_of_masks_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for kind in ("a", "b"):
        shutil.copytree(f"masks/{kind}", f"parts/mouth/{kind}")
        shutil.copytree(f"masks/{kind}", f"parts/hair/{kind}")
    Path("parts/mouth/a/0.png").unlink()
    Image.new("L", (24, 28), 255).save("parts/hair/b/1.png")
    plan = planned("own", model="net.py:load", data="photos", masks="parts", pixels=12, bugs=["reinit"], **QUICK)
    notes = [line for line in plan.notes["own"] if "mask" in line or "background" in line]
    assert notes == [
        "1 mask of another size was fitted to its picture, e.g. 24 × 28 for 12 × 14 (hair/b/1.png)",
        "1 of 12 pictures has no mask of mouth: a/0.png",
        "masks of hair, mouth; where a bug needs the object, hair stands for it",
    ]
    found = brought.find(asked_for(plan.suite.task_options["own"]), plan.suite.seed)
    assert found is not None
    assert found.regions is not None
    data, masks = found.examples.load(), found.regions.load()
    assert found.regions.names == tuple(masks) == ("hair", "mouth")
    assert torch.equal(data.masks, masks["hair"])  # type: ignore[arg-type]
    named = sorted(str(path) for path in Path("photos").glob("*/*.png"))
    empty = (~masks["mouth"].flatten(1).any(1)).nonzero().flatten()
    assert [named[row] for row in data.ids[empty].tolist()] == ["photos/a/0.png"], "in the examples' order"
    assert masks["hair"][data.ids == named.index("photos/b/1.png")].all()
    task = tasks.get("own").function(seed=plan.suite.seed, other=None, **plan.suite.task_options["own"])
    assert task.regions == found.regions


def test_regions_of_arrays_follow_their_examples(folder: Path) -> None:
    data = mine.bars(0, 12)
    numbered = torch.zeros(12, 12, 12, dtype=torch.bool)
    numbered.view(12, -1)[range(12), range(12)] = True
    model = mine.network()
    for masks in ({"mouth": numbered, "object": data.masks}, None):
        held = {"inputs": data.inputs, "labels": data.labels, "masks": data.masks, "masks_mouth": numbered}
        arrays: dict[str, Any] = {name: np.asarray(each) for name, each in held.items()}
        np.savez(folder / "bars.npz", **arrays)
        given: Any = folder / "bars.npz" if masks is None else (data.inputs, data.labels)
        plan = planned("own", model=model, data=given, masks=masks, bugs=["reinit"], **QUICK)
        found = brought.find(asked_for(plan.suite.task_options["own"]), plan.suite.seed)
        assert found is not None
        assert found.regions is not None
        assert found.regions.names == ("object", "mouth"), "the object first"
        ids, read = found.examples.load().ids, found.regions.load()
        assert torch.equal(read["mouth"], numbered[ids])
        assert torch.equal(read["object"], data.masks[ids])  # type: ignore[index]
        assert found.given.called.startswith("Sequential ")
        assert found.given.known == found.examples


def test_a_suite_may_name_what_is_brought(folder: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: None) -> None:
    monkeypatch.chdir(folder)
    (folder / "mine.yaml").write_text(
        "name: mine\ntasks: [own]\nbugs: [reinit]\nlevels: {reinit: [1]}\nmethods: [gradient]\nmetrics: [spearman]\n"
        "seeds: 2\ntask_options:\n  own: {model: 'net.py:load', data: data.npz}\n"
    )
    plan = planned("mine.yaml")
    assert [cell.verdict for cell in plan.cells] == ["", ""]
    assert planned("mine.yaml", model="net.py:five").key != plan.key


def test_what_comes_from_python_is_named_in_plain_words() -> None:
    plan = planned("own", model=Bare(), data=VECTORS, bugs=["reinit"], **QUICK)
    told = plan.suite.task_options["own"]
    assert set(told) == {"model", "data"}
    assert re.fullmatch(r"Bare [0-9a-f]{8}", told["model"])
    assert re.fullmatch(r"12 examples [0-9a-f]{8}", told["data"])


def test_other_masks_are_another_plan() -> None:
    data = torch.rand(12, 1, 12, 12), torch.arange(12) % 2
    masks = torch.zeros(12, 12, 12, dtype=torch.bool)
    masks[:, :3] = True
    model = nn.Sequential(nn.Flatten(), nn.Linear(144, 2))
    keys = {
        planned("own", model=model, data=data, masks=each, bugs=["reinit"], **QUICK).key
        for each in (None, masks, ~masks)
    }
    assert len(keys) == 3


# --- their own training ---


def trainings(**asked: Any) -> set[str]:
    return set(planned("own", **QUICK, bugs=["decoy_patch", "reinit"], **asked).trainings)


def test_models_follow_the_code_that_trains_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, empty_cache: None
) -> None:
    monkeypatch.chdir(folder)
    asked: dict[str, Any] = {"model": "net.py:load", "data": "data.npz"}
    (folder / "fit.py").write_text(mine.FIT)
    ours, theirs = trainings(**asked, tune="all"), trainings(**asked, fit="fit.py:train")
    assert len(ours) == len(theirs) > 0
    assert not ours & theirs
    (folder / "moved").mkdir()
    shutil.copy(folder / "fit.py", folder / "moved" / "fit.py")
    assert trainings(**asked, fit="moved/fit.py:train") == theirs, "wherever it lies"
    assert not trainings(**asked, fit="fit.py:raises") & theirs, "another one of the file"
    for edited in (mine.FIT.replace("120", "121"), mine.FIT.replace("1e-2", "2e-2")):
        (folder / "fit.py").write_text(edited)
        assert not trainings(**asked, fit="fit.py:train") & theirs, "edited, in this process"
    assert trainings(**asked, tune="all") == ours


def test_what_rests_on_no_training_does_not_know_who_trains(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "fit.py").write_text(mine.FIT)
    asked: dict[str, Any] = {"model": "net.py:load", "data": "data.npz", "bugs": ["reinit"]}
    plans = [planned("own", **QUICK, **asked, **more) for more in ({}, {"fit": "fit.py:train"})]
    records = [[plan.record_key(cell, "gradient") for cell in plan.cells] for plan in plans]
    assert records[0] == records[1]
    assert "copies are trained by your function fit.py:train" in " ".join(plans[1].notes["own"])


def test_a_function_from_python_is_told_by_name_and_code() -> None:
    def trainer(rate: float) -> Callable[..., None]:
        def fit(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> None:
            optimiser = torch.optim.SGD(model.parameters(), rate)
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimiser.step()

        return fit

    plans = [
        planned("own", **QUICK, model=Bare(), data=VECTORS, bugs=["label_flips"], fit=trainer(rate))
        for rate in (0.1, 0.1, 0.2)
    ]
    names = [plan.suite.task_options["own"]["fit"] for plan in plans]
    assert re.fullmatch(r"fit [0-9a-f]{8}", names[0])
    assert names[0] == names[1]
    assert names[1] != names[2]


def test_a_dry_run_times_the_users_training_and_bears_that_it_fails() -> None:
    def slow(model: nn.Module, inputs: Tensor, labels: Tensor, seed: int) -> None:
        time.sleep(0.3)
        raise ArithmeticError("and fails")

    plan = planned("own", **QUICK, model=Bare(), data=VECTORS, bugs=["label_flips"], fit=slow)
    rates = measured(plan, [Train(key) for key in plan.trainings], None)
    assert all(rates[f"train {key}"] >= 0.3 for key in plan.trainings)
