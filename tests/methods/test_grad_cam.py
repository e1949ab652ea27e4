"""Class activation maps against captum's layer attribution, autograd and slow loops; models they cannot explain."""

import pytest
import torch
from captum import attr
from torch import nn
from torch.nn import functional
from torchvision.models import VisionTransformer, resnet18

import attribug
from attribug import methods
from attribug.methods import grad_cam
from attribug.query.query import Query

PRECISIONS = pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-8), (torch.float32, 1e-4)])


@PRECISIONS
@pytest.mark.parametrize("pixels", [16, 23])
@pytest.mark.parametrize(("layer", "after_relu"), [("conv5", False), ("relu5", True)])
@pytest.mark.parametrize(("name", "relu"), [("grad_cam", True), ("grad_cam_signed", False)])
def test_channel_sum_is_captums_enlarged(
    name, relu, layer, after_relu, dtype, tolerance, pixels, make_cnn, make_inputs
):
    model, (inputs, targets) = make_cnn(dtype, pixels=pixels), make_inputs(dtype, pixels=pixels)
    captums = attr.LayerGradCam(model, model.get_submodule(layer))
    small = captums.attribute(inputs, target=targets, relu_attributions=relu)
    expected = attr.LayerAttribution.interpolate(small, inputs.shape[2:], "bilinear").detach()
    found = attribug.explain(name, model, inputs, targets, after_relu=after_relu)
    assert expected.any()
    assert bool((expected < 0).any()) != relu
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


# --- the methods that weigh positions ---


def layer_of(model, layer, inputs, targets):
    """Feature maps of a layer and the target logits' gradients there, by autograd."""
    kept = []
    with layer.register_forward_hook(lambda module, args, output: kept.append(output)):
        logits = model(inputs).gather(1, targets[:, None]).sum()
    return kept[0].detach(), torch.autograd.grad(logits, kept[0])[0]


def by_position(maps, gradient, weigh):
    """Σ_k weigh(g_k,ij) A_k,ij with a loop for every sum."""
    found = torch.zeros(maps.shape[1:], dtype=maps.dtype)
    for k in range(len(maps)):
        for i in range(maps.shape[1]):
            for j in range(maps.shape[2]):
                found[i, j] += weigh(gradient[k, i, j]) * maps[k, i, j]
    return found


def layer_cam_by_loops(maps, gradient, logit):
    return by_position(maps, gradient, lambda g: g if g > 0 else 0).relu()


def hires_cam_by_loops(maps, gradient, logit):
    return by_position(maps, gradient, lambda g: g)


def plus_plus_by_loops(maps, gradient, logit):
    """With the derivatives of exp(logit) as the paper has them, and the map divided by exp(logit)."""
    found = torch.zeros(maps.shape[1:], dtype=maps.dtype)
    for k in range(len(maps)):
        weight = 0.0
        for g in gradient[k].flatten():
            first, second, third = (logit.exp() * g**power for power in (1, 2, 3))
            if g != 0:
                weight += second / (2 * second + maps[k].sum() * third) * first.clamp(min=0)
        found += weight * maps[k]
    return found.relu() / logit.exp()


LOOPS = {
    "layer_cam": ("conv5", layer_cam_by_loops),
    "hires_cam": ("conv5", hires_cam_by_loops),
    "grad_cam_plus_plus": ("relu5", plus_plus_by_loops),
}


@PRECISIONS
@pytest.mark.parametrize("name", LOOPS)
def test_are_the_papers_sums(name, dtype, tolerance, make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(dtype, pixels=23), make_inputs(dtype, pixels=23)
    layer, loops = LOOPS[name]
    maps, gradient = layer_of(model, model.get_submodule(layer), inputs, targets)
    logits = model(inputs).gather(1, targets[:, None])[:, 0].detach()
    small = torch.stack([loops(*each) for each in zip(maps, gradient, logits, strict=True)])
    expected = functional.interpolate(small[:, None], size=(23, 23), mode="bilinear")
    found = attribug.explain(name, model, inputs, targets).sum(1, keepdim=True)
    size = float(expected.abs().max())
    assert size > 0
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * size)
    for other in {*LOOPS, "grad_cam", "grad_cam_signed"} - {name}:
        assert not torch.allclose(
            attribug.explain(other, model, inputs, targets).sum(1, keepdim=True), expected, rtol=1e-2
        )


