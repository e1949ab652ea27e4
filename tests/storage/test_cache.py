"""`attribug cache` and `cache prune`: what is counted, what goes, and what must stay."""

import json
import os
import string
import time
import uuid
from pathlib import Path

import fsspec
import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st

from attribug.errors import InputError
from attribug.keys import digest
from attribug.storage import cache as inventories_of
from attribug.storage import locations, shared_models
from attribug.storage import models as stored_models
from attribug.storage.files import write_json
from attribug.storage.folders import LOCK, UNSENT, copies_folder, copy_folder
from attribug.storage.inventory import File, Inventory, Item, chosen, sorted_out
from attribug.storage.locations import Location
from attribug.storage.models import Models
from attribug.storage.remote import Remote
from attribug.terminal import cache_text

HOUR, DAY = 3600.0, 86400.0


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def aged(path: Path, days: float) -> Path:
    """The path, last used so long ago."""
    os.utime(path, (time.time() - days * DAY,) * 2)
    return path


def model(cache: Path, number: int, days: float, device: str = "cpu", size: int = 10) -> str:
    """A trained model that was last used so long ago; returns its key."""
    key, models = digest(number), Models(cache, device=device)
    cache.mkdir(parents=True, exist_ok=True)
    models.save_weights(key, {"weight": torch.zeros(size)})
    models.save_cost(key, {"seconds": 1.0})
    for path in (models.path(key), models.path(key).with_suffix(".json")):
        aged(path, days)
    return key


