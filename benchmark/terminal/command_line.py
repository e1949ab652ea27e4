"""The command line: parse, call, print. Errors are one line on stderr; exit codes: see `attribug --help`."""

from __future__ import annotations

import inspect
import json
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import Field, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from attribug.errors import InputError, Missing, Shadowed, warn_of_shadow
from attribug.running.options import RunOptions

if TYPE_CHECKING:
    from attribug.api import Run
    from attribug.results.comparison import Comparison


class Alarm(Exception):
    """A comparison found what must not pass."""

    def __init__(self, found: Comparison) -> None:
        super().__init__(found.conclusion)
        self.found = found


def _say(text: object, nl: bool = True) -> None:
    """Prints; whoever has closed the output does not change how the command ends."""
    try:
        print(text, end="\n" if nl else "", flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(others: Callable[..., object], message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Shows a warning: our own in one line, as errors are; `others` shows all others."""
    if issubclass(category, Shadowed):
        print(f"attribug: {message}", file=sys.stderr, flush=True)
    else:
        others(message, category, *place)


def _integer(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise typer.BadParameter(f"expected an integer, found {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise typer.BadParameter(f"expected a number, found {text!r}") from None


DONE, FAILED_CHECK, WRONG_INPUT, INCOMPLETE = 0, 1, 2, 3
KINDS = ("methods", "bugs", "fixes", "metrics", "tasks", "panels", "suites")
app = typer.Typer(
    name="attribug", add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Which explanation method reveals which bug in a machine-learning model?",
    epilog="Exit codes: 0 done; 1 a regression or failed check; 2 wrong input; 3 failed or missing records; "
    "130 interrupted.",
)  # fmt: skip


def main() -> tuple[int, str]:
    """Runs the command line; returns the exit code and, where something went wrong, what, in one line."""
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]  # click's, also where typer carries its own copy
    outcome: tuple[int, str]
    warnings.showwarning = partial(_show, warnings.showwarning)
    try:
        code = app(standalone_mode=False)
        outcome = (code if isinstance(code, int) else DONE), ""
    except Alarm as alarm:
        outcome = alarm.found.code, alarm.found.conclusion
    except InputError as error:
        outcome = INCOMPLETE if isinstance(error, Missing) else WRONG_INPUT, str(error)
    except usage_error as error:
        outcome = WRONG_INPUT, _plain(error)
    except BrokenPipeError:  # whoever read the output has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        outcome = DONE, ""
    except OSError as error:
        outcome = WRONG_INPUT, f"{error.filename or 'file'}: {error.strerror or error}"
    return outcome


@app.callback(invoke_without_command=True)
def _start(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        from attribug import __version__

        _say(__version__)
        raise typer.Exit
    if context.invoked_subcommand is None:
        _say(context.get_help())


def run(suite: str | None, dry_run: bool, **given: Any) -> None:
    """Train, contaminate, explain, score; print the table. Running again resumes."""
    options = _options(given)
    from attribug import api

    if dry_run:
        for line in api.dry_run(suite, **options).lines():
            _say(line)
        return
    from attribug.terminal.matrix import print_run
    from attribug.terminal.progress import Bars

    with Bars() as bars:
        finished: Run = api.run(suite, reporter=bars, **options)
    print_run(finished, tuple(options.get("metrics") or ()))
    if not finished.complete:
        raise typer.Exit(INCOMPLETE)


def replicate(suite: str | None, times: int, **given: Any) -> None:
    """Run a suite under further suite seeds; count which verdicts are confirmed. Running again resumes."""
    options = _options(given)
    from attribug import api
    from attribug.terminal.progress import Bars
    from attribug.terminal.replicates import print_replicated

    with Bars() as bars:
        found = api.replicate(suite, times=times, reporter=bars, **options)
    print_replicated(found)
    if not found.complete:
        raise typer.Exit(INCOMPLETE)


def _options(given: dict[str, Any]) -> dict[str, Any]:
    """A run's options from what was typed; wrong ones are refused before anything heavy is imported."""
    options = {name: _parsed(name, value) for name, value in given.items() if value not in (None, [])}
    RunOptions.of(options)
    return options


SPELLED: dict[str, Any] = {
    "text": str | None, "names": str | None, "numbers": str | None, "integer": int | None, "number": float | None,
    "flag": bool, "pairs": list[str] | None, "list": list[str] | None,
}  # fmt: skip
"""Types by the kinds of `RunOptions`."""
ANNOTATED: Any = Annotated  # made of types that are not written down
PARSERS: dict[str, Any] = {"integer": _integer, "number": _number}


def _parsed(name: str, value: Any) -> Any:
    """An option's value from what was typed."""
    kind = next(option.metadata["kind"] for option in fields(RunOptions) if option.name == name)
    read: Any = {"names": partial(_names, name), "numbers": partial(_numbers, f"--{name}"), "pairs": _changes}.get(kind)
    return value if read is None else read(value)


def _parameter(option: Field[Any]) -> inspect.Parameter:
    """A run's option, as typer reads it."""
    told = option.metadata
    flag = told["flag"] or f"--{option.name.replace('_', '-')}"
    spelled = typer.Option(
        flag, help=told["told"], metavar=told["metavar"] or None, parser=PARSERS.get(told["kind"]),
    )  # fmt: skip
    default = None if option.default == () else option.default
    annotation = ANNOTATED[SPELLED[told["kind"]], spelled]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


def _register(command: Callable[..., None], name: str, default: Any, spelled: Any) -> None:
    """Adds a command that takes a suite, a run's options and one of its own."""
    suite = Annotated[
        str | None, typer.Argument(help="A shipped suite or a YAML file; default quick, with --model own.")
    ]
    place = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        inspect.Parameter("suite", place, default=None, annotation=suite),
        *(_parameter(option) for option in fields(RunOptions)),
        inspect.Parameter(name, place, default=default, annotation=spelled),
    ]
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command()(command)


TIMES = typer.Option(metavar="N", help="Suite seeds in all, the suite's own first.", parser=_integer)
DRY = typer.Option("--dry-run", help="Print the plan and what it would take.")
_register(run, "dry_run", False, ANNOTATED[bool, DRY])
_register(replicate, "times", inspect.Parameter.empty, ANNOTATED[int, TIMES])


@app.command()
def explain(
    model: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="FILE.py:FUNCTION, MODULE:FUNCTION, torchvision:NAME, timm:NAME, lite0, lite1, lite2 or squeezenet.",
        ),
    ],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Pictures, in folders by class or all in one; or gcompris:animals or gcompris:scenes.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="For page, table and maps.")] = Path("explained"),
    weights: Annotated[str | None, typer.Option(metavar="FILE", help="safetensors, or a state dict.")] = None,
    methods: Annotated[str | None, typer.Option(help="a,b,…; default: fast ones of every family.")] = None,
    pixels: Annotated[
        int | None, typer.Option(metavar="N", help="Squares of so many, instead of the model's own transform.")
    ] = None,
    mean: Annotated[str | None, typer.Option(metavar="X[,X,X]", help="Of the channels, values in [0, 1].")] = None,
    std: Annotated[str | None, typer.Option(metavar="X[,X,X]", help="Likewise.")] = None,
    bgr: Annotated[bool, typer.Option("--bgr", help="Channels in reverse order.")] = False,
    classes: Annotated[Path | None, typer.Option(metavar="FILE", help="A name a line, one for each output.")] = None,
    most: Annotated[int, typer.Option(metavar="N", help="So many pictures, spread over the classes.")] = 100,
    strict: Annotated[bool, typer.Option("--strict", help="Refuse files that are no picture.")] = False,
    output: Annotated[str | None, typer.Option(metavar="NAME", help="Which of several outputs are the logits.")] = None,
    run: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="A run of own: its verdicts stand beside the methods.")
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the noise.")] = 0,
) -> None:
    """Explains what your model says of your pictures; writes a page, a table and the maps."""
    from attribug.reports.explaining import explain_folder

    found = explain_folder(
        model, data, out, weights=weights, methods=_names("methods", methods) if methods else None, pixels=pixels,
        mean=_numbers("--mean", mean), std=_numbers("--std", std), bgr=bgr, classes=classes, most=most, strict=strict,
        output=output, run=run, seed=seed, say=_say,
    )  # fmt: skip
    for method, reason in found.refused.items():
        _say(f"{method}: declines: {reason}")
    _say(f"written: {out / 'explained.html'}, explained.csv, maps.safetensors ({', '.join(found.maps)})")


