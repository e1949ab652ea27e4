"""Files at URLs: fsspec's memory and local file systems, and an S3 server on this machine."""

import errno
import shutil
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from attribug.errors import InputError
from attribug.reports import comparing
from attribug.reports.pages import write_report
from attribug.storage import locations
from attribug.storage.folders import LOCK, copies_folder, copy_folder, is_url
from attribug.storage.locations import Location
from attribug.storage.remote import Remote
from doubles import tiny
from doubles.places import elsewhere, there, write


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


def test_the_index_of_kept_maps_travels_with_the_tables(url, tmp_path):
    """Another one may have as many bytes."""
    here, other = elsewhere(url, tmp_path), elsewhere(url, tmp_path)
    write(here, maps__a_safetensors="m", maps__index_parquet="1", run_json="{}")
    here.send()
    assert set(there(url)) == {"maps/a.safetensors"}
    here.send(tables=True)
    write(other, maps__index_parquet="2")
    other.fetch("maps")
    assert (other.folder / "maps" / "index.parquet").read_text() == "2"
    other.fetch_tables()
    assert (other.folder / "maps" / "index.parquet").read_text() == "1"
    (here.folder / "maps" / "index.parquet").unlink()
    here.send(tables=True)
    assert set(there(url)) == {"maps/a.safetensors", "run.json"}


@pytest.mark.slow
@pytest.mark.usefixtures("in_process")
def test_kept_maps_are_fetched_when_they_are_asked_for(url):
    def kept():
        return tiny.run(url, keep_maps=True, methods=["gradient"], metrics=["spearman"])

    first = kept()
    found = first.maps("gradient", seed=0)
    shutil.rmtree(first.folder)  # as on another machine
    again = kept()
    assert again.outcome is None
    assert torch.equal(again.maps("gradient", seed=0).maps, found.maps)
    shutil.rmtree(first.folder / "maps")
    assert again.maps("gradient", seed=1).ids.tolist() == found.ids.tolist()
    with pytest.raises(InputError, match="found 'gradeint'"):
        again.maps("gradeint", seed=0)


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
