"""The suite file: which tasks, bugs, levels, methods, metrics, seeds and sizes make a run."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import BaseModel, ConfigDict, Field

from attribug.errors import InputError, near_misses, warn_of_shadow
from attribug.suites.yaml_text import parsed

SHIPPED = Path(__file__).parent
Name = str


class SuiteCost(BaseModel):
    """What a suite costs on the machine it names: measured there, or estimated from another suite's measured cost."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    basis: Literal["measured", "estimated"]
    machine: str
    trainings: int
    """Models trained."""
    records: int
    """Contrast × method."""
    cold_minutes: float
    """Wall time with nothing cached."""
    cached_minutes: float
    """Wall time with every model trained."""
    peak_gigabytes: float
    """Largest resident size of one worker."""
    disk_megabytes: float
    """Size of the run's folder and of its trained models."""


class Suite(BaseModel):
    """A suite file. Names refer to registered pieces; every number that determines a result stands here."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    name: Name
    description: str = ""
    tasks: list[Name] = []
    bugs: list[Name] = []
    methods: list[Name] = Field(min_length=1)
    metrics: list[Name] = Field(min_length=1)
    levels: dict[Name, list[float | int | str]] = {}
    """Levels by bug; a bug that is not named here takes all its default levels."""
    task_options: dict[Name, dict[str, Any]] = {}
    method_options: dict[Name, dict[str, Any]] = {}
    task_levels: dict[Name, dict[Name, list[float | int | str]]] = {}
    """By task, of those that not all bugs are for: its bugs, each with its levels there; none: those of the bug."""
    fixes: list[Name] = []
    """What mends the models of every bug that can be mended: what is left of it gives rows as of a bug of its own."""
    fix_options: dict[Name, dict[str, Any]] = {}
    sweeps: dict[Name, list[int | float]] = {}
    """Further values of the parameter of a fix that is worth a curve: their models are measured, not explained."""
    swept_tasks: list[Name] = []
    """The tasks on which sweeps are made; none: all."""
    panels: list[Name] = []
    """Models that are held against masks, without any bug: see `attribug.panels`. A suite of panels alone needs neither
    tasks nor bugs."""
    panel_options: dict[Name, dict[str, Any]] = {}
    panel_methods: dict[Name, list[Name]] = {}
    """The methods, of those of the suite, that a panel is explained by; of one that is not named here: all."""
    posts: list[str] = []
    """Posts to measure every attribution metric with, instead of each metric's own, unless it is named with one;
    those a metric cannot take are left out for it, and said so."""
    seeds: int = Field(3, ge=1, le=500)
    """Independently trained models."""
    seed: int = Field(0, ge=0, lt=1_000_000)
    """Of everything random: two suites with different seeds share no model, split or noise."""
    examples: int = Field(32, ge=1)
    """Explained inputs a contrast."""
    chunk: int = Field(32, ge=1)
    """Inputs explained at a time: bounds memory; another value may change last bits."""
    rows: int = Field(64, ge=1)
    """Inputs of one pass through a model: likewise."""
    maps: Literal["float32", "float16"] = "float32"
    """Precision in which attributions are scored and, by `--keep-maps`, stored; float16 takes half the room."""
    visible: float | None = Field(None, ge=0)
    """Overrides every metric's δ."""
    cost: SuiteCost | None = None

    @property
    def model_seeds(self) -> tuple[int, ...]:
        """Seeds of the clean models: consecutive, and apart from those of another suite seed."""
        return tuple(self.seed * 1000 + number for number in range(self.seeds))


LISTED = ("tasks", "bugs", "methods", "metrics", "fixes", "panels", "posts")
"""Keys whose names may be separated by commas where one is changed."""


def shipped() -> list[str]:
    """Names of the suites in the package."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load(suite: str, changes: Mapping[str, Any] | None = None) -> Suite:
    """Reads a suite by path or shipped name (an existing path wins, with a warning), and changes it by dotted key.

    Raises `InputError` in one line: the key, what was expected, what was found.
    """
    path = Path(suite)
    if path.is_file() and suite in shipped():
        warn_of_shadow(suite, "the shipped suite", str(SHIPPED / f"{suite}.yaml"))
    if not path.is_file():
        if suite not in shipped():
            hint = near_misses(suite, shipped())
            raise InputError(f"unknown suite {suite!r}: expected a YAML file or a shipped name{hint}")
        path = SHIPPED / f"{suite}.yaml"
    values = _read(path)
    for key, value in (changes or {}).items():
        _change(values, key, value)
    if changes:
        values.pop("cost", None)
    for key in ("tasks", "bugs") if not values.get("panels") else ():
        if not values.get(key, True):
            raise InputError(f"suite {suite}: key {key!r}: expected at least one name, found none")
        if key not in values:
            raise InputError(f"suite {suite}: key {key!r} is missing")
    try:
        return Suite.model_validate(values)
    except pydantic.ValidationError as error:
        raise InputError(f"suite {suite}: {_explained(error)}") from error


def _read(path: Path) -> dict[str, Any]:
    try:
        values = parsed(path.read_text(encoding="utf-8-sig"))
    except InputError as error:
        raise InputError(f"suite {path}: {error}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"suite {path}: cannot be read: {getattr(error, 'strerror', None) or 'not text'}") from error
    if not isinstance(values, dict):
        raise InputError(f"suite {path}: expected a mapping of keys to values, found {type(values).__name__}")
    return values


def _change(values: dict[str, Any], key: str, value: Any) -> None:
    head, *rest = key.split(".")
    if head not in Suite.model_fields:
        raise InputError(f"unknown key {head!r}{near_misses(head, Suite.model_fields)}")
    if not rest and head in LISTED and isinstance(value, str):
        value = value.split(",")
    for name in rest:
        below = values.get(head) or {}
        if not isinstance(below, dict):
            raise InputError(f"unknown key {key!r}: expected {head!r} to hold keys, found {below!r}")
        values[head] = dict(below)
        values, head = values[head], name
    values[head] = value


def _explained(error: pydantic.ValidationError) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"] if not _is_type(part)]
    key = ".".join(place)
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}{near_misses(place[-1], Suite.model_fields)}"
    if first["type"] == "missing":
        return f"key {key!r} is missing"
    found = functools.reduce(
        lambda text, old: text.replace(*old), [("Input should be ", ""), ("List should", "it should")], first["msg"]
    )
    return f"key {key!r}: expected {found}, found {first['input']!r}"


def _is_type(part: int | str) -> bool:
    """Pydantic names the members of a union in an error's place; users know no such key."""
    return part in {"int", "float", "str"}