def test_weights_of_plus_plus_are_of_the_second_and_third_derivatives(make_inputs):
    """Of exp(logit) by autograd, one entry of the feature maps after another, as the paper's general formula has it."""
    torch.manual_seed(0)
    conv, dense = nn.Conv2d(3, 2, 5, stride=4).double(), nn.Linear(2 * 9, 3).double()
    inputs, targets = make_inputs()
    found = attribug.explain("grad_cam_plus_plus", nn.Sequential(conv, nn.ReLU(), nn.Flatten(), dense), inputs, targets)
    for row, target in enumerate(targets.tolist()):
        maps = conv(inputs[row][None])[0].relu().detach().requires_grad_(True)
        score = dense(maps.flatten())[target].exp()
        small = torch.zeros(3, 3, dtype=torch.float64)
        for k in range(2):
            weight = 0.0
            for entry in range(9):
                value, derivatives = score, []
                for _ in range(3):
                    value = torch.autograd.grad(value, maps, create_graph=True)[0][k].flatten()[entry]
                    derivatives.append(value.detach())
                first, second, third = derivatives
                weight += second / (2 * second + maps[k].detach().sum() * third) * first.clamp(min=0)
            small += weight * maps[k].detach()
        expected = functional.interpolate((small.relu() / score.detach())[None, None], size=(16, 16), mode="bilinear")
        torch.testing.assert_close(found[row].sum(0), expected[0, 0], rtol=1e-10, atol=1e-14)
    assert found.any()


def test_hires_cam_sums_to_the_logit_less_its_bias(make_inputs):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.Flatten(), nn.Linear(5 * 256, 3)).double()
    inputs, targets = make_inputs()
    found = attribug.explain("hires_cam", model, inputs, targets).flatten(1).sum(1)
    logits = model(inputs).gather(1, targets[:, None])[:, 0].detach()
    torch.testing.assert_close(found, logits - model[2].bias[targets].detach(), rtol=1e-10, atol=1e-12)
    averaged = attribug.explain("grad_cam_signed", model, inputs, targets).flatten(1).sum(1)
    assert not torch.allclose(found, averaged, rtol=1e-2)


def test_plus_plus_keeps_small_gradients():
    """Whose squares and cubes underflow."""
    maps, gradient = torch.rand(1, 2, 3, 3), torch.rand(1, 2, 3, 3)
    expected = grad_cam._plus_plus(maps, gradient * 1e-3)  # here α is ½ to three digits already
    torch.testing.assert_close(grad_cam._plus_plus(maps, gradient * 1e-25) * 1e22, expected, rtol=1e-2, atol=0)


def test_all_share_one_pass(make_cnn, make_inputs):
    model, (inputs, targets) = make_cnn(), make_inputs()
    query = Query(model, inputs, targets, rows=2)
    for name in ("grad_cam", "grad_cam_signed", "layer_cam", "hires_cam", "grad_cam_plus_plus"):
        methods.get(name).function(query)
        assert (query.passes.total.forward, query.passes.total.backward) == (len(inputs), len(inputs))
    methods.get("guided_grad_cam").function(query)  # and one of guided backpropagation
    assert (query.passes.total.forward, query.passes.total.backward) == (2 * len(inputs), 2 * len(inputs))


# --- the ReLU that follows ---


