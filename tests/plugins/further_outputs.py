"""A kind of output of its own, scores of training points, with a method and a metric; and yardsticks beside them."""

import torch
from torch import Tensor

from attribug import methods, metrics
from attribug.contracts import outputs
from attribug.query.query import Query


def wrong(result: Tensor, inputs: Tensor, classes: int | None) -> str:
    """One score a training point, whatever their number."""
    if result.ndim == 2 and len(result) == len(inputs):
        return ""
    return f"expected scores of training points ({len(inputs)}, M), found {tuple(result.shape)}"


outputs.register(outputs.Output("training_scores", wrong, halved=True))


@methods.register(
    "alike_outputs", output="training_scores", headline="same_points@none", fits_training_data=True, uses_target=False
)
def alike_outputs(query: Query) -> Tensor:
    """How alike a training point's logits are to the explained input's, (N, M)."""
    with torch.no_grad():
        return query.model(query.inputs) @ query.model(query.train.inputs.to(query.inputs)).T


@metrics.register("same_points", reads="training_scores", posts=("none",), bounds=(-1, 1))
def same_points(a: Tensor, b: Tensor) -> Tensor:
    """Cosine of two models' scores (N, M). Undefined: scores that are all zero."""
    a, b = (each.double() / each.double().abs().amax(1, keepdim=True) for each in (a, b))
    return ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).clamp(-1, 1)


@methods.register("columns", explains=False, uses_target=False)
def columns(query: Query) -> Tensor:
    """Brighter to the right, whatever model and input."""
    return torch.linspace(0, 1, query.inputs.shape[-1]).to(query.inputs).expand_as(query.inputs).clone()


@methods.register("sharpened", output="probabilities", uses_target=False, headline="total_variation@none")
def sharpened(query: Query) -> Tensor:
    """Softmax of twice the logits, (N, K)."""
    return (2 * query.outputs()).softmax(1)
