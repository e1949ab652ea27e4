"""Speed of attribution methods against captum and against the cost of the passes they need.

    python tests/benchmarks/methods.py [--rounds 5] [--only NAME,…] [--images 32] [--beside 0,2]

Every line: median seconds of ours and theirs over the rounds, which take turns in one process, the median ratio with
its smallest and largest, the ratio of processor seconds, and how far the maps agree (largest difference, of the largest
value; a correlation where both draw at random). A line each alone, and beside two processes that are always busy, which
are started and ended here. Times on a busy machine mean nothing; ratios of turns mean something, but what is called
alone is so on an idle machine only: `+ n` tells how many other programs wanted a core when a case began.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from captum import attr
from torch import Tensor, nn
from torchvision.models import resnet18

import attribug
from attribug import methods
from attribug.contracts.data import Data
from attribug.maps.attribution import attributions
from attribug.maps.guard import evaluated
from attribug.models.networks import bvd_cnn
from attribug.query.query import Query

SAMPLES, STEPS, NOISE, GRID = 200, 50, 0.15, 8
PER_EVAL = (1, 8, 32, 64, 200)
BATCHES = (8, 16, 32, 64, 128, 256)
RULES = ("lrp_epsilon", "lrp_spaf", "deep_taylor", "lrp_epsilon_plus_flat", "lrp_gamma", "excitation_backprop")
Run = Callable[[], Any]


@dataclass(frozen=True)
class Setting:
    """A model with the images that it is asked about."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    segments: Tensor

    @staticmethod
    def of(model: nn.Module, images: int, pixels: int) -> Setting:
        """Random images of a size, and a grid of segments."""
        stream = torch.Generator().manual_seed(0)
        inputs = torch.rand(images, 3, pixels, pixels, generator=stream)
        place = torch.arange(pixels) * GRID // pixels
        with torch.no_grad():
            targets = model.eval()(inputs).argmax(1)
        return Setting(model, inputs, targets, place[:, None] * GRID + place)

    def ours(self, name: str | list[str], **parameters: Any) -> Run:
        """Our method on these images."""
        return lambda: attribug.explain(name, self.model, self.inputs, self.targets, **parameters)


@dataclass(frozen=True)
class Case:
    """Two ways to the same maps."""

    name: str
    ours: Run
    theirs: Run
    random: bool = False


def cases(bvd: Setting, resnet: Setting) -> Iterator[tuple[str, Callable[[], Iterator[Case]]]]:
    """The cases by name, made when they are asked for."""
    yield "noise", lambda: noise(bvd)
    for label, setting in (("bvd", bvd), ("resnet18", resnet)):
        for name in ("kernel_shap", "lime"):
            yield f"{name}-{label}", lambda name=name, setting=setting, label=label: coalitions(name, label, setting)
    yield "integrated_gradients", lambda: iter([
        Case("integrated_gradients, 50 steps", bvd.ours("integrated_gradients", steps=STEPS),
             lambda: attr.IntegratedGradients(bvd.model).attribute(bvd.inputs, target=bvd.targets, n_steps=STEPS))
    ])  # fmt: skip
    yield "occlusion", lambda: iter([
        Case("occlusion, window 8, stride 4", bvd.ours("occlusion"),
             lambda: attr.Occlusion(bvd.model).attribute(bvd.inputs, (3, 8, 8), (3, 4, 4), target=bvd.targets) / 3)
    ])  # fmt: skip
    yield "grad_cam", lambda: iter([Case("grad_cam", bvd.ours("grad_cam"), lambda: captums_cam(bvd))])


def noise(bvd: Setting) -> Iterator[Case]:
    """SmoothGrad, SmoothGrad² and VarGrad together; captum has one σ for all images, nearly that of ours."""
    inputs = bvd.inputs
    sigma = NOISE * float(inputs.max() - inputs.min())

    def captums() -> Tensor:
        tunnel = attr.NoiseTunnel(attr.Saliency(bvd.model))
        kinds = ("smoothgrad", "smoothgrad_sq", "vargrad")
        fixed = {"stdevs": sigma, "nt_samples": 50, "target": bvd.targets, "abs": False}
        return torch.stack([tunnel.attribute(inputs, nt_type=kind, **fixed) for kind in kinds])

    trio = bvd.ours(["smoothgrad", "smoothgrad_squared", "vargrad"], samples=50, noise=NOISE)
    yield Case("smoothgrad + squared + vargrad, 50 samples", lambda: torch.stack(list(trio().values())), captums, True)


