"""Contextual decomposition: parts add up, and are exact where anybody can tell."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attribug.contracts.data import Data
from attribug.errors import Unsupported
from attribug.fixes import cdep
from attribug.fixes.decomposition import decomposed, refuse_unknown_layers
from attribug.models.networks import bvd_cnn
from doubles.shortcuts import described, mended

STREAM = torch.Generator().manual_seed(0)
CHAIN = nn.Sequential(
    nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.ReLU(), nn.MaxPool2d(2, stride=1, padding=1), nn.Sequential(
        nn.Conv2d(4, 4, 3, groups=2, bias=False), nn.AvgPool2d(2), nn.Identity()
    ), nn.Flatten(), nn.Dropout(), nn.Linear(16, 3),
)  # fmt: skip


def lively(model: nn.Sequential) -> nn.Sequential:
    for parameter in model.parameters():
        nn.init.normal_(parameter, 0.1, 0.5, generator=STREAM)
    return model.double().eval()


def noise(*shape: int) -> tuple[Tensor, Tensor]:
    return (
        torch.randn(shape, generator=STREAM, dtype=torch.float64), torch.rand(shape, generator=STREAM) < 0.3,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("model", "shape"),
    [
        (CHAIN, (5, 2, 9, 9)), (bvd_cnn(channels=3, pixels=16, width=2, classes=3), (4, 3, 16, 16)),
        (nn.Sequential(nn.Conv1d(2, 3, 3), nn.ReLU(), nn.MaxPool1d(2), nn.Flatten(), nn.Linear(12, 2)), (4, 2, 10)),
    ],
)  # fmt: skip
def test_both_parts_are_the_output(model: nn.Sequential, shape: tuple[int, ...]) -> None:
    inputs, relevant = noise(*shape)
    part, rest = decomposed(lively(model), inputs, relevant)
    torch.testing.assert_close(part + rest, model(inputs), rtol=1e-10, atol=1e-12)
    assert float(part.detach().abs().min()) > 0


def test_dropout_drops_both_parts_alike() -> None:
    model, (inputs, relevant) = nn.Sequential(nn.Dropout(), nn.Flatten()).train(), noise(6, 9)
    with torch.random.fork_rng(devices=[]):
        part, rest = decomposed(model, inputs, relevant)
    dropped = (part + rest) == 0
    torch.testing.assert_close((part + rest)[~dropped], 2 * inputs[~dropped])
    assert 0 < int(dropped.sum()) < dropped.numel()


def test_of_a_linear_model_it_is_the_exact_contribution() -> None:
    inputs, relevant = noise(7, 6)
    plain = lively(nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 3, bias=False)))
    weight = plain[1].weight @ plain[0].weight
    part, rest = decomposed(plain, inputs, relevant)
    torch.testing.assert_close(part, (inputs * relevant) @ weight.T)
    torch.testing.assert_close(rest, (inputs * ~relevant) @ weight.T)
    biased = lively(nn.Sequential(nn.Linear(6, 4)))
    part, rest = decomposed(biased, inputs, relevant)
    mine, others = ((inputs * where) @ biased[0].weight.T for where in (relevant, ~relevant))
    torch.testing.assert_close(part, mine + biased[0].bias * mine.abs() / (mine.abs() + others.abs()))


def test_nothing_contributes_nothing_and_everything_all() -> None:
    inputs, _ = noise(5, 2, 9, 9)
    model = lively(CHAIN)
    for where, share in ((torch.zeros_like(inputs, dtype=torch.bool), 0), (torch.ones_like(inputs).bool(), 1)):
        part, _ = decomposed(model, inputs, where)
        torch.testing.assert_close(part, share * model(inputs), rtol=1e-6, atol=1e-6)


def test_the_objective_is_the_papers() -> None:
    inputs, relevant = noise(5, 6)
    model = lively(nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 3)))
    labels = torch.tensor([0, 1, 2, 0, 1])
    data = Data(inputs, labels, torch.arange(5), annotations=relevant)
    part, rest = decomposed(model, inputs, relevant)
    slow = 0.0
    for n in range(5):
        slow -= float(model(inputs)[n].detach().softmax(0)[labels[n]].log()) / 5
        for k in range(3):
            slow += 2.5 * float((part[n, k].exp() / (part[n, k].exp() + rest[n, k].exp())).detach()) / 15
    assert float(cdep.penalised_contributions(model, data, weight=2.5).detach()) == pytest.approx(slow, rel=1e-10)


class Own(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs


def normed() -> nn.Module:
    return nn.Sequential(nn.Linear(10, 4), nn.Sequential(nn.BatchNorm1d(4)), nn.Linear(4, 2))


def test_other_networks_are_refused_by_name() -> None:
    with pytest.raises(Unsupported, match=r"nn.Sequential for contextual decomposition, found Own"):
        refuse_unknown_layers(Own())
    with pytest.raises(Unsupported, match="found BatchNorm1d '0'"):
        mended("cdep", *described(network=normed))