def test_before_a_relu_maps_may_be_empty(make_inputs):
    """Where one of many maps is positive, the others are far below, and every weight is positive."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), *tail(32 * 49)))
    inputs, targets = make_inputs()
    model[0].bias.data -= model[0](inputs).amax((0, 2, 3)).detach() - 0.02  # every map is positive somewhere
    model[4].weight.data.abs_()
    assert not attribug.explain("grad_cam", model, inputs, targets).any()
    assert bool((attribug.explain("grad_cam_signed", model, inputs, targets) < 0).any())
    for name, options in (("grad_cam", {"after_relu": True}), ("layer_cam", {}), ("grad_cam_plus_plus", {})):
        assert bool((attribug.explain(name, model, inputs, targets, **options) > 0).any())


def tail(width):
    return nn.MaxPool2d(2), nn.Flatten(), nn.Linear(width, 3)


class Doubling(nn.Module):
    def forward(self, x):
        return x.relu() + x


class Clipping(nn.Module):
    def forward(self, x):
        return functional.relu(x, inplace=True)


FOLLOWED = {
    "relu": [nn.ReLU()],
    "in place": [nn.ReLU(inplace=True)],
    "function in place": [Clipping()],
    "batch norm": [nn.BatchNorm2d(4), nn.ReLU()],
    "pooling": [nn.MaxPool2d(1), nn.ReLU()],
    "upper bound": [nn.ReLU6()],
}
UNRECTIFIED = {
    "gelu": [nn.GELU()],
    "leaky": [nn.LeakyReLU(0.1)],
    "swish": [nn.SiLU()],
    "hard tanh": [nn.Hardtanh()],
    "two users": [Doubling()],
    "nothing": [],
}


def followed(between):
    return seeded(lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(*between), *tail(4 * 49)))


@pytest.mark.parametrize("following", FOLLOWED)
def test_the_relu_that_follows_is_found(following, make_inputs):
    model, (inputs, targets) = followed(FOLLOWED[following]), make_inputs()
    expected = of_layer(model, model[1], inputs, targets)
    found = attribug.explain("grad_cam", model, inputs, targets, after_relu=True).sum(1, keepdim=True)
    assert expected.any()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
    assert not torch.allclose(
        attribug.explain("grad_cam", model, inputs, targets).sum(1, keepdim=True), found, rtol=1e-2
    )


@pytest.mark.parametrize("following", UNRECTIFIED)
@pytest.mark.parametrize(("name", "options"), [("grad_cam", {"after_relu": True}), ("grad_cam_plus_plus", {})])
def test_without_a_relu_what_needs_one_declines(name, options, following, make_inputs):
    model, (inputs, targets) = followed(UNRECTIFIED[following]), make_inputs()
    assert attribug.explain("grad_cam_signed", model, inputs, targets).any()
    with pytest.raises(attribug.Unsupported, match="no ReLU is seen behind the last convolution"):
        attribug.explain(name, model, inputs, targets, **options)


class Joined(Branches):
    """Two branches of their own ReLUs, which are concatenated and pooled."""

    def forward(self, x):
        x = self.first(x).relu()
        return functional.avg_pool2d(torch.cat([self.left(x).relu(), functional.relu6(self.right(x))], 1), 2)


@pytest.mark.parametrize(
    ("make", "pixels"),
    [(lambda: resnet18(num_classes=3), 64), (lambda: nn.Sequential(Joined(), nn.Flatten(), nn.Linear(8 * 49, 3)), 16)],
    ids=["resnet", "joined"],
)
def test_maps_that_come_from_relus_are_read_as_they_are(make, pixels, make_inputs):
    model, (inputs, targets) = seeded(make), make_inputs(pixels=pixels)
    signed, after = (
        attribug.explain("grad_cam_signed", model, inputs, targets, after_relu=each) for each in (False, True)
    )
    assert signed.any()
    assert torch.equal(signed, after)
    assert attribug.explain("grad_cam_plus_plus", model, inputs, targets).any()


def test_a_relu_in_place_after_pooling_is_read_before_it_is_lost(make_inputs):
    model = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), Clipping(), nn.Flatten(), nn.Linear(196, 3))
    )
    inputs, targets = make_inputs()
    plain = seeded(
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(196, 3))
    )
    expected = of_layer(plain, plain[2], inputs, targets)
    found = attribug.explain("grad_cam", model, inputs, targets, after_relu=True).sum(1, keepdim=True)
    assert expected.any()
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)
