"""Directions of a shortcut: projected out of activations, or of no weight in outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Recipe
from attribug.errors import Unsupported
from attribug.fixes import p_clarc, rr_clarc
from attribug.fixes.concepts import concept, patterns, told
from attribug.fixes.materials import activations, first_dense
from attribug.models.lab import Lab
from attribug.models.networks import bvd_cnn
from attribug.models.training import initialised
from attribug.streams import generator
from doubles.shortcuts import FEATURES, described, mended, network, shortcut

EXAMPLES = Examples.of(shortcut, split="validation", share=0.0)


def model() -> nn.Sequential:
    found = initialised(Recipe(network, epochs=1), 1).eval()
    assert isinstance(found, nn.Sequential)
    return found


def test_of_one_shortcut_and_one_label_it_is_the_difference_of_means() -> None:
    stream = torch.Generator().manual_seed(0)
    there = torch.rand(90, generator=stream) < 0.3
    found = torch.randn((90, 5), generator=stream, dtype=torch.float64) + there[:, None] * torch.arange(5.0)
    (along,) = patterns(found, torch.zeros(90, dtype=torch.int64), there.long()).T
    expected = found[there].mean(0) - found[~there].mean(0)
    assert float(along.abs() @ expected.abs() / expected.norm()) == pytest.approx(1, rel=1e-9)
    centred, told = found - found.mean(0), there.double() - there.double().mean()
    regression = (centred.T @ told) / (told @ told)  # the pattern-CAV as a regression
    assert abs(float(along @ regression / regression.norm())) == pytest.approx(1, rel=1e-9)


def test_what_a_label_is_told_by_is_no_direction() -> None:
    """Labels differ along the first entry, the shortcut's three values along the second and third."""
    stream = torch.Generator().manual_seed(0)
    labels, said = torch.arange(600) % 2, torch.arange(600) // 2 % 3
    found = 0.01 * torch.randn((600, 4), generator=stream, dtype=torch.float64)
    found[:, 0] += labels
    found[:, 1] += said == 1
    found[:, 2] += said == 2
    along = patterns(found, labels, labels * 3 + said)
    assert along.shape == (4, 2)
    torch.testing.assert_close(along.T @ along, torch.eye(2, dtype=torch.float64))
    assert float(along[[0, 3]].abs().max()) < 0.01
    assert patterns(found, labels, labels * 3 + said, 1).shape == (4, 1)
    with pytest.raises(Unsupported, match="one group a label"):
        patterns(found, labels, labels)


