"""How to run; nothing here changes a number."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunOptions:
    """How to run; none of these changes a number."""

    engine: str = "local"
    address: str | None = None
    workers: int = 1
    timeout: float | None = None
    fresh: bool = False
    keep_maps: bool = False
    models: Path | None = None
    plugins: tuple[str, ...] = ()
    functions: bytes = b""