def everything(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def total(folder: Path) -> int:
    return sum(len(content) for content in everything(folder).values())


def test_an_empty_cache_is_nothing(cache, inside):
    answer = inside("cache")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert answer.stdout.splitlines() == [str(cache), "  0 trained models: 0B", "  total: 0B"]
    assert not cache.exists()


def test_the_cache_counts_what_it_holds(cache, inside):
    for number, device in enumerate(["cpu", "cpu", "cuda"]):
        model(cache, number, 1, device)
    (cache / "models" / "damaged").mkdir()
    (cache / "models" / "damaged" / f"{digest(9)}.safetensors").write_bytes(b"12345")
    write_json(cache / "models" / f"{digest(8)}.json", {})
    copy = copy_folder("s3://bucket/x")
    copy.mkdir(parents=True, exist_ok=True)
    write_json(copy / "run.json", {})
    copy.with_name(f"{copy.name}.url").write_text("s3://bucket/x\n")
    (cache / "notes.txt").write_text("mine")
    (cache / "models" / "thesis.safetensors").write_text("mine")
    shown = inside("cache").stdout
    assert "3 trained models (cpu 2, cuda 1)" in shown
    assert "1 damaged file set aside: 5B" in shown
    assert "1 copy of a remote place: 17B" in shown
    assert "    s3://bucket/x: 17B, used " in shown
    assert "not attribug's, never removed: models/thesis.safetensors, notes.txt" in shown
    (told,) = json.loads(inside("cache", "--json").stdout)
    assert told["bytes"] == total(cache) - len("minemine")
    assert {device: models["count"] for device, models in told["models"].items()} == {"cpu": 2, "cuda": 1}
    assert told["left"]["count"] == told["damaged"]["count"] == 1
    assert told["copies"][0]["url"] == "s3://bucket/x"
    assert told["foreign"] == ["models/thesis.safetensors", "notes.txt"]


def test_old_models_go_with_their_costs(cache, inside):
    old, new = model(cache, 0, 31), model(cache, 1, 29)
    before = everything(cache)
    answer = inside("cache", "prune", "--older-than", "30d", "--dry-run")
    assert f"would go: models/{old}" in answer.stdout
    assert everything(cache) == before
    answer = inside("cache", "prune", "--older-than", "30d")
    assert answer.returncode == 0
    assert f"gone: models/{old}" in answer.stdout
    assert f"models/{new}" not in answer.stdout
    assert {name for name in everything(cache) if LOCK not in name} == {
        f"models/{new}.json", f"models/{new}.safetensors"
    }  # fmt: skip


def test_size_takes_the_least_recently_used_first(cache, inside):
    keys = [model(cache, number, days, size=1000) for number, days in enumerate([3, 5, 1, 4])]
    each = total(cache) // 4
    assert inside("cache", "prune", "--max-size", f"{2 * each + 10}").returncode == 0
    left = {path.stem for path in (cache / "models").glob("*.safetensors")}
    assert left == {keys[0], keys[2]}


def test_loading_is_use(cache, inside):
    loaded, other = model(cache, 0, 40), model(cache, 1, 40)
    assert Models(cache).load_weights(loaded) is not None
    inside("cache")
    inside("cache", "prune", "--older-than", "30d")
    assert Models(cache).path(loaded).exists()
    assert not Models(cache).path(other).exists()


def test_given_models_are_not_touched(cache, tmp_path, monkeypatch):
    key, touched = model(cache, 0, 40), []
    monkeypatch.setattr(stored_models, "note_use", touched.append)
    assert Models(cache, cache / "models").load_weights(key) is not None
    assert not touched
    assert Models(cache).load_weights(key) is not None
    assert touched == [Models(cache).path(key)]


def test_a_model_in_training_stays(cache, inside):
    held, free = model(cache, 0, 90), model(cache, 1, 90)
    with Models(cache).lock(held):
        answer = inside("cache", "prune", "--older-than", "1h")
        assert f"in use, kept: models/{held}" in answer.stdout
        assert Models(cache).path(held).exists()
        assert (cache / "models" / f".{held}{LOCK}").exists()
    assert not Models(cache).path(free).exists()
    inside("cache", "prune", "--older-than", "1h")
    assert not Models(cache).path(held).exists()


def test_what_nobody_can_use_goes_at_every_pruning(cache, inside):
    kept = model(cache, 0, 1)
    models = cache / "models"
    (models / "damaged").mkdir()
    useless = [
        models / "damaged" / f"{digest(1)}.safetensors", models / f"{digest(2)}.json",
        models / f".{digest(3)}{LOCK}", models / f".{digest(4)}.safetensors.abc",
    ]  # fmt: skip
    for path in useless:
        path.write_bytes(b"")
    for path in (useless[1], useless[3]):
        aged(path, 1)
    young = models / f".{digest(5)}.safetensors.abc"  # somebody may still be writing it
    young.write_bytes(b"")
    inside("cache", "prune", "--max-size", "1GB")
    assert not [path for path in useless if path.exists()]
    assert young.exists()
    assert Models(cache).path(kept).exists()


def test_a_lock_that_is_held_stays(cache, inside):
    lock = cache / "models" / f".{digest(1)}{LOCK}"
    lock.parent.mkdir(parents=True)
    with FileLock(lock):
        inside("cache", "prune", "--max-size", "0")
        assert lock.exists()
    inside("cache", "prune", "--max-size", "0")
    assert not lock.exists()


def test_foreign_files_and_folders_stay(cache, inside):
    model(cache, 0, 90)
    names = [
        "thesis.docx", "models/mine.safetensors", "models/sub/x", "photos/a.jpg", "copies/other/x", "models/.hidden",
        f"models/{digest(1)}.txt",
    ]  # fmt: skip
    for name in names:
        path = cache / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("mine")
        aged(path, 900)
    answer = inside("cache", "prune", "--older-than", "1h", "--max-size", "0")
    assert {name for name in everything(cache) if LOCK not in name} == set(names)
    assert "not attribug's, never removed: copies/other/x" in answer.stdout
    assert f"and {len(names) - 3} more" in answer.stdout


def test_links_are_not_followed_out_of_the_cache(cache, inside, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x").write_text("mine")
    copy = copy_folder("s3://bucket/x")
    copy.mkdir(parents=True)
    (copy / "link").symlink_to(outside)
    copy.mkdir(parents=True, exist_ok=True)
    write_json(copy / "run.json", {})
    aged(copy / "run.json", 900)
    inside("cache", "prune", "--older-than", "1d")
    assert not copy.exists()
    assert (outside / "x").exists()


def test_copies_go_unless_a_run_holds_them(cache, inside):
    held, free = (copy_folder(f"s3://bucket/{name}") for name in ("held", "free"))
    for copy in (held, free):
        (copy / "records").mkdir(parents=True)
        write_json(copy / "records" / "x.json", {})
        label = copy.with_name(f"{copy.name}.url")
        label.write_text(f"s3://bucket/{copy.name}")
        aged(label, 40)
    with FileLock(held / LOCK):
        answer = inside("cache", "prune", "--older-than", "30d")
        assert "in use, kept: s3://bucket/" in answer.stdout
        assert (held / "records" / "x.json").exists()
    assert not free.exists()
    unsent = held.with_name(f"{held.name}{UNSENT}")
    unsent.touch()
    assert "not sent yet, kept: s3://bucket/" in inside("cache", "prune", "--older-than", "30d").stdout
    assert (held / "records" / "x.json").exists()
    unsent.unlink()
    with Location(held, Remote("memory://held")).used():
        inside("cache", "prune", "--max-size", "0")
        assert (held / "records" / "x.json").exists()
    inside("cache", "prune", "--max-size", "0")
    assert not list(copies_folder().iterdir())


def test_a_remote_cache_is_pruned_in_both_places(monkeypatch, tmp_path, inside):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    url = f"memory://{uuid.uuid4().hex}"
    monkeypatch.setenv("ATTRIBUG_CACHE", url)
    here = locations.cache()
    key = model(here.folder, 0, 90)
    shared_models.share_model(here, Models(here.folder).cache, key)
    there = fsspec.filesystem("memory")
    there.pipe_file(f"{url}/models/thesis.safetensors", b"mine")
    assert f"{here.folder}, copy of {url}" in inside("cache").stdout
    assert inside("cache").stdout.count("1 trained model (cpu 1)") == 2
    inside("cache", "prune", "--older-than", "30d")
    assert not Models(here.folder).path(key).exists()
    assert there.exists(f"{url}/models/{key}.safetensors"), "it was sent just now"
    inside("cache", "prune", "--max-size", "0")
    assert [Path(name).name for name in there.find(url)] == ["thesis.safetensors"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "expected --older-than AGE, --max-size SIZE or both, found neither"),
        (["--dry-run"], "found neither"),
        *((["--older-than", text], f"expected an age such as 90min, 12h, 30d or 4w, found {text!r}")
          for text in ("", "30", "d", "-3d", "30 days", "1y", "nand", "1e3d", "٣d")),
        *((["--max-size", text], f"expected a size such as 500MB or 2GB, found {text!r}")
          for text in ("", "big", "-1", "-2GB", "2XB", "nan", "9" * 400 + "GB")),
    ],
)  # fmt: skip
def test_wrong_limits_are_one_line(cache, inside, arguments, expected):
    key = model(cache, 0, 900)
    answer = inside("cache", "prune", *arguments)
    assert answer.returncode == 2
    assert len(answer.stderr.splitlines()) == 1
    assert expected in answer.stderr
    assert Models(cache).path(key).exists()


