"""What a suite's evaluation costs in attribug, and written by hand with captum, zennit, SciPy and scikit-image.

    python tests/benchmarks/by_hand.py [quick] [--cells N] [--methods a,b] [--images N] [--whole] [--quantus]

Both sides evaluate the same cells with the same trained models (of the cache; none is trained here), images, classes,
draws of re-initialisation and metrics. By hand means: for each cell, each of its models and each method, the maps
(`by_hand_methods.py`); then every pair of models once, image by image. Ours are a worker's blocks, records included; a
method whose passes others share goes with these, all others go alone. What is loaded before is loaded for both, and
captum's numbers at once are chosen before. The figures are processor seconds of one thread each, in turns.

`--cells N`: the first of each bug and level, then the second ones, until there are N; default: all. `--images N`: so
many a cell. `--whole`: also a run of these methods and images (of all cells) as the command line does it, into an empty
folder: seconds and processor seconds of all its processes. `--quantus`: also Quantus' model parameter randomisation
test, top down, in place of all this, at the first cell of each seed that re-initialises layers; both sides measure the
rank correlation of signed maps alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from by_hand_methods import METHODS, Asked
from numpy.typing import NDArray
from scoring import CASES, summed
from threadpoolctl import threadpool_limits
from torch import Tensor

from attribug.contracts.contrasts import Contrast, Side
from attribug.contracts.models import trainings
from attribug.maps.asked import Queries, asked
from attribug.models.lab import Lab
from attribug.plans.plan import Cell
from attribug.running.jobs import Block
from attribug.running.local_engine import KEPT_MEMORY
from attribug.running.options import RunOptions
from attribug.running.request import Request, requested
from attribug.running.workbench import Workbench
from attribug.scores.blocks import explained_positions
from attribug.storage import locations

SHOWN = "spearman@sum"
"""The metric whose mean value both sides print."""
Scores = dict[str, list[Any]]


# --- which part ---


def spread(cells: Sequence[Cell], count: int | None) -> list[int]:
    """Numbers of the first cells of each bug and level, then of the second ones, and so on."""
    seen: dict[tuple[str, str, str], int] = {}
    order = []
    for number, cell in enumerate(cells):
        place = (cell.task, cell.bug, cell.level)
        seen[place] = seen.get(place, -1) + 1
        if cell.contrast is not None:
            order.append((seen[place], number))
    return [number for _, number in sorted(order)][:count]


def refuse_untrained(bench: Workbench, suite: str, cells: Sequence[int]) -> None:
    """Ends the program where some cell's models are not there."""
    needed = {
        training.key for number in cells for model in _contrast(bench, number).models() for training in trainings(model)
    }
    absent = [key for key in needed if bench.models.load_weights(key) is None]
    if absent:
        where = bench.models.source.folder
        sys.exit(f"expected {len(needed)} trained models in {where}, {len(absent)} are missing: attribug run {suite}")


def _contrast(bench: Workbench, number: int) -> Contrast:
    contrast = bench.plan.cells[number].contrast
    if contrast is None:
        raise ValueError(f"cell {number} has no contrast")
    return contrast


def groups(bench: Workbench) -> list[tuple[str, ...]]:
    """Methods that share passes together, all others alone."""
    shared = {method.name: bool(method.uses) for method, _ in bench.plan.methods}
    split = ([bundle] if shared[bundle[0]] else [(name,) for name in bundle] for bundle in bench.plan.bundles)
    return [group for some in split for group in some]


# --- by hand ---