def coalitions(name: str, label: str, setting: Setting) -> Iterator[Case]:
    """LIME or KernelSHAP against captum one perturbation at a time (its default), and at its best number of them."""
    build = attr.KernelShap if name == "kernel_shap" else captums_lime

    def captums(at_once: int) -> Run:
        def run() -> Tensor:
            options = {"feature_mask": setting.segments[None, None], "n_samples": SAMPLES, "target": setting.targets}
            return build(setting.model).attribute(setting.inputs, perturbations_per_eval=at_once, **options)

        return run

    ours = setting.ours(name, samples=SAMPLES, segments=GRID)
    best = min(PER_EVAL[1:], key=lambda at_once: seconds(captums(at_once)))
    yield Case(f"{name}, {label}, captum's default", ours, captums(1), True)
    yield Case(f"{name}, {label}, captum at {best} an evaluation", ours, captums(best), True)


def captums_lime(model: nn.Module) -> Any:
    """captum's Lime with a surrogate like ours: ridge of penalty 1 instead of its default lasso."""
    from captum._utils.models.linear_model import SkLearnRidge

    return attr.Lime(model, interpretable_model=SkLearnRidge(alpha=1.0))


def captums_cam(setting: Setting) -> Tensor:
    """captum's Grad-CAM at the last convolution, enlarged and spread over the channels as ours."""
    small = attr.LayerGradCam(setting.model, setting.model.conv5).attribute(
        setting.inputs, target=setting.targets, relu_attributions=True
    )
    large = attr.LayerAttribution.interpolate(small, setting.inputs.shape[2:], "bilinear")
    return (large / 3).expand_as(setting.inputs)


def seconds(run: Run) -> float:
    """How long one call takes."""
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    """Processes beside this one that never rest, ended afterwards."""
    started = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def others() -> str:
    """How many other programs want a core now, where Linux tells; this one asks, so it counts."""
    try:
        running = Path("/proc/loadavg").read_text().split()[3].partition("/")[0]
    except OSError:
        return "?"
    return str(max(0, int(running) - 1))


def timed(run: Run) -> tuple[float, float]:
    """Seconds and processor seconds of one call."""
    started, worked = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - started, time.process_time() - worked


def compare(case: Case, rounds: int) -> str:
    """What a case gives beside as many busy processes as there are now, and how far the maps agree."""
    ours, theirs = case.ours().detach().double(), case.theirs().detach().double()  # also warms up
    if case.random:
        pair = torch.stack([ours.flatten(), theirs.expand_as(ours).flatten()])
        agreement = f"correlation {float(torch.corrcoef(pair)[0, 1]):.2f}"
    else:
        agreement = f"largest difference {float((ours - theirs).abs().max() / theirs.abs().max()):.0e}"
    turns = [(timed(case.ours), timed(case.theirs)) for _ in range(rounds)]
    ratios, worked = ([theirs[kind] / ours[kind] for ours, theirs in turns] for kind in (0, 1))
    one, other = (statistics.median(each[0] for each in column) for column in zip(*turns, strict=True))
    spread = f"{min(ratios):.2f} to {max(ratios):.2f}"
    return (
        f"{one:8.3f} {other:8.3f}  {statistics.median(ratios):5.2f}x ({spread})  processor "
        f"{statistics.median(worked):5.2f}x  {agreement}"
    )


def all_methods(setting: Setting, rounds: int) -> str:
    """Every method together against the passes they need at the cost of a raw pass, rule methods at zennit's own."""
    names = methods.names()
    others = [name for name in names if name not in RULES]
    train = setting.inputs.repeat(4, 1, 1, 1)
    forward, both = (min(cost(setting, batch, gradient) for batch in BATCHES) for gradient in (False, True))
    backward = both - forward
    with evaluated(setting.model) as model:
        query = Query(model, setting.inputs, setting.targets, train=lambda: as_data(train))
        needed = [0, 0]
        for name in others:
            before = query.passes.total
            method = methods.get(name)
            with query.costing():
                attributions(method, query, {})
                total = query.passes.total  # of this method, without passes that it found ready
            needed = [needed[0] + total.forward, needed[1] + total.backward]
            query.passes.total = before
    limits, times = [], []
    for _ in range(rounds):
        rules = sum(seconds(partial(zennits, name, setting.model, setting.inputs, setting.targets)) for name in RULES)
        forward, both = (min(cost(setting, batch, gradient) for batch in BATCHES) for gradient in (False, True))
        backward = both - forward
        limits.append(needed[0] * forward + needed[1] * backward + rules)
        times.append(seconds(setting.ours(names, train_inputs=train)))
    ratios = [spent / limit for spent, limit in zip(times, limits, strict=True)]
    return (
        f"all {len(names)} methods, {len(setting.inputs)} images: {statistics.median(times):.2f} s against "
        f"{statistics.median(limits):.2f} s for {needed[0]} passes forward, {needed[1]} backward: "
        f"{statistics.median(ratios):.2f}x the limit ({min(ratios):.2f} to {max(ratios):.2f})"
    )


