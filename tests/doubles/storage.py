"""Storage that fails: calls that raise when it is their turn, and disks that are too small."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from attribug.errors import InputError
from attribug.storage import files, folders
from attribug.storage.records import Records
from attribug.storage.tensors import Tensors
from doubles.tiny import tables


class Faults:
    """Stands before the calls that store files below a folder, and lets some of them fail."""

    def __init__(self, folder: Path, choose: Callable[[str], int]) -> None:
        """`choose`: the error of a call, by its name and place; 0 for none."""
        self.folder = folder
        self.choose = choose
        self.fired: list[tuple[str, int]] = []

    def meet(self, call: str, path: object, spoil: Callable[[], object] = lambda: None) -> None:
        """Fails where it is this call's turn; what it had half done is then there."""
        place = Path(os.fsdecode(path))  # type: ignore[call-overload]
        if self.folder not in place.parents:
            return
        temporary = re.fullmatch(r"\.(.+?)\.(?:\w{8}|\d+\.[0-9a-f]{8}\.tmp)", place.name)
        name = place.with_name(temporary[1] if temporary else place.name).relative_to(self.folder)
        error = self.choose(f"{call} {name}")
        if error:
            self.fired.append((f"{call} {name}", error))
            choose, self.choose = self.choose, lambda _: 0
            spoil()
            self.choose = choose
            raise OSError(error, os.strerror(error), str(place))

    @contextmanager
    def before(self, patch: pytest.MonkeyPatch) -> Iterator[Faults]:
        """Puts itself before the calls."""
        with patch.context() as patched:
            mkstemp, fsync, replace, unlink, opened = tempfile.mkstemp, os.fsync, os.replace, os.unlink, Path.open
            acquire = folders.FileLock.acquire

            def meet_mkstemp(*args: Any, dir: Any = None, prefix: str = "", **more: Any) -> Any:
                self.meet("mkstemp", Path(dir or tempfile.gettempdir()) / f"{prefix}........".strip("."))
                return mkstemp(*args, dir=dir, prefix=prefix, **more)

            def meet_fsync(file: int) -> None:
                self.meet("fsync", os.readlink(f"/proc/self/fd/{file}"))
                fsync(file)

            def meet_replace(source: Any, target: Any, **more: Any) -> None:
                self.meet("replace", target)
                replace(source, target, **more)

            def meet_unlink(path: Any, **more: Any) -> None:
                self.meet("unlink", path)
                unlink(path, **more)

            def meet_open(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
                if set(mode) & set("wxa+"):
                    self.meet("open", path)
                return opened(path, mode, *args, **more)

            def meet_acquire(lock: Any, *args: Any, **more: Any) -> Any:
                self.meet("lock", lock.lock_file)
                return acquire(lock, *args, **more)

            patched.setattr(tempfile, "mkstemp", meet_mkstemp)
            patched.setattr(os, "fsync", meet_fsync)
            patched.setattr(os, "replace", meet_replace)
            patched.setattr(os, "unlink", meet_unlink)
            patched.setattr(Path, "open", meet_open)
            patched.setattr(folders.FileLock, "acquire", meet_acquire)
            for kind, name in ((Path, "write_bytes"), (Path, "write_text"), (pd.DataFrame, "to_csv"),
                               (pd.DataFrame, "to_parquet")):  # fmt: skip
                patched.setattr(kind, name, self._writing(getattr(kind, name)))
            yield self

    def _writing(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def meet(self_: Any, *args: Any, **more: Any) -> Any:
            path = self_ if isinstance(self_, Path) else args[0]

            def half() -> None:
                write(self_, *args, **more)
                os.truncate(path, path.stat().st_size // 2)

            if isinstance(path, Path):
                self.meet("write", path, half)
            return write(self_, *args, **more)

        return meet


def is_told(error: InputError, folder: Path, found: Sequence[int]) -> bool:
    """Whether an error is one line that names a path below a folder, and one of the reasons."""
    text = str(error)
    return "\n" not in text and str(folder) in text and any(os.strerror(number) in text for number in found)


def expect_whole(folder: Path, expected: dict[str, bytes]) -> None:
    """Whatever a run has left so far is whole: tables are the undisturbed ones, records and models can be read."""
    for name, content in tables(folder / "run", figures=False).items():
        assert content == expected[name], name
    records, models = Records(folder / "run"), Tensors(folder / "cache" / "models")
    for path in (folder / "run" / "records").glob("*.record"):
        assert records.load(path.stem) is not None, path
    for path in models.folder.glob("*.safetensors"):
        assert models.load(path.stem) is not None, path
    assert not list(folder.rglob(files.DAMAGED))


@contextmanager
def small_disk(kilobytes: int) -> Iterator[tuple[Path, Callable[[str], None]]]:
    """A disk of a size, and how to mount it anew with other options; needs root."""
    place = Path(tempfile.mkdtemp())
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place)], check=True)

    def again(options: str) -> None:
        subprocess.run(["mount", "-o", f"remount,{options}", str(place)], check=True)

    try:
        yield place, again
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)
        place.rmdir()


def can_mount() -> bool:
    """Whether this test may mount disks."""
    try:
        with small_disk(64):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
