"""Perturbed copies: their noise is what is said, as much as the outputs bear, and the same again."""

from __future__ import annotations

import pytest
import torch
from scipy import stats
from torch import nn

from attribug.contracts.contrasts import Side
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Given
from attribug.contracts.tasks import GivenModel
from attribug.errors import Unsupported
from attribug.models.given import digest_of, given
from attribug.models.lab import Lab, logits
from attribug.models.memory import Memory
from attribug.models.perturbed import AGREEMENT, LARGEST, VARIATION, against_perturbed, largest, perturb, perturbed

SIGMA = 0.2
DRAWS = range(3)


def network() -> nn.Sequential:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4)).eval()


def images(*, size: int = 40) -> Data:
    inputs = torch.randn((size, 1, 8, 8), generator=torch.Generator().manual_seed(1))
    return Data(inputs, torch.arange(size) % 4, torch.arange(size))


def mine() -> GivenModel:
    whole = Examples.of(images, size=40)
    return GivenModel(given(network), SIGMA, whole, whole)


def test_noise_has_the_law_that_is_said() -> None:
    model = nn.Linear(200, 100)
    before = [each.detach().clone() for each in model.parameters()]
    perturb(model, torch.Generator().manual_seed(0), sigma=SIGMA)
    factors = torch.cat([(new / old).flatten() for new, old in zip(model.parameters(), before, strict=True)])
    assert stats.kstest(factors.detach().numpy(), stats.norm(1, SIGMA).cdf).pvalue > 0.001
    assert len(factors.unique()) > 0.99 * len(factors), "each weight has its own"


def test_buffers_and_types_stay() -> None:
    model = network().double()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    perturb(model, torch.Generator().manual_seed(0), sigma=SIGMA)
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {name for name, value in model.named_parameters() if bool(before[name].any())}
    assert all(value.dtype == before[name].dtype for name, value in after.items())


def test_no_noise_changes_nothing() -> None:
    model = network()
    digest = digest_of(model)
    perturb(model, torch.Generator().manual_seed(0), sigma=0.0)
    assert digest_of(model) == digest


def test_a_draw_is_the_same_again_and_no_other() -> None:
    lab = Lab(Memory())
    digests = [digest_of(lab.model(perturbed(mine(), draw))) for draw in (0, 1, 2)]
    assert len({*digests, mine().spec.digest}) == 4
    assert digest_of(Lab(Memory()).model(perturbed(mine(), 0))) == digests[0]


def variation_of(model: nn.Module, spec: Given, sigma: float) -> tuple[float, float]:
    """Agreement and total variation, as they are defined, of copies made one by one."""
    inputs, agreement, variation = images().inputs, [], []
    outputs = logits(model, inputs)
    whole = Examples.of(images, size=40)
    for draw in DRAWS:
        copy = Lab(Memory()).model(perturbed(GivenModel(spec, sigma, whole, whole), draw))
        others = logits(copy, inputs)
        agreement.append((others.argmax(1) == outputs.argmax(1)).float().mean())
        variation.append((others.softmax(1) - outputs.softmax(1)).abs().sum(1).mean() / 2)
    return float(torch.stack(agreement).mean()), float(torch.stack(variation).mean())


def test_the_largest_noise_holds_and_more_does_not() -> None:
    model, spec = network(), given(network)
    digest = digest_of(model)
    found = largest(model, spec, images().inputs, DRAWS)
    assert digest_of(model) == digest, "the weights are what they were"
    assert found.holds
    assert 0 < found.sigma < LARGEST
    assert variation_of(model, spec, found.sigma) == pytest.approx((found.agreement, found.variation), abs=1e-6)
    agreement, variation = variation_of(model, spec, found.sigma * 1.1)
    assert agreement < AGREEMENT or variation > VARIATION


class Steady(nn.Module):
    """Says the same whatever its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tensor([0.0, 1.0]).repeat(len(x), 1) + 0 * self.weight.sum()


class Touchy(Steady):
    """Changes its mind at once."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        turned = (self.weight.sum() != 3).float()
        return torch.stack([100 * turned, 100 - 100 * turned]).repeat(len(x), 1)


def test_what_bears_everything_gets_the_most() -> None:
    assert largest(Steady(), given(Steady), images().inputs, DRAWS).sigma == LARGEST


def test_what_bears_nothing_has_no_control() -> None:
    with pytest.raises(Unsupported, match=r"weights that differ by a millionth change predictions: agreement 0.00"):
        largest(Touchy(), given(Touchy), images().inputs, DRAWS)


def test_a_contrast_has_the_model_itself_as_reference() -> None:
    model, seeds = mine(), (10, 11, 12)
    contrast = against_perturbed(model, perturbed(model, 10), 10, seeds)
    (reference,) = contrast.references
    assert (reference.model, reference.seed) == (model.spec, -1)
    assert [side.seed for side in contrast.controls] == [10, 11, 12]
    assert contrast.contaminated == contrast.controls[0], "at level 0 it is one of the controls"
    assert (contrast.control, contrast.target) == ("perturbed", "reference")
    assert {check.statistic for check in contrast.checks} == {"agreement", "total_variation"}
    assert Side(model.spec, model.examples).seed == 0
