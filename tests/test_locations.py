"""Runs, caches and models at URLs: fsspec's memory and local file systems, and an S3 server on this machine."""

import errno
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import moto
import pytest
import s3fs
import safetensors.torch
import torch
from moto.server import ThreadedMotoServer

from attribug import api
from attribug.errors import InputError
from attribug.keys import digest
from attribug.reports import comparing
from attribug.reports.pages import write_report
from attribug.running.exchange import Exchange
from attribug.running.jobs import MeasureChecks, Train
from attribug.running.progress import Silent
from attribug.storage import locations, remote, shared_models
from attribug.storage.folders import LOCK, copies_folder, copy_folder, is_url
from attribug.storage.locations import Location
from attribug.storage.models import Models
from attribug.storage.records import Records
from attribug.storage.remote import Remote
from attribug.storage.tensors import Tensors

PLUGINS = Path(__file__).parent / "plugins"
TINY = ["run", str(PLUGINS / "tiny.yaml"), "--plugin", str(PLUGINS / "tiny.py"), "--workers", "1"]
KEY = digest(0)
SECONDS = 60.0  # that a test waits for a run to get somewhere


# --- the parts, on every file system


@pytest.fixture(scope="session")
def s3() -> Iterator[dict[str, str]]:
    """The environment in which an S3 server with a bucket is found."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    environment = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "user", "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": "us-east-1", "AWS_EC2_METADATA_DISABLED": "true",
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
    yield environment
    server.stop()


@pytest.fixture(params=["memory", "file", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A place of its own on every file system, and a cache folder of its own for the copies."""
    monkeypatch.setenv("ATTRIBUG_CACHE", str(tmp_path / "cache"))
    if request.param == "s3":
        for name, value in request.getfixturevalue("s3").items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
    name = uuid.uuid4().hex
    return {"memory": f"memory://{name}/x", "file": f"file://{tmp_path}/far/x", "s3": f"s3://bucket/{name}/x"}[
        request.param
    ]


def there(url: str) -> dict[str, bytes]:
    """Everything that lies at a URL, but for what runs try whether they may write."""
    files, root = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    names = [name for name, info in files.find(root, detail=True).items() if info["type"] == "file"]
    return {name[len(root) + 1 :]: files.cat_file(name) for name in names if not name.endswith(".writable")}


def put(url: str, content: bytes) -> None:
    files, path = fsspec.core.url_to_fs(url)
    files.pipe_file(path, content)


def elsewhere(url: str, tmp_path: Path) -> Location:
    """The same place from another machine."""
    folder = tmp_path / uuid.uuid4().hex
    folder.mkdir()
    return Location(folder, Remote(url))