def as_data(inputs: Tensor) -> Data:
    """Inputs as training examples."""
    return Data(inputs, torch.zeros(len(inputs), dtype=torch.int64), torch.arange(len(inputs)))


def cost(setting: Setting, batch: int, gradient: bool) -> float:
    """Seconds an example of a raw pass with channels last, with the gradient at the input or without."""
    inputs = setting.inputs.repeat(-(-256 // len(setting.inputs)), 1, 1, 1)[:256]
    inputs = inputs.contiguous(memory_format=torch.channels_last)

    def run() -> None:
        for rows in inputs.split(batch):
            with torch.set_grad_enabled(gradient):
                leaf = rows.detach().requires_grad_(gradient)
                outputs = setting.model(leaf)[:, 0]
                if gradient:
                    torch.autograd.grad(outputs.sum(), leaf)

    run()
    return statistics.median(seconds(run) for _ in range(5)) / len(inputs)


def composites() -> dict[str, Callable[[], Any]]:
    """zennit's composites by the names of the rule methods."""
    from zennit.composites import EpsilonPlusFlat, ExcitationBackprop
    from zennit.rules import Epsilon, Flat, Gamma, ZPlus

    from attribug.methods.composites import canonizers, composite
    from attribug.methods.relevance import DENSE_EPSILON, EPSILON

    small, dense = (partial(Epsilon, epsilon=epsilon) for epsilon in (EPSILON, DENSE_EPSILON))
    return {
        "lrp_epsilon": lambda: composite(small, small),
        "lrp_spaf": lambda: composite(ZPlus, dense, first=Flat),
        "deep_taylor": lambda: composite(ZPlus, ZPlus),
        "lrp_epsilon_plus_flat": lambda: EpsilonPlusFlat(canonizers=canonizers()),
        "lrp_gamma": lambda: composite(Gamma, small),
        "excitation_backprop": lambda: ExcitationBackprop(zero_params=["bias"], canonizers=canonizers()),
    }


def zennits(name: str, model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """zennit alone with a rule method's composite, (N, *shape), started with the target's logit, or with one."""
    maps = []
    for rows, classes in zip(inputs.split(64), targets.split(64), strict=True):
        with composites()[name]().context(model):
            leaf = rows.clone().requires_grad_(True)
            outputs = model(leaf)
            start = nn.functional.one_hot(classes, outputs.shape[1]).to(outputs)
            if name != "excitation_backprop":
                start = start * outputs.detach()
            maps.append(torch.autograd.grad(outputs, leaf, start)[0])
    return torch.cat(maps)


def lively(model: nn.Module) -> nn.Module:
    """He initialisation: outputs that depend on the input as a trained network's do."""
    for parameter in model.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
    return model


def main() -> None:
    """Runs the cases and prints a line each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="names of cases, separated by commas")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--beside", default="0,2", help="numbers of busy processes beside, separated by commas")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.manual_seed(0)
    bvd = Setting.of(lively(bvd_cnn()), arguments.images, 32)
    resnet = Setting.of(resnet18(weights=None), max(1, arguments.images // 4), 64)
    known = {**dict(cases(bvd, resnet)), "all": None}
    chosen = arguments.only.split(",") if arguments.only else list(known)
    if set(chosen) - set(known):
        sys.exit(f"--only: expected {', '.join(known)}, found {arguments.only}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {arguments.rounds} rounds")
    print(f"{'':<64} {'ours s':>8} {'theirs s':>8}  ratio")
    for name in chosen:
        if name == "all":
            print(all_methods(Setting.of(lively(bvd_cnn()), 2 * arguments.images, 32), arguments.rounds), flush=True)
        else:
            for case in known[name]():
                for count in map(int, arguments.beside.split(",")):
                    already = others()
                    with busy(count):
                        told = f"{case.name} ({f'{count} busy' if count else 'alone'} + {already})"
                        print(f"{told:<64} {compare(case, arguments.rounds)}", flush=True)


if __name__ == "__main__":
    main()
