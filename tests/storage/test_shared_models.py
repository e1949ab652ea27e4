"""Models that runs on several machines share: the first whole one wins, and a lost minute costs nothing."""

from pathlib import Path
from typing import Any

import pytest
import torch

from attribug.errors import InputError
from attribug.keys import digest
from attribug.running.exchange import Exchange
from attribug.running.jobs import MeasureChecks, Train
from attribug.storage import shared_models
from attribug.storage.locations import Location
from attribug.storage.models import Models
from attribug.storage.tensors import Tensors
from doubles.places import elsewhere, put, there, write

KEY = digest(0)


def cached(url: str, tmp_path: Path, value: float) -> tuple[Location, Tensors]:
    """A machine's copy of a cache, in which one model was trained: its weights are `value`."""
    place = elsewhere(url, tmp_path)
    models = Models(place.folder)
    models.save_weights(KEY, {"weight": torch.full((3,), value)})
    models.save_cost(KEY, {"seconds": value})
    return place, models.cache


def weights(models: Tensors) -> float:
    found = models.load(KEY)
    assert found is not None
    return float(found["weight"][0])


def test_the_first_writer_of_a_model_wins(url, tmp_path):
    first, second = cached(url, tmp_path, 1.0), cached(url, tmp_path, 2.0)
    for place, models in (first, second):
        shared_models.share_model(place, models, KEY)
    assert [weights(models) for _, models in (first, second)] == [1.0, 1.0]
    assert Models(second[0].folder).load_cost(KEY) == {"seconds": 1.0}
    third = elsewhere(url, tmp_path)
    models = Models(third.folder).cache
    assert shared_models.fetch_models(third, models, [KEY]) == []
    assert weights(models) == 1.0


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "foreign"])
def test_a_damaged_model_does_not_win(url, tmp_path, damage):
    place, models = cached(url, tmp_path, 1.0)
    shared_models.share_model(place, models, KEY)
    content = bytearray(models.path(KEY).read_bytes())
    if damage == "flipped":
        content[-1] ^= 1
    if damage == "foreign":
        models.save("other", {"weight": torch.zeros(3)})
        content = bytearray(models.path("other").read_bytes())
    put(f"{url}/models/{KEY}.safetensors", bytes({"cut": content[:-1], "empty": b""}.get(damage, content)))
    other, theirs = cached(url, tmp_path, 2.0)
    shared_models.share_model(other, theirs, KEY)
    assert weights(theirs) == 2.0
    assert there(url)[f"models/{KEY}.safetensors"] == theirs.path(KEY).read_bytes()


def test_fresh_models_replace_what_is_there(url, tmp_path):
    shared_models.share_model(*cached(url, tmp_path, 1.0), KEY)
    place, models = cached(url, tmp_path, 2.0)
    shared_models.share_model(place, models, KEY, fresh=True)
    assert weights(models) == 2.0
    assert there(url)[f"models/{KEY}.safetensors"] == models.path(KEY).read_bytes()


def test_models_that_are_damaged_here_are_fetched_and_those_that_are_here_alone_told(url, tmp_path):
    shared_models.share_model(*cached(url, tmp_path, 1.0), KEY)
    place, models = cached(url, tmp_path, 2.0)
    models.path(KEY).write_bytes(b"damaged")
    models.save("alone", {})
    assert shared_models.fetch_models(place, models, [KEY, "alone", "absent"]) == ["alone"]
    assert weights(models) == 1.0
    assert not models.damaged.names


def test_a_lost_minute_is_made_up_for_at_the_end(url, tmp_path, monkeypatch):
    cache, models = cached(f"{url}/cache", tmp_path, 1.0)
    out = elsewhere(f"{url}/run", tmp_path)
    write(out, records__a_record="a", run_json="{}")
    exchange = Exchange(out, cache, models, fresh=False)

    def unreachable(*_: Any, **__: Any) -> None:
        raise ConnectionError("lost")

    with monkeypatch.context() as patch:
        for name in ("pipe_file", "exists"):
            patch.setattr(out.remote._files, name, unreachable)
        exchange.sent(Train(KEY))
        exchange.sent(MeasureChecks(0))
        with pytest.raises(InputError, match="found: ConnectionError: lost; nothing is lost: the same command sends"):
            exchange.end()
    assert not there(url)
    exchange.end()
    assert {"run/records/a.record", "run/run.json", f"cache/models/{KEY}.safetensors"} <= set(there(url))