@dataclass
class ByHand:
    """A cell that is evaluated by hand: its models and what they are asked."""

    bench: Workbench
    contrast: Contrast
    queries: Queries
    sides: dict[Side, Asked] = field(default_factory=dict)

    @staticmethod
    def of(bench: Workbench, lab: Lab, contrast: Contrast) -> ByHand:
        """The cell with its models loaded."""
        settings = bench.plan.settings
        positions = explained_positions(contrast, lab, settings.examples)
        versions = sorted({v for metric, _ in bench.plan.measured if metric.applies(contrast) for v in metric.versions})
        queries = asked(contrast, versions, lab, positions, seed=settings.seed, rows=settings.rows)
        hand = ByHand(bench, contrast, queries)
        for side, (query, _) in queries.items():
            hand.sides[side] = Asked(query.model, query.inputs, query.targets, query.train_inputs, query.seed)
        return hand

    def evaluate(self, name: str) -> dict[str, Scores]:
        """A method's maps of every side, and what the metrics say of them: value, benign and floor by metric."""
        method, parameters = next(pair for pair in self.bench.plan.methods if pair[0].name == name)
        explain = METHODS[name]
        maps = {side: explain(self.sides[side], **parameters).detach() for side in self.contrast.sides}
        scores = {}
        for metric, post in self.bench.plan.measured:
            if metric.reads != method.output or not metric.applies(self.contrast):
                continue
            if metric.kind == "response":
                moved = {side: self.beside(explain, side, metric.beside, parameters) for side in maps}
                scores[metric.name] = self.of_one_model(lambda side: swaps(maps[side], moved[side]), None)  # noqa: B023
            elif metric.kind == "alignment":
                scores[f"{metric.name}@{post}"] = self.aligned(CASES[f"{metric.name}@{post}"].theirs, maps, post)
            else:
                scores[f"{metric.name}@{post}"] = self.similar(metric.name, maps, post)
        return scores

    def beside(self, explain: Callable[..., Tensor], side: Side, version: str, parameters: Any) -> Tensor:
        """What a method says of another version of the inputs."""
        return explain(self.sides[self.contrast.seen(side, version)], **parameters).detach()

    def similar(self, name: str, maps: dict[Side, Tensor], post: str) -> Scores:
        """A similarity of every pair of models that meets, once, and of neighbouring images."""
        function = similarity(name)
        planes = {
            side: [*each.double().numpy()] if post == "none" else summed(each, post) for side, each in maps.items()
        }
        known: dict[Any, Any] = {}

        def met(a: Side, b: Side) -> Any:
            pair = frozenset((a, b))
            if pair not in known:
                known[pair] = function(planes[a], planes[b])
            return known[pair]

        contrast = self.contrast
        controls = [t for some in contrast.control_sets.values() for t in some]
        return {
            "value": [met(r, q) for r in contrast.references for q in contrast.contaminated_sides],
            "benign": [met(r, t) for r in contrast.references for t in controls if t != r],
            "floor": [function(planes[r], [*planes[r][1:], planes[r][0]]) for r in contrast.references],
        }

    def aligned(self, function: Callable[..., Any], maps: dict[Side, Tensor], post: str) -> Scores:
        """Agreement with the masks of the images, and that of noise."""
        masks = self.queries[self.contrast.contaminated][1].masks
        if masks is None:
            raise ValueError("the images have no masks")
        truth = list((~masks if self.contrast.truth == "background" else masks).numpy())
        noise = summed(torch.randn(maps[self.contrast.contaminated].shape), post)
        return self.of_one_model(lambda side: function(summed(maps[side], post), truth), function(noise, truth))

    def of_one_model(self, function: Callable[[Side], Any], floor: Any) -> Scores:
        """What every contaminated model and control says alone."""
        controls = dict.fromkeys(t for some in self.contrast.control_sets.values() for t in some)
        return {
            "value": [function(q) for q in self.contrast.contaminated_sides],
            "benign": [function(t) for t in controls],
            "floor": [] if floor is None else [floor],
        }


def swaps(a: Tensor, b: Tensor) -> list[float]:
    """Total variation distance of outputs (N, K), row by row."""
    return [float(np.abs(p - q).sum() / 2) for p, q in zip(a.double().numpy(), b.double().numpy(), strict=True)]


def agreement(a: Sequence[NDArray[np.float64]], b: Sequence[NDArray[np.float64]]) -> list[float]:
    """1 − total variation distance of outputs, row by row."""
    return [1 - float(np.abs(p - q).sum() / 2) for p, q in zip(a, b, strict=True)]


