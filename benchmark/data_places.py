"""Where data lie that no package brings: `$ATTRIBUG_DATA`, else the user's data folder; one sub-folder a source.

Sub-folders are called as torchvision calls them, where it knows the data: it reads the same folder. Here is, too, where
the cache lies.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import platformdirs

DATA, CACHE = "ATTRIBUG_DATA", "ATTRIBUG_CACHE"
COPIES, COPY_CHARACTERS = "copies", 16


def data_folder() -> Path:
    """The folder of all data sets, whether it is there or not."""
    given = os.environ.get(DATA)
    return Path(given).expanduser() if given else Path(platformdirs.user_data_dir("attribug", appauthor=False))


def cache_folder() -> Path:
    """`$ATTRIBUG_CACHE`, else the user's cache folder; where the former is a URL, the copy of what lies there."""
    given = os.environ.get(CACHE)
    if given and is_url(given):
        return copy_folder(given)
    return Path(given) if given else _user_cache()


def is_url(place: str | Path) -> bool:
    """Whether a place is the URL of a remote one; a `Path` never is."""
    return isinstance(place, str) and "://" in place


def copies_folder() -> Path:
    """Where copies of remote places lie: in the cache, or the user's cache folder where that is remote itself."""
    given = os.environ.get(CACHE)
    return (Path(given) if given and not is_url(given) else _user_cache()) / COPIES


def copy_folder(url: str) -> Path:
    """The folder that a URL's copy lies in."""
    return copies_folder() / hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:COPY_CHARACTERS]


def _user_cache() -> Path:
    return Path(platformdirs.user_cache_dir("attribug", appauthor=False))
