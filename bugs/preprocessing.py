"""Bug: the model gets its pictures prepared otherwise than it was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from attribug import bugs
from attribug.contracts.contrasts import Check, Contrast, Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import ModelSpec
from attribug.contracts.tasks import Level, Task
from attribug.errors import InputError, Unsupported
from attribug.models.perturbed import against_perturbed, perturbed
from attribug.models.preprocessing import WRONG, harmless, raw, scaled

STORED = "stored"
OUTPUTS_MOVE = 0.10  # mean total variation of the outputs
OUTPUTS_STAY = 0.10  # likewise, of pictures that were stored anew, at most
Scale = tuple[float, ...]


@bugs.register(
    "preprocessing", stage="test", levels=("bgr", "normalisation", "bytes", "half_size"), primary="spearman@sum",
    graded=False, seen_in_predictions=True,
    paper="ours: the mistakes that questions about pretrained networks are most often about",
)  # fmt: skip
def preprocessing(task: Task, level: Level, seed: int, seeds: Sequence[int]) -> Contrast:
    """Images reach the model prepared wrongly: channels reversed, values wrongly scaled, or half the size.

    `bgr`: channels in reverse order; `normalisation`: wrong mean and std; `bytes`: values up to 255; `half_size`: half
    the size. Control: pictures stored anew.

    `bgr`, `normalisation`, `bytes`, `half_size`. The control's pictures were a JPEG of high quality, or larger in
    between: other values, the same picture. What knows nothing of the model but the picture, as `edges`, may tell them
    apart as well.
    """
    if level not in {0, *WRONG}:
        raise InputError(f"preprocessing: expected one of {', '.join(WRONG)}, found {level!r}")
    if len(task.shape) != 3 or task.shape[0] not in {1, 3}:
        raise Unsupported(f"expected pictures of 1 or 3 channels, found inputs {task.shape}")
    if level == "bgr" and task.shape[0] == 1:
        raise Unsupported("one channel has no order")
    given = task.given
    mean, std = ((0.0,), (1.0,)) if given is None else (given.mean, given.std)
    if mean is None or std is None:
        raise Unsupported("nobody says mean and std of the inputs: expected --mean and --std")
    test = task.examples("test") if given is None else given.examples

    def variant(name: str, base: Examples = test) -> Examples:
        return Examples.of(prepared, base=base, name=name, mean=mean, std=std)

    stored = {s: variant(f"{STORED}{number}") for number, s in enumerate(seeds)}
    wrong = stored[seed] if level == 0 else variant(str(level))
    if given is not None:
        spec, looked = (given.spec,), given.looked
        moved = _moved(spec, variant(str(level), looked), looked, "outputs move", at_least=OUTPUTS_MOVE)
        kept = [
            _moved(spec, variant(f"{STORED}{n}", looked), looked, f"stored anew {n}", at_most=OUTPUTS_STAY)
            for n in range(len(seeds))
        ]
        checks = [moved, *kept]
        contaminated = perturbed(given, seed)
        return against_perturbed(
            given, contaminated, seed, seeds, checks if level else (), wrong=wrong, right=list(stored.values())
        )
    model = task.clean(seed)  # alone: every other model would explain otherwise anyway
    return Contrast(
        contaminated=Side(model, wrong),
        references=(Side(model, test),),
        controls=(Side(model, stored[seed]),),
        control="stored_anew",
        target="reference",
        checks=(_moved((model,), wrong, test, "outputs move", at_least=OUTPUTS_MOVE),) if level else (),
    )


def _moved(models: tuple[ModelSpec, ...], seen: Examples, test: Examples, name: str, **bound: float) -> Check:
    return Check(name, models, seen, "total_variation", minus=models, beside=test, **bound)


def prepared(*, base: Examples, name: str, mean: Scale, std: Scale) -> Data:
    """The examples prepared in the way of a name: a mistake, or stored anew in one of several ways."""
    data = base.load()
    pictures = raw(data.inputs, mean, std)
    if name in WRONG:
        inputs = WRONG[name](pictures, mean, std)
    else:
        inputs = scaled(harmless(pictures, int(name.removeprefix(STORED))), mean, std)
    return replace(data, inputs=inputs)