def similarity(name: str) -> Callable[..., Any]:
    """A similarity of lists of arrays, pair by pair."""
    if name == "total_variation":
        return agreement
    return next(case.theirs for known, case in CASES.items() if known.partition("@")[0] == name)


# --- both ---


@dataclass
class Spent:
    """Processor seconds of some methods, and mean values of `SHOWN` by method, for ours and by hand."""

    ours: float = 0.0
    theirs: float = 0.0
    values: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def line(self, names: Sequence[str]) -> str:
        """A line of the table."""
        pairs = [np.mean(self.values[name], axis=0) for name in names if name in self.values]
        told = ", ".join(f"{ours:.2f} / {theirs:.2f}" for ours, theirs in pairs)
        return f"{' + '.join(names):<82} {self.ours:9.2f} {self.theirs:9.2f} {self.theirs / self.ours:7.1f}x  {told}"


def processor(run: Callable[[], Any]) -> tuple[float, Any]:
    """Processor seconds of a call, and what it gives."""
    started = time.process_time()
    found = run()
    return time.process_time() - started, found


def compared(bench: Workbench, cells: Sequence[int]) -> Iterator[str]:
    """A line for each group of methods, and the sum."""
    lab, spent = Lab(bench.models), {group: Spent() for group in groups(bench)}
    unknown = sorted({name for group in spent for name in group} - set(METHODS))
    if unknown:
        sys.exit(f"--methods: expected some that are written by hand, found {', '.join(unknown)}")
    for number in cells:
        contrast = _contrast(bench, number)
        hand = ByHand.of(bench, lab, contrast)
        for each in contrast.sides:
            bench.lab.model(each.model)
        for group, sums in spent.items():
            one_of_each(hand, group)
            seconds, failed = processor(lambda group=group, number=number: bench.do(Block(number, group), _quietly))
            if failed.failures:
                sys.exit(f"{bench.plan.cells[number].name}: {failed.failures}")
            sums.ours += seconds
            for name in group:
                seconds, found = processor(lambda name=name, hand=hand: hand.evaluate(name))
                sums.theirs += seconds
                keep_values(sums, bench, number, name, found)
    yield f"{'':<82} {'ours s':>9} {'by hand s':>9}    ratio  mean {SHOWN}, ours / by hand"
    for group, sums in spent.items():
        yield sums.line(group)
    yield Spent(sum(s.ours for s in spent.values()), sum(s.theirs for s in spent.values())).line(("together",))


def one_of_each(hand: ByHand, group: Sequence[str]) -> None:
    """Chooses captum's numbers at once, and leaves nothing behind that would serve again."""
    side = hand.contrast.contaminated
    parameters = {method.name: options for method, options in hand.bench.plan.methods}
    for name in group:
        if name not in _chosen:
            METHODS[name](hand.sides[side], **parameters[name])
            _chosen.add(name)
    hand.sides[side].known.clear()


_chosen: set[str] = set()


def keep_values(sums: Spent, bench: Workbench, number: int, name: str, found: dict[str, Scores]) -> None:
    """Mean values of both sides."""
    record = bench.records.load(bench.plan.record_key(bench.plan.cells[number], name))
    if record is None:
        raise RuntimeError(f"{name}: its record cannot be read back")
    metric, post = SHOWN.split("@")
    rows = record.scores[(record.scores["metric"] == metric) & (record.scores["post"] == post)]
    if SHOWN in found and len(rows):
        pair = float(rows["value"].mean()), float(np.nanmean(found[SHOWN]["value"]))
        sums.values.setdefault(name, []).append(pair)


def _quietly(stage: str, amount: int) -> None:
    """Nobody watches."""


# --- a whole run, and Quantus ---