def test_units():
    assert [cache_text.seconds(text) for text in ("90min", "12h", "1.5d", "4w")] == [5400, 43200, 129600, 2419200]
    assert [cache_text.size(text) for text in ("500MB", "2GiB", "10", "0")] == [500_000_000, 2 * 2**30, 10, 0]
    with pytest.raises(InputError):
        cache_text.seconds("1month")


ITEMS = st.lists(
    st.builds(
        Item,
        kind=st.sampled_from(["model", "copy", "damaged", "left"]),
        name=st.text(string.ascii_lowercase, min_size=3, max_size=3),
        paths=st.just(("x",)),
        bytes=st.integers(0, 1000),
        used=st.floats(0, 100 * DAY),
        lock=st.sampled_from(["", "x"]),
    ),
    max_size=12,
    unique_by=lambda item: item.name,
)
NOW = 100 * DAY


@given(ITEMS, st.none() | st.floats(0, 100 * DAY), st.none() | st.integers(0, 5000))
def test_what_goes(items, seconds, limit):
    """Against the rules, said one by one."""
    going = chosen(items, NOW, seconds, limit)
    staying = [item for item in items if item not in going]
    useful = [item for item in items if item.kind in {"model", "copy"}]
    assert len({item.name for item in going}) == len(going)
    assert all(item in going for item in items if item.kind == "damaged")
    left = [item for item in items if item.kind == "left"]
    assert all((item in going) == (item.lock == "x" or NOW - item.used >= HOUR) for item in left)
    old = [item for item in useful if seconds is not None and NOW - item.used > seconds]
    assert all(item in going for item in old)
    for_size = [item for item in useful if item in going and item not in old]
    if limit is None:
        assert not for_size
    else:
        assert sum(item.bytes for item in staying) <= limit or not set(useful) & set(staying)
        assert all(a.used <= b.used for a in for_size for b in useful if b in staying)
        if for_size:  # no more than it takes
            assert sum(item.bytes for item in staying) + max(for_size, key=lambda i: (i.used, i.name)).bytes > limit


PATHS = st.lists(
    st.sampled_from(["models/", "models-cuda/", "copies/", "other/", "", "models/damaged/"]).flatmap(
        lambda folder: st.sampled_from([digest(1), digest(2), digest(1)[:16], "name", f".{digest(1)}"]).flatmap(
            lambda name: st.sampled_from([".safetensors", ".json", LOCK, ".url", "/x", ".safetensors.tmp"]).map(
                lambda ending: f"{folder}{name}{ending}"
            )
        )
    ),
    unique=True,
)


@given(PATHS)
def test_every_file_is_one_items_or_foreign(paths):
    found: Inventory = sorted_out("here", {path: File(1, 0.0) for path in paths})
    told = [*(path for item in found.items for path in item.paths), *found.foreign]
    assert sorted(told) == sorted(paths)
    assert found.bytes == len(paths) - len(found.foreign)
    assert not [path for path in paths if "name" in path and path not in found.foreign]
    assert not [path for path in paths if path.startswith("other/") and path not in found.foreign]


def test_it_is_told_whose_the_models_are(cache: Path) -> None:
    """By suite and task; those that an earlier version stored say nothing."""
    told = {1: {"trained_for": "quick, digits"}, 2: {"trained_for": "quick, digits"}, 3: {"seconds": 1.0}}
    for number, cost in told.items():
        Models(cache).save_cost(model(cache, number, 1), cost)
    (place,) = inventories_of.Cache().places()
    assert {"    2 of quick, digits: ", "    1 of runs that did not"} <= {
        line[: line.index(":") + 2] if "quick" in line else line[:26] for line in cache_text.lines(place)
    }
    (facts,) = cache_text.as_json([place])
    assert {name: each["count"] for name, each in facts["trained_for"].items()} == {"": 1, "quick, digits": 2}
