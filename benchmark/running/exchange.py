"""What a run fetches from, and sends to, the remote places of its folder and its cache."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

from attribug.errors import InputError
from attribug.running.jobs import Train
from attribug.storage.folders import CONTENT
from attribug.storage.shared_models import fetch_models, share_model

if TYPE_CHECKING:
    from attribug.running.jobs import Job
    from attribug.storage.locations import Location
    from attribug.storage.tensors import Tensors


class Exchange:
    """What a run fetches from, and sends to, the remote places of its folder and its cache."""

    def __init__(self, out: Location, cache: Location, models: Tensors, *, fresh: bool) -> None:
        """`models`: the cache's; `fresh`: nothing is fetched, and what is made replaces what is there."""
        self._out, self._cache, self._models, self._fresh = out, cache, models, fresh
        self._unsent: list[str] = []
        self._late = False

    def begin(self, keys: Collection[str]) -> None:
        """Fetches records and the models of these keys; what an earlier run left unsent is sent."""
        for place in (self._out, self._cache):
            place.note_unsent(True)
        if not self._fresh:
            self._out.fetch(*CONTENT)
            for key in fetch_models(self._cache, self._models, keys):
                share_model(self._cache, self._models, key)
        self._out.send()

    def sent(self, job: Job) -> None:
        """Sends what a job has made, before anything that rests on it starts. Once a place cannot be reached, what is
        left waits for the end: no run of hours should die of a lost minute."""
        if isinstance(job, Train):
            self._unsent.append(job.key)
        if not self._late:
            try:
                self._send()
            except InputError:
                self._late = True  # `end` meets it again

    def end(self) -> None:
        """Sends what is left, and the tables. Raises `InputError` where that fails; it is all here still."""
        try:
            self._send()
            self._out.send(tables=True)
            for place in (self._out, self._cache):
                place.note_unsent(False)
        except InputError as error:
            raise InputError(f"{error}; nothing is lost: the same command sends it") from error

    def _send(self) -> None:
        while self._unsent:
            adopt = not self._late  # else something may rest on ours
            share_model(self._cache, self._models, self._unsent[0], fresh=self._fresh, adopt=adopt)
            self._unsent.pop(0)
        self._out.send()