def whole(suite: str, options: Sequence[str]) -> str:
    """A run with trained models into an empty folder: all of its processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "attribug", "run", suite, "--out", f"{folder}/run", *options]
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wall = time.perf_counter() - started
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return (
        f"attribug run {suite} {' '.join(options)}: {wall:.1f} s, {spent:.1f} processor seconds, all cells, tables too"
    )


def randomisation(bench: Workbench, cells: Sequence[int]) -> Iterator[str]:
    """Quantus' test beside our blocks, both by the model that is explained and compared."""
    if importlib.util.find_spec("quantus") is None:
        sys.exit("--quantus: expected Quantus, which is not installed: pip install quantus")
    import quantus

    lab, seen = Lab(bench.models), set()
    yield f"{'':<50} {'ours s':>9} {'Quantus s':>9}    ratio, of one re-initialised model"
    for number in cells:
        cell, contrast = bench.plan.cells[number], _contrast(bench, number)
        if not cell.bug.startswith("reinit") or cell.seed in seen:
            continue
        seen.add(cell.seed)
        hand = ByHand.of(bench, lab, contrast)
        reference = hand.sides[contrast.references[0]]
        for name in (method.name for method, _ in bench.plan.methods if method.explains):
            one_of_each(hand, (name,))
            test = quantus.MPRT(abs=False, normalise=False, seed=cell.seed, disable_warnings=True)
            scored = processor(lambda test=test, name=name: quantus_of(test, bench, name, reference))  # noqa: B023
            block = processor(lambda name=name, number=number: bench.do(Block(number, (name,)), _quietly))[0]
            theirs, ours = scored[0] / (len(scored[1]) - 1), block / len(contrast.sides)
            yield f"{name + f' ({cell.bug}, seed {cell.seed})':<50} {ours:9.4f} {theirs:9.4f} {theirs / ours:7.1f}x"


def quantus_of(test: Any, bench: Workbench, name: str, reference: Asked) -> dict[str, Any]:
    """Rank correlations after every layer, by its name, and those of `original`."""
    parameters = next(options for method, options in bench.plan.methods if method.name == name)

    def explain(model: Any, inputs: Any, targets: Any, **_: Any) -> Any:
        given = torch.as_tensor(inputs).float(), torch.as_tensor(targets)
        maps = METHODS[name](Asked(model, *given, reference.train, reference.seed), **parameters)
        return maps.detach().sum(1, keepdim=True).numpy()

    scores: dict[str, Any] = test(
        model=reference.model, x_batch=reference.inputs.numpy(), y_batch=reference.targets.numpy(), device="cpu",
        explain_func=explain,
    )  # fmt: skip
    return scores


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("suite", nargs="?", default="quick")
    parser.add_argument("--cells", type=int)
    parser.add_argument("--methods")
    parser.add_argument("--images", type=int)
    parser.add_argument("--whole", action="store_true")
    parser.add_argument("--quantus", action="store_true")
    arguments = parser.parse_args()
    if not set(KEPT_MEMORY) <= set(os.environ):  # memory is kept as in a run's workers, for both sides
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEPT_MEMORY})
    warnings.simplefilter("ignore")
    chosen = {
        "methods": arguments.methods.split(",") if arguments.methods else None,
        "metrics": [SHOWN] if arguments.quantus else None,
        "examples": arguments.images,
    }
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        request = requested(arguments.suite, RunOptions(**chosen, out=folder))
        bench = workbench(request, Path(folder))
        cells = spread(bench.plan.cells, arguments.cells)
        refuse_untrained(bench, arguments.suite, cells)
        print(f"{len(cells)} of {len(bench.plan.cells)} cells, {bench.plan.settings.examples} images each")
        for line in randomisation(bench, cells) if arguments.quantus else compared(bench, cells):
            print(line, flush=True)
    if arguments.whole:
        options = {"--methods": arguments.methods, "--examples": arguments.images}
        print(whole(arguments.suite, [str(each) for pair in options.items() if pair[1] for each in pair]))


def workbench(request: Request, out: Path) -> Workbench:
    """A worker's, in this process."""
    return Workbench(request.setup(out, locations.cache().folder.resolve()))


if __name__ == "__main__":
    main()