def write(place: Location, **contents: str) -> None:
    for name, content in contents.items():
        path = place.folder / name.replace("__", "/").replace("_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_what_is_a_url():
    assert is_url("s3://bucket/x")
    assert is_url("memory://x")
    assert not is_url("runs/x")
    assert not is_url(Path("s3://bucket/x"))
    assert locations.at("runs/x") == Location(Path("runs/x"))


def test_a_url_has_one_copy_whatever_its_end(url):
    assert locations.at(url).folder == locations.at(f"{url}/").folder == copy_folder(url)
    assert locations.at(f"{url}y").folder != copy_folder(url)


def test_copies_of_a_remote_cache_lie_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("ATTRIBUG_CACHE", "memory://cache")
    assert copies_folder() == tmp_path / "attribug" / "copies"
    assert locations.cache().folder == copy_folder("memory://cache")


def test_what_is_made_here_is_found_there(url, tmp_path):
    here, other = elsewhere(url, tmp_path), elsewhere(url, tmp_path)
    write(here, records__a_record="a", galleries__a_safetensors="g", maps__a_safetensors="m", results_csv="1")
    here.send()
    assert set(there(url)) == {"records/a.record", "galleries/a.safetensors", "maps/a.safetensors"}
    write(here, run_json="{}", figures__old_svg="old", analysis__x_csv="x")
    here.send(tables=True)
    other.fetch_tables()
    assert not (other.folder / "records").exists()
    other.fetch("records", "galleries", "maps")
    assert {path: (other.folder / path).read_bytes() for path in there(url)} == there(url)
    (here.folder / "figures" / "old.svg").unlink()
    here.send(tables=True)
    assert "figures/old.svg" not in there(url)
    other.fetch_tables()
    assert not (other.folder / "figures" / "old.svg").exists()


def test_nothing_is_sent_or_fetched_twice(url, tmp_path, monkeypatch):
    here, sent, read = elsewhere(url, tmp_path), [], []
    write(here, records__a_record="a")
    here.send()
    files = here.remote._files
    put_, cat = Remote._put, files.cat_file
    monkeypatch.setattr(Remote, "_put", lambda self, path, content: (sent.append(path), put_(self, path, content)))
    monkeypatch.setattr(files, "cat_file", lambda path, **_: (read.append(path), cat(path))[1])
    here.send()
    here.fetch("records")
    assert (sent, read) == ([], [])
    write(here, records__b_record="b")
    here.send()
    assert sent == ["records/b.record"]
    other = elsewhere(url, tmp_path)
    other.fetch("records")
    other.send()
    assert len(read) == 2
    assert sent == ["records/b.record"]


def test_what_was_made_anew_is_sent_over_it(url, tmp_path):
    here = elsewhere(url, tmp_path)
    Remote(url)._put("records/a.record", b"damaged")
    here.fetch("records")
    time.sleep(0.01)  # another time of writing
    write(here, records__a_record="correct")
    here.send()
    assert there(url) == {"records/a.record": b"correct"}


def test_what_was_cut_here_is_fetched_again(url, tmp_path):
    here, other = elsewhere(url, tmp_path), elsewhere(url, tmp_path)
    write(here, records__a_record="whole")
    here.send()
    other.fetch("records")
    write(other, records__a_record="who")
    other.fetch("records")
    assert (other.folder / "records" / "a.record").read_text() == "whole"


def test_hidden_damaged_and_foreign_files_stay_where_they_are(url, tmp_path):
    here, other = elsewhere(url, tmp_path), elsewhere(url, tmp_path)
    write(here, records__damaged__a_record="d", workers_log="w", notes_txt="mine", notes__x_csv="mine", run_json="{}")
    (here.folder / "records" / ".b.record.tmp").write_text("half")
    here.send(tables=True)
    assert set(there(url)) == {"run.json"}
    remote = Remote(url)
    for name in ("notes.txt", "figures/.hidden", "records/damaged/x"):
        remote._put(name, b"mine")
    other.fetch_tables()
    other.fetch("records")
    assert [path.name for path in other.folder.rglob("*") if path.is_file()] == ["run.json"]


@pytest.mark.parametrize("path", ["../x", "records/../../x", "/etc/passwd", "records//x", "figures/./x", "records"])
def test_no_path_leads_out_of_the_folder(path):
    assert not locations._of_run(path)


def test_where_the_run_was_removed_its_tables_go_here_too(url, tmp_path):
    here = elsewhere(url, tmp_path)
    write(here, records__a_record="a", run_json="{}", notes_txt="mine")
    here.send(tables=True)
    files, root = fsspec.core.url_to_fs(url)
    files.rm(root, recursive=True)
    here.fetch_tables()
    left = {path.name for path in here.folder.rglob("*") if path.is_file()}
    assert left == {"notes.txt", "a.record"}, "a share that is not mounted looks like a run that was removed"


def test_exclusive_creation(url):
    remote = Remote(url)
    assert remote.create("models/a", b"first")
    assert not remote.create("models/a", b"second")
    assert there(url) == {"models/a": b"first"}


def test_a_store_without_exclusive_creation_is_looked_at_first(url, monkeypatch):
    remote = Remote(url)
    pipe = remote._files.pipe_file

    def refusing(path: str, value: bytes, **more: Any) -> None:
        if "mode" in more:
            raise OSError(errno.ENOSYS, "not implemented")
        pipe(path, value)

    monkeypatch.setattr(remote._files, "pipe_file", refusing)
    assert remote.create("a", b"first")
    assert not remote.create("a", b"second")
    assert there(url) == {"a": b"first"}


def test_files_and_their_times(url):
    before = time.time()
    Remote(url)._put("models/.hidden", b"123")
    ((path, (size, written)),) = Remote(url).files().items()
    assert (path, size) == ("models/.hidden", 3)
    assert before - 2 < written < time.time() + 2


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


def test_run_json_is_sent_last(url, tmp_path, monkeypatch):
    here, sent = elsewhere(url, tmp_path), []
    write(here, records__a_record="a", run_json="{}", results_csv="1", scores_parquet="2")
    put_ = Remote._put
    monkeypatch.setattr(Remote, "_put", lambda self, path, content: (sent.append(path), put_(self, path, content)))
    here.send(tables=True)
    assert sent[0] == "records/a.record"
    assert sent[-1] == "run.json"


def test_messages_name_the_url_and_no_password(tmp_path):
    place = Location(tmp_path, Remote("memory://user:secret@host/x"))
    with pytest.raises(InputError) as told, locations.named(place):
        raise InputError(f"{tmp_path}/run.json: expected something")
    assert str(told.value) == "memory://user:…@host/x/run.json: expected something"
    place.note()
    assert "secret" not in tmp_path.with_name(f"{tmp_path.name}.url").read_text()


def test_reading_waits_for_no_run_that_writes(url, monkeypatch):
    monkeypatch.setattr(locations, "READER_SECONDS", 0.1)
    Remote(url)._put("run.json", b"{}")
    with locations.reading(url) as place:
        assert (place.folder / "run.json").read_text() == "{}"
        with pytest.raises(InputError, match="another run is writing there"), locations.reading(url):
            pass
    assert (place.folder / LOCK).exists()


def test_reading_what_is_no_run(url):
    with pytest.raises(InputError, match=r"expected the URL of a run's folder, found no run.json there"):
        comparing.compare(url, url)
    with pytest.raises(InputError, match=r"found no run.json there"):
        write_report(url)


# --- wrong places, as users meet them


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        ("x3://bucket/x", "expected a URL that fsspec understands, found: ValueError: Protocol not known: x3"),
        ("s3://nobody/x", "found: FileNotFoundError: The specified bucket does not exist"),
        ("s3://", "expected a URL that names a place, found none after ://"),
        ("file:///", "expected a URL that names a place, found none after ://"),
        ("file:///proc/x", "expected a place that can be reached, read and written, found: "),
    ],
)
@pytest.mark.parametrize("option", ["--out", "--models", "cache"])
def test_wrong_places_are_one_line(inside, s3, monkeypatch, tmp_path, place, expected, option):
    _in(monkeypatch, s3, tmp_path)
    if option == "cache":
        monkeypatch.setenv("ATTRIBUG_CACHE", place)
    answer = inside(*TINY, *([] if option == "cache" else [option, place]))
    if option == "--models" and "found: " in expected and "x3" not in place:  # to look for models is no error
        assert "models of this suite are not there" in one_line(answer, 2)
    else:
        line = one_line(answer, 2)
        assert line.startswith(f"attribug: {option} {place}")
        assert expected in line


