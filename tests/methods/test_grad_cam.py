"""Grad-CAM against captum's layer attribution, and on models that it cannot explain."""

import pytest
import torch
from captum import attr
from torch import nn
from torch.nn import functional

import attribug


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])
@pytest.mark.parametrize("pixels", [16, 23])
def test_channel_sum_is_captums_enlarged(dtype, tolerance, pixels, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(dtype, pixels=pixels), make_inputs(dtype, pixels=pixels)
    small = attr.LayerGradCam(model, model.conv5).attribute(inputs, target=targets, relu_attributions=True)
    expected = attr.LayerAttribution.interpolate(small, inputs.shape[2:], "bilinear").detach()
    found = attribug.explain("grad_cam", model, inputs, targets)
    assert expected.any()
    torch.testing.assert_close(found.sum(1, keepdim=True), expected, rtol=tolerance, atol=tolerance * 1e-2)
    assert torch.equal(found, found[:, :1].expand_as(found))


def test_is_the_papers_sum(make_inputs):
    """relu(Σ_k α_k A_k) with α_k by hand, on a network whose logits are linear in the last feature maps."""
    torch.manual_seed(0)
    conv, dense = nn.Conv2d(3, 5, 3, padding=1).double(), nn.Linear(5 * 256, 3).double()
    inputs, targets = make_inputs()
    found = attribug.explain("grad_cam", nn.Sequential(conv, nn.Flatten(), dense), inputs, targets)
    for row in range(len(inputs)):
        maps = conv(inputs[row])
        alpha = dense.weight[targets[row]].reshape(5, 256).mean(1)
        cam = sum(alpha[k] * maps[k] for k in range(5)).relu()
        torch.testing.assert_close(found[row].sum(0), cam, rtol=1e-10, atol=1e-12)


class Disordered(nn.Module):
    """Convolutions run in another order than they are listed; one does not run, and one runs as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.last, self.first, self.never = (nn.Conv2d(a, b, 3, padding=1) for a, b in ((6, 4), (3, 6), (3, 3)))
        self.dense = nn.Linear(4, 3)

    def forward(self, x):
        return self.dense(functional.relu(self.last(functional.relu(self.first(x)))).mean((2, 3)))


def test_explains_the_convolution_that_runs_last(make_inputs):
    torch.manual_seed(1)
    model, (inputs, targets) = Disordered().double(), make_inputs()
    small = attr.LayerGradCam(model, model.last).attribute(inputs, target=targets, relu_attributions=True)
    found = attribug.explain("grad_cam", model, inputs, targets)
    torch.testing.assert_close(found.sum(1, keepdim=True), small.detach(), rtol=1e-8, atol=1e-12)


def test_relu_in_place_gives_the_same_map(make_cnn, make_inputs):
    """Without care a ReLU in place overwrites the feature maps that Grad-CAM reads."""
    model, (inputs, targets) = make_cnn(), make_inputs()
    expected = attribug.explain("grad_cam", model, inputs, targets)
    model.relu5.inplace = True
    assert torch.equal(attribug.explain("grad_cam", model, inputs, targets), expected)


def test_functional_relu_in_place_gives_the_same_map(make_inputs):
    class InPlace(Disordered):
        def forward(self, x):
            hidden = functional.relu(self.first(x), inplace=True)
            return self.dense(functional.relu(self.last(hidden), inplace=True).mean((2, 3)))

    inputs, targets = make_inputs()
    torch.manual_seed(2)
    plain, careless = Disordered().double(), InPlace().double()
    careless.load_state_dict(plain.state_dict())
    expected, found = (attribug.explain("grad_cam", model, inputs, targets) for model in (plain, careless))
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-14)


def test_a_model_without_convolutions_is_refused(linear):
    model, inputs, targets, _ = linear
    with pytest.raises(attribug.Unsupported, match="no convolution that runs"):
        attribug.explain("grad_cam", model, inputs, targets)


def test_vectors_are_refused():
    model = nn.Sequential(nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(8, 3))
    with pytest.raises(attribug.Unsupported, match=r"expected images \(N, C, H, W\), found \(2, 16\)"):
        attribug.explain("grad_cam", model, torch.rand(2, 16), torch.tensor([0, 1]))
