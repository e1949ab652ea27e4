"""Named tensors by content key, verified when read."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attribug.storage.files import Damaged, make_folder, write_atomically

if TYPE_CHECKING:
    from torch import Tensor


class Tensors:
    """Named tensors by key, safetensors files with a checksum in their header."""

    def __init__(self, folder: Path, *, mine: bool = True) -> None:
        """`mine`: damaged files may be moved."""
        self.folder = folder
        self.damaged = Damaged(mine)

    def path(self, key: str) -> Path:
        """Where an artefact lies."""
        return self.folder / f"{key}.safetensors"

    def load(self, key: str) -> dict[str, Tensor] | None:
        """The tensors, or None when they are absent or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(key), framework="pt") as file:
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                facts = file.metadata() or {}
        except FileNotFoundError:
            return None
        except (OSError, SafetensorError):
            tensors, facts = {}, {}
        if facts.get("key") == key and facts.get("sha256") == _checksum(tensors):
            return tensors
        self.damaged.set_aside(self.path(key))
        return None

    def checksum(self, key: str) -> str:
        """What the file says the tensors' checksum is; an empty text when it is absent or damaged."""
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(self.path(key), framework="pt") as file:
                return str((file.metadata() or {}).get("sha256", ""))
        except (OSError, SafetensorError):
            return ""

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Writes tensors atomically."""
        from safetensors.torch import save

        # clones, because weights that two modules share cannot be written as one
        tensors = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        metadata = {"sha256": _checksum(tensors), "key": key}
        content = save(tensors, metadata)  # its `save_file` hides the reasons of the system
        make_folder(self.folder)
        write_atomically(self.path(key), lambda temporary: temporary.write_bytes(content))


class Spare(Tensors):
    """Named tensors that spare work while they are there: written only where room is left beside them."""

    ROOM = 2_000_000_000  # bytes of the disk that stay free

    def save(self, key: str, tensors: dict[str, Tensor]) -> None:
        """Writes tensors atomically, or nothing."""
        size = sum(value.nbytes for value in tensors.values())
        make_folder(self.folder)
        if shutil.disk_usage(self.folder).free - size > self.ROOM:
            super().save(key, tensors)


def _checksum(tensors: dict[str, Tensor]) -> str:
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name]
        total.update(f"{name}{tuple(value.shape)}{value.dtype}".encode())
        total.update(value.detach().cpu().contiguous().reshape(-1).view(_bytes()).numpy().tobytes())
    return total.hexdigest()


def _bytes() -> Any:
    import torch

    return torch.uint8
