"""What lies at URLs, and the same places as other machines see them."""

from __future__ import annotations

import uuid
from pathlib import Path

import fsspec
import pytest
import s3fs

from attribug.storage.locations import Location
from attribug.storage.remote import Remote


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


def with_s3(monkeypatch: pytest.MonkeyPatch, s3: dict[str, str], tmp_path: Path, **more: str) -> None:
    for name, value in {**s3, "XDG_CACHE_HOME": str(tmp_path / "user"), **more}.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
