"""Places that cannot be reached, as users meet them: one line, and soon."""

import socket
import subprocess
import sys
import time

import moto
import pytest

from attribug.errors import InputError
from attribug.storage import remote
from attribug.storage.remote import Remote
from doubles.places import with_s3
from doubles.tiny import typed

SECONDS = 60.0


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
    with_s3(monkeypatch, s3, tmp_path)
    if option == "cache":
        monkeypatch.setenv("ATTRIBUG_CACHE", place)
    answer = inside(*typed(), *([] if option == "cache" else [option, place]))
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


def test_an_unreachable_server_is_one_line_and_soon(inside, s3, monkeypatch, tmp_path):
    with_s3(monkeypatch, s3, tmp_path, AWS_ENDPOINT_URL="http://127.0.0.1:9")
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
        with_s3(monkeypatch, s3, tmp_path, AWS_ENDPOINT_URL=f"http://127.0.0.1:{silent.getsockname()[1]}")
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
    with_s3(monkeypatch, s3, tmp_path, AWS_SHARED_CREDENTIALS_FILE="/nowhere", AWS_CONFIG_FILE="/nowhere")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    answer = inside("run", "smoke", "--out", "s3://bucket/x")
    line = one_line(answer, 2)
    assert "--out s3://bucket/x" in line
    assert "Unable to locate credentials" in line


def test_wrong_credentials(inside, s3, monkeypatch, tmp_path):
    with_s3(monkeypatch, s3, tmp_path)
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
