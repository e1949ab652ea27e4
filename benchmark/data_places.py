"""Where data lie that no package brings: `$ATTRIBUG_DATA`, else the user's data folder; one sub-folder a source.

Sub-folders are called as torchvision calls them, where it knows the data: it reads the same folder.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

DATA = "ATTRIBUG_DATA"


def data_folder() -> Path:
    """The folder of all data sets, whether it is there or not."""
    given = os.environ.get(DATA)
    return Path(given).expanduser() if given else Path(platformdirs.user_data_dir("attribug", appauthor=False))