def _numbers(flag: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError(f"{flag}: expected numbers, as .485,.456,.406, found {text!r}") from None


@app.command("list")
def list_(
    kind: Annotated[
        str | None, typer.Argument(help="methods, bugs, fixes, metrics, tasks, panels or suites; default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
    plugin: Annotated[list[str] | None, typer.Option(metavar="FILE|MODULE", help="Adds what it registers.")] = None,
) -> None:
    """Lists what there is, with where it comes from and what it costs."""
    from attribug.errors import near_misses
    from attribug.plugins import load_plugin
    from attribug.terminal import listing

    if kind is not None and kind not in KINDS:
        raise InputError(f"list: expected one of {', '.join(KINDS)}, found {kind!r}{near_misses(kind, KINDS)}")
    for each in plugin or []:
        load_plugin(each)
    rows = {each: listing.listed(each) for each in ([kind] if kind else KINDS)}
    if as_json:
        _say(json.dumps(rows, indent=2))
    else:
        _say(listing.text(rows), nl=False)


@app.command()
def check(
    plugin: Annotated[str, typer.Argument(help="A file, a module, or the name of a registered piece.")],
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False,
) -> None:
    """Checks that everything a plugin registers keeps its contract; exit code 1 if anything does not."""
    from attribug.conformance import checks

    results = checks.check_plugin(plugin, lambda result: None if as_json else _say(result))
    _say(checks.as_json(results) if as_json else checks.summary(results))
    if not all(result.passed for result in results):
        raise typer.Exit(FAILED_CHECK)


@app.command()
def compare(
    baseline: Annotated[
        str, typer.Argument(help="A run's folder or URL, a results.csv, a reference (smoke, quick …), or published.")
    ],
    candidate: Annotated[
        str | None, typer.Argument(help="A run's folder or URL, a results.csv or a reference; not with --methods.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(metavar="[METRIC=]X", help="Difference of values that counts for nothing; effect=X for effects."),
    ] = None,
    only: Annotated[str | None, typer.Option(metavar="verdicts", help="Gate verdicts, no values.")] = None,
    common: Annotated[bool, typer.Option("--common", help="Compare the rows that both have.")] = False,
    methods: Annotated[
        str | None, typer.Option(metavar="A,B", help="Of one run: the effects of method A less those of B.")
    ] = None,
    format_: Annotated[str, typer.Option("--format", help="text, markdown, junit or json.")] = "text",
    accept: Annotated[bool, typer.Option("--accept", help="Then keep the candidate as the reference.")] = False,
) -> None:
    """Compares two runs row by row; exit code 1 where something got worse, 3 where something was not measured. With
    --methods, two methods of one run."""
    from attribug.reports import accepting, comparing
    from attribug.results.comparison_formats import FORMATS, PUBLISHED_FORMATS
    from attribug.results.published import NAME

    if methods is not None:
        if candidate is not None or tolerance or only or common or accept:
            raise InputError("compare --methods A,B: expected one run and no other option than --format")
        _compare_methods(baseline, methods, format_)
        return
    if candidate is None:
        raise InputError("compare: expected a baseline and a candidate, or --methods A,B and a run, found one place")

    published = baseline == NAME
    if published and Path(NAME).exists():
        warn_of_shadow(NAME, "the published values", "the same command in another folder")
        published = False
    known = PUBLISHED_FORMATS if published else FORMATS
    if format_ not in known:
        raise InputError(f"--format: expected {', '.join(known)}, found {format_!r}")
    if only not in {None, "verdicts"}:
        raise InputError(f"--only: expected verdicts, found {only!r}")
    allowed = _tolerances(tolerance or [])
    if published:
        if accept or allowed or only or common:
            raise InputError(
                "compare published: expected no --accept, --tolerance, --only or --common: nothing is gated"
            )
        _say(PUBLISHED_FORMATS[format_](*comparing.compare_published(candidate)), nl=False)
        return
    if accept:
        _say(f"written: {accepting.accept(baseline, candidate)}")
        return
    options: Any = {"tolerance": allowed, "only_verdicts": only is not None, "common": common}
    comparison = comparing.compare(baseline, candidate, **options)
    _say(FORMATS[format_](comparison), nl=False)
    if not comparison.ok:
        raise Alarm(comparison)


def _compare_methods(run: str, methods: str, format_: str) -> None:
    """Two methods of one run."""
    from attribug.reports import comparing
    from attribug.results.comparison_formats import DIFFERENCE_FORMATS

    names = _names("methods", methods)
    if len(names) != 2:
        raise InputError(f"--methods: expected two methods, as mine,gradient, found {methods!r}")
    if format_ not in DIFFERENCE_FORMATS:
        raise InputError(f"--format: expected {', '.join(DIFFERENCE_FORMATS)}, found {format_!r}")
    _say(DIFFERENCE_FORMATS[format_](comparing.compare_methods(run, *names)), nl=False)


@app.command()
def report(
    run: Annotated[str, typer.Argument(help="A run's folder or URL.")],
    output: Annotated[Path | None, typer.Option(metavar="FILE", help="Default RUN/report.html.")] = None,
) -> None:
    """Writes one self-contained HTML page: verdicts, galleries, curves, checks, costs, settings, failures."""
    from attribug.reports.pages import write_report as written

    _say(f"written: {written(run, output)}")


caches = typer.Typer()
app.add_typer(caches, name="cache")


@caches.callback(invoke_without_command=True)
def cache(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False
) -> None:
    """Shows what the cache holds and how much it takes: trained models, copies of remote places; `prune` frees it."""
    if context.invoked_subcommand is not None:
        return
    from attribug.storage import cache
    from attribug.terminal import cache_text

    places = cache.Cache().places()
    if as_json:
        _say(json.dumps(cache_text.as_json(places), indent=2))
        return
    for place in places:
        _say("\n".join(cache_text.lines(place)))


@caches.command()
def prune(
    older_than: Annotated[
        str | None, typer.Option(metavar="AGE", help="Removes what was not used for so long: 12h, 30d, 4w.")
    ] = None,
    max_size: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Then what was used least recently, down to 500MB, 2GB.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go only.")] = False,
) -> None:
    """Removes trained models and copies of remote places; damaged files and what killed runs left behind always go."""
    if older_than is None and max_size is None:
        raise InputError("cache prune: expected --older-than AGE, --max-size SIZE or both, found neither")
    from attribug.storage import cache
    from attribug.terminal import cache_text

    age = None if older_than is None else cache_text.seconds(older_than)
    limit = None if max_size is None else cache_text.size(max_size)
    for place, gone, kept in cache.Cache().prune(age, limit, dry=dry_run):
        _say("\n".join(cache_text.pruned(place, gone, kept, dry=dry_run)))


sources = typer.Typer()
app.add_typer(sources, name="data")


@sources.callback(invoke_without_command=True)
def data(
    context: typer.Context, as_json: Annotated[bool, typer.Option("--json", help="Machine-readable.")] = False
) -> None:
    """Lists data and weights: whether they are here, licence, size, how to get them; `fetch` gets what can be got."""
    if context.invoked_subcommand is not None:
        return
    from attribug.terminal import data_text

    _say(json.dumps(data_text.as_json(), indent=2) if as_json else "\n".join(data_text.lines()))


@sources.command()
def fetch(names: Annotated[list[str], typer.Argument(metavar="NAME …", help="As `attribug data` lists them.")]) -> None:
    """Downloads, verifies and unpacks sources; goes on where one broke off. Exit code 3 where one did not come."""
    from attribug import data_sources
    from attribug.storage import fetching
    from attribug.terminal import data_text

    for name in names:
        data_sources.get(name)
    for name in names:
        with data_text.Downloads() as downloads:
            new = fetching.fetch(name, downloads.told)
        _say(f"{name}: {'fetched' if new else 'already here'}")


def _tolerances(given: list[str]) -> dict[str, float]:
    """`X` for all metrics, `METRIC=X` for one."""
    allowed = {}
    for text in given:
        name, _, number = text.rpartition("=")
        if name in allowed:
            raise InputError(f"--tolerance{f' {name}' if name else ''}: expected it once, found it twice")
        allowed[name] = _number(number)
    return allowed


def _names(option: str, text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise InputError(f"--{option}: expected names separated by commas, found {text!r}")
    return names


def _changes(pairs: list[str]) -> dict[str, Any]:
    from attribug.suites.yaml_text import parsed

    changes = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InputError(f"--set: expected KEY=VALUE, found {pair!r}")
        if key in changes:
            raise InputError(f"--set {key}: expected it once, found it twice")
        try:
            changes[key] = parsed(value)
        except InputError as error:
            raise InputError(f"--set {key}: expected a YAML value, found {value!r}: {error}") from error
    return changes


def _plain(error: Any) -> str:
    """A parse error in one line, with the usual hint."""
    text = " ".join(error.format_message().split())
    context = getattr(error, "ctx", None)
    return f"{text} (see {context.command_path} --help)" if context is not None else text
