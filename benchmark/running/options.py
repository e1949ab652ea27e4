"""The options of a run: described once, for the command line, for Python and for workers."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from attribug.errors import InputError, near_misses

Kind = Literal["text", "names", "integer", "number", "numbers", "pairs", "list", "flag"]
"""How the command line spells an option: a text; names separated by commas; a number; numbers separated by commas;
KEY=VALUE, or texts, as often as one likes; nothing but its name."""
ENGINES = ("local", "ray")
OF_THE_SUITE = ("methods", "bugs", "fixes", "panels", "metrics", "tasks", "seeds", "seed", "examples", "visible")
"""Options that are keys of the suite. `changes` and `plugins` reach it as well, and a GPU computes other last bits; all
other options change no number."""
OF_A_GIVEN_MODEL = (
    "model", "weights", "data", "masks", "classes", "pixels", "mean", "std", "bgr", "output", "most", "strict",
    "against", "tune", "fit",
)  # fmt: skip
"""Options that are keys of the suite's `task_options.own`: see `attribug.tasks.own`."""


def _option(kind: Kind, told: str, default: Any = None, *, metavar: str = "", flag: str = "") -> Any:
    """`told`: what `--help` says; `flag`: its name there, where that is another."""
    return field(default=default, metadata={"kind": kind, "told": told, "metavar": metavar, "flag": flag})


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a suite is run, and in what it differs from its file."""

    out: str | Path | None = _option("text", "Folder or URL of the results; default runs/SUITE.", metavar="PLACE")
    methods: Sequence[str | Callable[..., Any]] | None = _option("names", "Only these, a,b,…")
    """From Python also plain functions f(model, inputs, targets)."""
    bugs: Sequence[str] | None = _option("names", "Only these, a,b,…")
    fixes: Sequence[str] | None = _option("names", "Mend what can be mended with these, a,b,…")
    panels: Sequence[str] | None = _option("names", "Only these, a,b,…")
    metrics: Sequence[str] | None = _option("names", "Only these, a,b@post,…")
    tasks: Sequence[str] | None = _option("names", "Only these, a,b,…")
    seeds: int | None = _option("integer", "Number of models a side.", metavar="N")
    seed: int | None = _option("integer", "Seed of everything random.", metavar="N")
    examples: int | None = _option("integer", "Explained inputs a contrast.", metavar="N")
    model: str | Any = _option(
        "text", "Your own: FILE.py:FUNCTION, MODULE:FUNCTION, torchvision:NAME, timm:NAME.", metavar="NAME"
    )
    """From Python also a torch.nn.Module: it is left as it is, copies of it are explained."""
    weights: str | Path | None = _option("text", "Of your model: safetensors, or a state dict.", metavar="FILE")
    data: str | Path | Any = _option(
        "text", "Yours: pictures by class or all in one, .npz, .safetensors.", metavar="PLACE"
    )
    """From Python also inputs (N, *shape), or (inputs, labels)."""
    masks: str | Path | Any = _option(
        "text", "Pictures of the same names, not black on the object; or a folder of them a region.", metavar="FOLDER"
    )
    """From Python also an array (N, *spatial), or several by the names of their regions."""
    classes: str | Path | Sequence[str] | None = _option("text", "A name a line, for each output.", metavar="FILE")
    pixels: int | None = _option("integer", "Squares of so many, instead of the model's own transform.", metavar="N")
    mean: Sequence[float] | None = _option("numbers", "Of the channels, values in [0, 1].", metavar="X[,X,X]")
    std: Sequence[float] | None = _option("numbers", "Likewise.", metavar="X[,X,X]")
    bgr: bool = _option("flag", "Channels in reverse order.", False)
    output: str | None = _option("text", "Which of several outputs of your model are its logits.", metavar="NAME")
    most: int | None = _option("integer", "So many of your examples, spread over the classes.", metavar="N")
    strict: bool = _option("flag", "Refuse files that are no picture, and masks that do not fit.", False)
    against: str | Path | Any = _option(
        "text", "Of another domain: a second model, as --model, or labelled data to train one on.", metavar="NAME|PLACE"
    )
    """From Python also (inputs, labels)."""
    tune: str | None = _option("text", "What bugs of the training data train: head or all.", metavar="WHAT")
    fit: str | Callable[..., Any] | None = _option(
        "text", "What trains it for them instead: FILE.py:FUNCTION, MODULE:FUNCTION.", metavar="NAME"
    )
    """From Python also a function f(model, inputs, labels, seed)."""
    changes: Mapping[str, Any] | None = _option(
        "pairs", "Change the suite, by dotted key.", metavar="KEY=VALUE", flag="--set"
    )
    plugins: Sequence[str] = _option("list", "Adds what it registers.", (), metavar="FILE|MODULE", flag="--plugin")
    models: str | Path | None = _option("text", "Folder or URL of trained models to use; trains none.", metavar="PLACE")
    device: str = _option("text", "auto, cpu or cuda.", "auto")
    engine: str = _option("text", "local or ray.", "local")
    address: str | None = _option("text", "Of a Ray cluster.")
    workers: int | None = _option("integer", "Processes; default: the cores.", metavar="N")
    timeout: float | None = _option("number", "Seconds a record may take.", metavar="X")
    visible: float | None = _option("number", "Smallest difference that counts, for every metric.", metavar="X")
    keep_maps: bool = _option("flag", "Store attributions: a new metric then scores them as they are.", False)
    fresh: bool = _option("flag", "Recompute everything, models included.", False)

    def __post_init__(self) -> None:
        """Raises `InputError` for options that mean nothing, or do not go together."""
        if self.engine not in ENGINES:
            raise InputError(f"--engine: expected {' or '.join(ENGINES)}, found {self.engine!r}")
        if self.address is not None and self.engine != "ray":
            raise InputError(f"--address {self.address}: expected --engine ray with it, found {self.engine}")
        for name in ("pixels", "most"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name}: expected at least 1, found {value}")
        for name in ("mean", "std"):
            if isinstance(getattr(self, name), int | float):
                raise InputError(f"--{name}: expected a sequence of numbers, found {getattr(self, name):g}")
        for name in ("workers", "timeout"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise InputError(f"--{name}: expected a number above 0, found {value:g}")

    @staticmethod
    def of(arguments: Mapping[str, Any]) -> RunOptions:
        """From keyword arguments. Raises `InputError` for one that is none, as for wrong ones."""
        known = [option.name for option in fields(RunOptions)]
        for name in arguments:
            if name not in known:
                raise InputError(f"run: unknown option {name!r}{near_misses(name, known)}")
        return RunOptions(**arguments)

    @property
    def of_a_given_model(self) -> dict[str, Any]:
        """What says which model is given, and which data, by its keys."""
        return {name: getattr(self, name) for name in OF_A_GIVEN_MODEL if not _unset(getattr(self, name))}

    def of_the_suite(self) -> dict[str, Any]:
        """What changes the suite, by its keys."""
        given = {name: getattr(self, name) for name in OF_THE_SUITE if getattr(self, name) is not None}
        given |= {f"task_options.own.{name}": value for name, value in self.of_a_given_model.items()}
        plain = {tuple: list, type(Path()): str}
        given = {name: plain.get(type(value), lambda same: same)(value) for name, value in given.items()}
        return {**given, **(self.changes or {})}


def _unset(value: Any) -> bool:
    """Whether nobody set an option: a flag that is not there, a value that is none."""
    return value is None or value is False
