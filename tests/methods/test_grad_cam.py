"""Grad-CAM against captum's layer attribution, and on models that it cannot explain."""

import pytest
import torch
from captum import attr
from torch import nn
from torch.nn import functional
from torchvision.models import VisionTransformer, resnet18

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


# --- networks with branches ---


def seeded(make, *arguments):
    """A model in double precision whose weights do not depend on the global seed, nor change it."""
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return make(*arguments).double().eval()


def of_layer(model, layer, inputs, targets):
    """Captum's map of one layer's output, enlarged, (N, 1, H, W)."""
    small = attr.LayerGradCam(model, layer).attribute(inputs, target=targets, relu_attributions=True)
    return attr.LayerAttribution.interpolate(small, inputs.shape[2:], "bilinear").detach()


def test_resnets_are_explained_at_their_last_stage(make_inputs):
    """Not at the convolution that runs last, which the connection around it bypasses."""
    model, (inputs, targets) = seeded(lambda: resnet18(num_classes=3)), make_inputs(pixels=64)
    assert model.relu.inplace
    found = attribug.explain("grad_cam", model, inputs, targets).sum(1, keepdim=True)
    expected = of_layer(model, model.layer4, inputs, targets)
    assert expected.any()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
    for other in (model.layer4[1].conv2, model.layer4[0], model.layer3):
        assert not torch.allclose(found, of_layer(model, other, inputs, targets), rtol=1e-2)


class Branches(nn.Module):
    """Two convolutions side by side on what a first one found."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left, self.right = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)

    def forward(self, x):
        x = self.first(x).relu()
        return self.left(x) + 2 * self.right(x)


class Rejoined(nn.Module):
    """Branches inside a module, which everything passes; after them a ReLU in place and a dense layer."""

    def __init__(self) -> None:
        super().__init__()
        self.branches, self.relu, self.dense = Branches(), nn.ReLU(inplace=True), nn.Linear(4 * 14 * 14, 3)

    def forward(self, x):
        return self.dense(self.relu(self.branches(x)).flatten(1))


class Apart(nn.Module):
    """Branches that meet after they have lost their maps."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.dense = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 5), nn.Linear(8, 3)

    def forward(self, x):
        return self.dense(torch.cat([each(x).relu().mean((2, 3)) for each in (self.left, self.right)], 1))


class Around(Apart):
    """One branch without any convolution: from the pixels to the dense layer."""

    def forward(self, x):
        return self.dense(torch.cat([self.left(x).mean((2, 3)), x.mean((2, 3)), x[:, :1].amax((2, 3))], 1))


def test_branches_that_rejoin_are_explained_where_they_do(make_inputs):
    model, (inputs, targets) = seeded(Rejoined), make_inputs()
    model.dense.weight.data.abs_()  # so that no map is empty
    found = attribug.explain("grad_cam", model, inputs, targets)
    for row, target in enumerate(targets.tolist()):
        maps = model.branches(inputs[row][None])[0].detach()
        slopes = model.dense.weight[target].reshape(4, 14, 14) * (maps > 0)
        cam = sum(slopes[k].mean() * maps[k] for k in range(4)).relu()[None, None]
        expected = functional.interpolate(cam, size=(16, 16), mode="bilinear")[0, 0]
        assert expected.any()
        torch.testing.assert_close(found[row].sum(0), expected, rtol=1e-10, atol=1e-12)
    for branch in (model.branches.left, model.branches.right):
        assert not torch.allclose(found.sum(1, keepdim=True), of_layer(model, branch, inputs, targets), rtol=1e-2)


@pytest.mark.parametrize("make", [Apart, Around])
def test_branches_that_end_apart_are_refused(make, make_inputs):
    model, (inputs, targets) = seeded(make), make_inputs()
    with pytest.raises(attribug.Unsupported, match="the model's branches end apart"):
        attribug.explain("grad_cam", model, inputs, targets)


def test_a_convolution_on_pooled_values_is_a_classifier(make_inputs):
    body = [nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.AdaptiveAvgPool2d(1)]
    convolving = nn.Sequential(*body, nn.Conv2d(5, 6, 1), nn.ReLU(), nn.Conv2d(6, 3, 1), nn.Flatten()).double()
    dense = nn.Sequential(*body, nn.Flatten(), nn.Linear(5, 6), nn.ReLU(), nn.Linear(6, 3)).double()
    for into, of in ((dense[5], convolving[4]), (dense[7], convolving[6])):
        into.load_state_dict({"weight": of.weight.flatten(1), "bias": of.bias})
    found, expected = (attribug.explain("grad_cam", each, *make_inputs()) for each in (convolving, dense))
    torch.testing.assert_close(found, expected)
    assert found.any()


def test_convolutions_of_single_pixels_have_no_map(make_inputs):
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Conv2d(4, 3, 1), nn.Flatten())
    with pytest.raises(attribug.Unsupported, match="no convolution of the model has a spatial map"):
        attribug.explain("grad_cam", model.double(), *make_inputs())


def test_a_last_convolution_that_hooks_cannot_see_is_refused(make_inputs):
    class Calling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.weight = nn.Conv2d(3, 4, 3), nn.Parameter(torch.ones(5, 4, 3, 3))
            self.dense = nn.Linear(5, 3)

        def forward(self, x):
            return self.dense(nn.functional.conv2d(self.conv(x).relu(), self.weight).mean((2, 3)))

    with pytest.raises(attribug.Unsupported, match="the last convolution is a function call that hooks cannot see"):
        attribug.explain("grad_cam", Calling().double(), *make_inputs())


class Attending(nn.Module):
    """A convolution, attention between places (torch's, or by hand), the mean over places."""

    def __init__(self, *, by_hand) -> None:
        super().__init__()
        self.conv, self.dense = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 3)
        self.attention = None if by_hand else nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x):
        x = self.conv(x).flatten(2).transpose(1, 2)
        if self.attention is None:
            x = (x @ x.transpose(1, 2)).softmax(-1) @ x
        else:
            x = self.attention(x, x, x, need_weights=False)[0]
        return self.dense(x.mean(1))


def transformer():
    """torchvision's, as in vit_b_16, small."""
    return VisionTransformer(16, 4, num_layers=1, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=3)


@pytest.mark.parametrize(
    "make", [transformer, lambda: Attending(by_hand=False), lambda: Attending(by_hand=True)],
    ids=["vision transformer", "attention", "attention by hand"],
)  # fmt: skip
def test_convolutions_that_cut_patches_are_refused(make, make_inputs):
    model, (inputs, targets) = seeded(make), make_inputs()
    with pytest.raises(attribug.Unsupported, match="attention follows the last convolution"):
        attribug.explain("grad_cam", model, inputs, targets)
