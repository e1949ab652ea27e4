"""What run.json, and the provenance beside a reference table, must tell before anything relies on it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pydantic
from pydantic import BaseModel, ConfigDict

from attribug.errors import InputError
from attribug.results.schema import SCHEMA_VERSION
from attribug.storage.files import checksum, read_json

RENEW = "run the suite again to renew it"


class _Told(BaseModel):
    """Facts of which more may be told."""

    model_config = ConfigDict(extra="allow")


class _Suite(_Told):
    name: str
    seeds: int
    seed: int
    examples: int
    task_options: dict[str, Any]


class _Bug(_Told):
    primary: str
    control: str


class _Metric(_Told):
    kind: str
    visible: float
    reads: str


class _Pieces(_Told):
    bugs: dict[str, _Bug]
    metrics: dict[str, _Metric]


class _Model(_Told):
    weights: str


class _Contrast(_Told):
    key: str
    models: list[str]


class Facts(_Told):
    """What a comparison needs of a table."""

    schema_: int = pydantic.Field(alias="schema")
    suite: _Suite
    pieces: _Pieces
    models: dict[str, _Model]
    contrasts: dict[str, _Contrast]
    files: dict[str, str]


class _Described(_Told):
    summary: str
    paper: str


class _Reported(_Bug, _Described):
    stage: str
    graded: bool
    seen_in_predictions: bool


class _Method(_Described):
    explains: bool
    bare: bool
    headline: str


class _Measured(_Metric, _Described):
    asks_directly: bool


class _AllPieces(_Pieces):
    bugs: dict[str, _Reported]  # type: ignore[assignment]
    methods: dict[str, _Method]
    metrics: dict[str, _Measured]  # type: ignore[assignment]
    tasks: dict[str, _Described]


class _Check(_Told):
    task: str
    bug: str
    level: str
    seed: int
    check: str
    figure: float | None
    expected: str
    holds: bool


class _Failure(_Told):
    cell: str
    method: str
    reason: str


class RunFacts(Facts):
    """What a run tells: enough for a report, or to become a reference."""

    plan: str
    written: str
    device: str
    revision: str | None
    machine: dict[str, str]
    versions: dict[str, str]
    pieces: _AllPieces
    checks: list[_Check]
    failures: list[_Failure]
    seconds: dict[str, float]


def read_facts(path: Path, kind: type[Facts] = Facts) -> dict[str, Any]:
    """The facts in a file.

    Raises:
        InputError: no file, no JSON, another schema, or something that is not what a run writes, named by its place.
    """
    told = read_json(path)
    if not isinstance(told, dict):
        found = "something else" if path.exists() else "no file"
        raise InputError(f"{path}: expected what a run writes, found {found}; {RENEW}")
    if told.get("schema") != SCHEMA_VERSION:
        raise InputError(f"{path}: expected schema {SCHEMA_VERSION}, found {told.get('schema')!r}; {RENEW}")
    try:
        kind.model_validate(told)
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InputError(f"{path}: {place}: expected what a run writes, found: {first['msg']}; {RENEW}") from None
    return told


def expect_file(path: Path, facts: dict[str, Any]) -> None:
    """Raises `InputError` where a file is not the one that its facts tell of, by its checksum."""
    if checksum(path) != facts["files"].get(path.name):
        found = "another: it was cut or edited" if path.exists() else "none"
        raise InputError(f"{path}: expected the file that its run wrote, found {found}; {RENEW}")