def noisy(seed: int, classes: int = 10, size: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    """Gaussian activations (N, 50), labels and what a shortcut of as many values says, at random."""
    stream = torch.Generator().manual_seed(seed)
    said = torch.randint(classes, (size,), generator=stream)
    return torch.randn((size, 50), generator=stream, dtype=torch.float64), torch.arange(size) % classes, said


def test_noise_has_no_directions() -> None:
    """Ninety groups of one to five examples; by chance one draw in twenty has a direction."""
    found = [patterns(h, labels, labels * 10 + said).shape[1] for h, labels, said in map(noisy, range(20))]
    assert found.count(0) >= 17
    assert max(found) <= 1
    h, labels, said = noisy(0)
    assert torch.equal(patterns(h, labels, labels * 10 + said), patterns(h, labels, labels * 10 + said))


def test_a_shortcut_of_ten_values_is_found_in_small_groups() -> None:
    """A grey value along the first activation, and a kind along the second, as strong as the noise."""
    h, labels, said = noisy(1)
    h[:, 0] += said - 4.5
    (along,) = patterns(h, labels, labels * 10 + said).T
    assert abs(float(along[0])) > 0.9
    h[:, 1] += 3.0 * (said % 2)
    along = patterns(h, labels, labels * 10 + said)
    assert along.shape == (50, 2)
    assert float(along[:2].square().sum()) > 1.7


def test_as_many_directions_as_the_scatter_has() -> None:
    h, labels, said = noisy(2, classes=3)
    of = labels * 3 + said
    assert patterns(h, labels, of, 1).shape == (50, 1)
    along = patterns(h, labels, of, 40)
    assert along.shape == (50, 2), "three values differ in two directions"
    dead = torch.cat([h[:, :1], torch.zeros(200, 4, dtype=torch.float64)], dim=1)
    assert patterns(dead, labels, of, 5).abs().tolist() == [[1.0], [0.0], [0.0], [0.0], [0.0]]


def test_a_mark_that_means_another_thing_for_every_label_is_found() -> None:
    """Groups tell whether it is the label's own: pooled over labels, both marks would cancel."""
    stream = torch.Generator().manual_seed(0)
    labels, agrees = torch.arange(200) % 2, torch.arange(200) // 2 % 2
    h = torch.randn((200, 5), generator=stream, dtype=torch.float64)
    h[:, 3] += 3.0 * (agrees == labels)
    (along,) = patterns(h, labels, labels * 2 + agrees).T
    assert abs(float(along[3])) > 0.98


@pytest.mark.parametrize("values", [1, 2, 3, 4, 10])
def test_what_is_told_is_known_from_groups(values: int) -> None:
    labels, said = torch.arange(120) % 3, torch.arange(120) // 3 % values
    of = labels * values + said
    assert torch.equal(told(labels, of), said if values > 2 else of)
    assert torch.equal(told(labels, of + 7), of + 7), "numbered otherwise"


def test_folded_weights_are_projected_activations() -> None:
    base, mended = model(), model()
    p_clarc.project_out(mended, generator("any"), examples=EXAMPLES, layer="2", directions=0)
    along, middle = concept(base, "2", EXAMPLES.load(), 0)

    def project(module: nn.Module, given: tuple[Tensor]) -> Tensor:
        h = given[0].double()
        return (h - (h - middle) @ along @ along.T).float()

    inputs = shortcut(split="test", share=0.5).inputs
    with torch.no_grad():
        assert not torch.allclose(base(inputs), mended(inputs), atol=1e-3)
        base[2].register_forward_pre_hook(project)
        torch.testing.assert_close(mended(inputs), base(inputs), atol=1e-5, rtol=1e-5)


def test_after_projection_groups_are_the_same_along_it() -> None:
    base, data = model(), EXAMPLES.load()
    along, middle = concept(base, "2", data, 0)
    h = activations(base, "2", data.inputs).double()
    kept = h - (h - middle) @ along @ along.T
    for label in range(2):
        means = [
            kept[(data.labels == label) & (data.groups == label * 2 + said)].mean(0) @ along for said in range(2)
        ]  # fmt: skip
        torch.testing.assert_close(means[0], means[1], atol=1e-9, rtol=0)
    layer = nn.Linear(16, 3).double()
    before = [value.clone() for value in layer.parameters()]
    p_clarc.fold(layer, along, middle)
    assert float((layer.weight.detach() @ along).abs().max()) < 1e-12
    torch.testing.assert_close(layer(middle), before[0] @ middle + before[1])


def test_the_penalty_is_the_squared_slope_along_the_direction() -> None:
    base = model().double()
    data = shortcut(split="train", share=0.5, size=8)
    batch = Data(data.inputs.double(), data.labels, data.ids)
    along = torch.linalg.qr(torch.randn((16, 2), generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    h, step, signs = base[1](base[0](batch.inputs)).detach(), 1e-6, torch.tensor([1.0, -1.0]).double()
    top = base[2:]
    slow = 0.0
    for example in h:
        for direction in along.T:
            moved = [float(top((example + sign * step * direction)[None])[0].detach() @ signs) for sign in (1, -1)]
            slow += ((moved[0] - moved[1]) / (2 * step)) ** 2 / len(h)
    logits, given = rr_clarc.outputs_and_inputs_of(base, "2", batch.inputs)
    assert float(rr_clarc.sensitivity((logits * signs).sum(1), given, along).detach()) == pytest.approx(slow, rel=1e-6)
    objective = rr_clarc.AlongConcept("2", along, 0.0, torch.Generator())
    plain = nn.functional.cross_entropy(base(batch.inputs), batch.labels)
    torch.testing.assert_close(objective(base, batch), plain)


def test_signs_that_are_drawn_sum_over_classes() -> None:
    base, along = model().double(), torch.eye(16, dtype=torch.float64)[:, :3]
    inputs = shortcut(split="train", share=0.5, size=8).inputs.double()
    expected = 0.0
    for k in range(2):
        logits, given = rr_clarc.outputs_and_inputs_of(base, "2", inputs)
        expected += float(rr_clarc.sensitivity(logits[:, k], given, along).detach())
    stream, drawn = torch.Generator().manual_seed(0), []
    for _ in range(400):
        logits, given = rr_clarc.outputs_and_inputs_of(base, "2", inputs)
        signs = torch.randint(0, 2, logits.shape, generator=stream) * 2 - 1
        drawn.append(float(rr_clarc.sensitivity((logits * signs).sum(1), given, along).detach()))
    assert sum(drawn) / 400 == pytest.approx(expected, rel=0.1)


def test_only_the_layers_from_the_direction_on_learn(lab: Lab) -> None:
    task, contrast = described()
    spec = mended("rr_clarc", task, contrast, epochs=1)
    before, after = (lab.model(each).state_dict() for each in (contrast.contaminated.model, spec))
    assert {name: torch.equal(before[name], after[name]) for name in before} == {
        name: name.startswith("0.") for name in before
    }


class Turned(nn.Module):
    """Layers that run in another order than they are defined in."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.middle, self.first = nn.Linear(6, 2), nn.Linear(8, 6), nn.Linear(FEATURES, 8)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.last(self.middle(self.first(inputs).relu()).relu())
        return outputs


def test_layers_that_learn_are_those_that_run_later() -> None:
    found, layer = Turned(), first_dense(Turned(), (FEATURES,))
    for parameter in found.parameters():
        parameter.requires_grad_(False)
    assert layer == "middle"
    assert rr_clarc.from_layer(found, layer=layer, shape=(FEATURES,)) == ["middle", "last"]
    assert not any(each.requires_grad for each in found.parameters()), "the model stays as it is"


def test_nothing_is_changed_where_there_is_no_bias() -> None:
    layer = nn.Linear(4, 3, bias=False)
    before = layer.weight.detach().clone()
    with pytest.raises(TypeError, match="with a bias"):
        p_clarc.fold(layer, torch.eye(4, dtype=torch.float64)[:, :1], torch.ones(4, dtype=torch.float64))
    assert torch.equal(layer.weight, before)


def test_layers_are_chosen_by_what_runs_before() -> None:
    assert first_dense(network(), (FEATURES,)) == "2"
    assert first_dense(network(), (FEATURES,), "4") == "4"
    assert first_dense(bvd_cnn(channels=3, pixels=16, width=2), (3, 16, 16)) == "dense1"
    for absent in ("0", "dense1"):
        with pytest.raises(Unsupported, match=rf"\(2, 4\), got '{absent}'"):
            first_dense(network(), (FEATURES,), absent)
    with pytest.raises(Unsupported, match="found none"):
        first_dense(nn.Linear(FEATURES, 2), (FEATURES,))