def one_line(answer: "subprocess.CompletedProcess[str]", code: int) -> str:
    """The message, after checking that nothing else was said."""
    (line,) = (line for line in answer.stderr.splitlines() if line.strip())
    assert answer.returncode == code, line
    return line


def _in(monkeypatch: pytest.MonkeyPatch, s3: dict[str, str], tmp_path: Path, **more: str) -> None:
    for name, value in {**s3, "XDG_CACHE_HOME": str(tmp_path / "user"), **more}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()


def test_an_unreachable_server_is_one_line_and_soon(inside, s3, monkeypatch, tmp_path):
    _in(monkeypatch, s3, tmp_path, AWS_ENDPOINT_URL="http://127.0.0.1:9")
    for command in (["run", "smoke", "--out", "s3://bucket/x"], ["report", "s3://bucket/x"]):
        started = time.monotonic()
        answer = inside(*command)
        assert time.monotonic() - started < SECONDS
        line = one_line(answer, 2)
        assert "s3://bucket/x: expected a place that can be reached" in line
        assert "Could not connect" in line


def test_a_server_that_never_answers(s3, monkeypatch, tmp_path):
    monkeypatch.setattr(remote, "ANSWER_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        _in(monkeypatch, s3, tmp_path, AWS_ENDPOINT_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
        started = time.monotonic()
        for ask in (Remote.expect_writable, Remote.sizes):
            with pytest.raises(InputError, match="s3://bucket/x: expected an answer, found none in time"):
                ask(Remote("s3://bucket/x"))
        assert time.monotonic() - started < SECONDS


def test_a_copy_that_cannot_be_written(inside, monkeypatch):
    monkeypatch.setenv("ATTRIBUG_CACHE", "/proc/attribug")
    line = one_line(inside("run", "smoke", "--out", "memory://x"), 2)
    assert "/proc/attribug/copies: expected a folder that can be written, for the copy of memory://x, found: " in line


def test_no_credentials(inside, s3, monkeypatch, tmp_path):
    _in(monkeypatch, s3, tmp_path, AWS_SHARED_CREDENTIALS_FILE="/nowhere", AWS_CONFIG_FILE="/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    answer = inside("run", "smoke", "--out", "s3://bucket/x")
    line = one_line(answer, 2)
    assert "--out s3://bucket/x" in line
    assert "Unable to locate credentials" in line


def test_wrong_credentials(inside, s3, monkeypatch, tmp_path):
    _in(monkeypatch, s3, tmp_path)
    monkeypatch.setattr(moto.settings, "INITIAL_NO_AUTH_ACTION_COUNT", 0.0)  # the server looks who asks
    line = one_line(inside("run", "smoke", "--out", "s3://bucket/x"), 2)
    assert "found: PermissionError: The AWS Access Key Id you provided does not exist" in line


@pytest.mark.parametrize(
    ("place", "expected"),
    [("s3://bucket/x", "pip install 'attribug[s3]'"), ("gs://bucket/x", "Please install gcsfs")],
)
def test_a_missing_package_says_what_to_install(inside, monkeypatch, place, expected):
    for package in ("s3fs", "gcsfs"):
        monkeypatch.setitem(sys.modules, package, None)
    for protocol in ("s3", "gs"):
        monkeypatch.delitem(sys.modules["fsspec.registry"]._registry, protocol, raising=False)
    answer = inside("run", "smoke", "--out", place)
    line = one_line(answer, 2)
    assert f"expected a package for {place[:2]}://, which is not installed" in line
    assert expected in line


# --- whole runs


Machine = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def machine(s3: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """Starts the command line on a machine of that name, which shares nothing but S3 with the others."""
    _in(monkeypatch, s3, tmp_path)
    cache = f"s3://bucket/{uuid.uuid4().hex}"

    def start(name: str, *arguments: str) -> "subprocess.Popen[str]":
        own = {"XDG_CACHE_HOME": str(tmp_path / name), "ATTRIBUG_CACHE": cache}
        command = [sys.executable, "-m", "attribug", *arguments]
        piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, cwd=tmp_path, env=os.environ | own, text=True, start_new_session=True, **piped)

    start.cache = cache  # type: ignore[attr-defined]
    return start


def ended(process: "subprocess.Popen[str]", code: int = 0) -> tuple[str, str]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == code, err
    return out, err


def tables(files: dict[str, bytes]) -> dict[str, bytes]:
    """Everything that a run promises to repeat."""
    return {
        name: content
        for name, content in files.items()
        if name in {"results.csv", "scores.parquet"} or name.startswith(("analysis/", "figures/"))
    }


def stored(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_a_run_in_s3_goes_on_anywhere(machine, tiny_run, tmp_path):
    url = f"s3://bucket/{uuid.uuid4().hex}/run"
    out, err = ended(machine("first", *TINY, "--out", url))
    assert tables(there(url)) == tables(stored(tiny_run))
    assert len([name for name in there(machine.cache) if name.endswith(".safetensors")]) == 3
    assert "training" in err
    assert f"10 rows in {url}/results.csv" in out
    assert str(tmp_path) not in out + err

    before = there(url)
    out, _ = ended(machine("second", *TINY, "--out", url))
    assert f"nothing to do: {url} holds this run already" in out
    assert there(url) == before

    files, root = fsspec.core.url_to_fs(url)
    record = next(name for name in sorted(before) if name.endswith(".record"))
    damaged = bytearray(before[record])
    damaged[40] ^= 1
    files.pipe_file(f"{root}/{record}", bytes(damaged))
    files.rm_file(f"{root}/results.csv")  # or there is nothing to do
    _, err = ended(machine("third", *TINY, "--out", url))
    assert "training" not in err
    now = there(url)
    assert tables(now) == tables(before)
    assert json.loads(now["run.json"])["damaged"] == [record]
    with locations.reading(url, "records", "galleries") as place:
        assert Records(place.folder).load(Path(record).stem) is not None
    assert {name: now[name] for name in before if name.endswith(".record") and name != record} == {
        name: before[name] for name in before if name.endswith(".record") and name != record
    }, "what was not damaged was not done again"

    out, _ = ended(machine("fourth", "compare", url, str(tiny_run)))
    assert "nothing worse in 10 rows" in out
    out, _ = ended(machine("fourth", "report", url))
    assert out == f"written: {url}/report.html\n"
    assert b"<html" in there(url)["report.html"]
    out, _ = ended(machine("fourth", "report", url, "--output", "page.html"))
    assert (tmp_path / "page.html").read_bytes() == there(url)["report.html"]


@pytest.mark.slow
def test_a_damaged_model_in_s3_is_trained_again_and_replaced(machine, tmp_path):
    ended(machine("first", *TINY, "--out", "one"))
    before = there(machine.cache)
    damaged = next(name for name in sorted(before) if name.endswith(".safetensors"))
    put(f"{machine.cache}/{damaged}", before[damaged][:-1])
    _, err = ended(machine("second", *TINY, "--out", "two"))
    assert "training" in err
    assert json.loads((tmp_path / "two" / "run.json").read_text())["damaged"] == [damaged]
    assert tables(stored(tmp_path / "one")) == tables(stored(tmp_path / "two"))
    assert models_of(there(machine.cache)) == models_of(before)
    (tmp_path / "three").mkdir()
    given = f"{machine.cache}/models"
    _, err = ended(machine("third", *TINY, "--out", "three", "--models", given))
    assert "training" not in err
    assert tables(stored(tmp_path / "one")) == tables(stored(tmp_path / "three"))


def models_of(files: dict[str, bytes]) -> dict[str, dict[str, Any]]:
    """What model files hold; their bytes may differ in the order of the facts in their headers."""
    models = {name: safetensors.torch.load(content) for name, content in files.items() if name.endswith(".safetensors")}
    return {name: {key: value.tolist() for key, value in tensors.items()} for name, tensors in models.items()}


@pytest.mark.slow
def test_killed_here_and_resumed_elsewhere(machine, tiny_run):
    url = f"s3://bucket/{uuid.uuid4().hex}/run"
    process = machine("first", *TINY, "--out", url)
    deadline = time.monotonic() + SECONDS
    while not any(name.endswith(".record") for name in there(url)):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    before = there(url)
    assert "results.csv" not in before
    _, err = ended(machine("second", *TINY, "--out", url))
    now = there(url)
    assert "training" not in err
    assert tables(now) == tables(stored(tiny_run))
    kept = [name for name in before if name.startswith("records/")]
    assert {name: now[name] for name in kept} == {name: before[name] for name in kept}


@pytest.mark.slow
def test_two_runs_at_once_share_a_remote_cache(machine, tiny_run, tmp_path):
    runs = [machine(name, *TINY, "--out", name + "-run") for name in ("first", "second")]
    for run in runs:
        ended(run)
    facts = [json.loads((tmp_path / f"{name}-run" / "run.json").read_text()) for name in ("first", "second")]
    assert facts[0]["models"] == facts[1]["models"]
    for name in ("first", "second"):
        assert tables(stored(tmp_path / f"{name}-run")) == tables(stored(tiny_run))
    found = there(machine.cache)
    (tmp_path / "all").mkdir()
    for name in (name for name in found if name.endswith(".safetensors")):
        (tmp_path / "all" / Path(name).name).write_bytes(found[name])
        assert Tensors(tmp_path / "all").load(Path(name).stem) is not None


class Planting(Silent):
    """Does something once a run knows what it has to do."""

    def __init__(self, plant: Callable[[], None]) -> None:
        self.plant = plant

    def begin(self, totals: Any) -> None:
        """Before the first job starts."""
        assert totals["training"] > 0
        self.plant()


@pytest.mark.slow
def test_a_model_that_another_sent_first_is_taken(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    monkeypatch.setenv("ATTRIBUG_CACHE", f"memory://{uuid.uuid4().hex}")
    cache = locations.cache()
    suite, plugins = str(PLUGINS / "tiny.yaml"), [str(PLUGINS / "tiny.py")]
    keys = list(api.planned(suite, plugins=plugins).trainings)
    url = f"memory://{uuid.uuid4().hex}"
    theirs = Tensors(tmp_path / "theirs")

    def plant() -> None:
        from attribug.models.training import initialised

        training = api.planned(suite, plugins=plugins).trainings[keys[0]]
        theirs.save(keys[0], initialised(training.recipe, 7).state_dict())
        cache.remote.write({f"models/{keys[0]}.safetensors": theirs.path(keys[0])})

    run = api.run(suite, out=url, plugins=plugins, workers=2, reporter=Planting(plant))
    assert run.complete
    assert run.name == url
    told = {key: model["weights"] for key, model in run.facts["models"].items()}
    own = {key: model["weights"] for key, model in json.loads((tiny_run / "run.json").read_text())["models"].items()}
    assert told == own | {keys[0]: theirs.checksum(keys[0])}
    assert there(url)["results.csv"] != (tiny_run / "results.csv").read_bytes(), "they are explained"
    planted = theirs.path(keys[0]).read_bytes()
    assert Models(cache.folder).path(keys[0]).read_bytes() == planted
    assert there(f"{cache.remote.url}/models")[f"{keys[0]}.safetensors"] == planted
