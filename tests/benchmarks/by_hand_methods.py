"""The suites' methods as one would write them with captum, zennit, scikit-image and PyTorch; parameters as ours.

Each takes what a side of a contrast is asked and gives maps (N, *shape). Where captum has a number of rows or
perturbations at once, the fastest of a few is taken, tried at the first call.

captum differs in three ways: one σ of noise for all images, not one an image; `GradientShap` in place of expected
gradients as well, with noise of 0; KernelSHAP's coalitions without their complements.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from captum import attr
from skimage.filters import sobel
from torch import Tensor, nn
from torch.nn import functional

from attribug.methods.rise import soft_masks
from attribug.streams import generator
from methods import captums_lime, composites, zennits

AT_ONCE = (1, 8, 32, 64, 128)
NOISY_AT_ONCE = (None, 1, 2, 4, 8)
STEPS_AT_ONCE = (None, 64, 128, 256)
FITTED_AT_ONCE = 64  # training examples


@dataclass
class Asked:
    """A model, the images and classes that it is asked about, its training images."""

    model: nn.Module
    inputs: Tensor
    targets: Tensor
    train: Tensor
    seed: int = 0
    known: dict[str, Any] = field(default_factory=dict)
    """What was computed of this model and may serve again: SmoothGrad's maps, patterns."""


Maps = Callable[..., Tensor]
_best: dict[str, Any] = {}


def fastest(name: str, candidates: Sequence[Any], run: Callable[[Any], Tensor]) -> Tensor:
    """What `run` gives at the candidate that was fastest when it was first called by this name."""
    if name not in _best:
        times = {}
        for candidate in candidates:
            started = time.process_time()
            run(candidate)
            times[candidate] = time.process_time() - started
        _best[name] = min(times, key=times.__getitem__)
    return run(_best[name])


def sigma(asked: Asked, noise: float) -> float:
    """captum's one standard deviation."""
    return noise * float(asked.inputs.max() - asked.inputs.min())


# --- gradients ---


def gradient(asked: Asked) -> Tensor:
    """∂F_t/∂x."""
    return attr.Saliency(asked.model).attribute(asked.inputs, target=asked.targets, abs=False)


def input_x_gradient(asked: Asked) -> Tensor:
    """x ⊙ ∂F_t/∂x."""
    return attr.InputXGradient(asked.model).attribute(asked.inputs, target=asked.targets)


def noisy(kind: str) -> Maps:
    """SmoothGrad, its squares or VarGrad."""

    def maps(asked: Asked, samples: int = 50, noise: float = 0.15) -> Tensor:
        tunnel = attr.NoiseTunnel(attr.Saliency(asked.model))
        options = {"nt_samples": samples, "stdevs": sigma(asked, noise), "target": asked.targets, "abs": False}
        return fastest(kind, NOISY_AT_ONCE, lambda at_once: tunnel.attribute(
            asked.inputs, nt_type=kind, nt_samples_batch_size=at_once, **options))  # fmt: skip

    return maps


def smoothgrad(asked: Asked, **parameters: Any) -> Tensor:
    """SmoothGrad, kept for its square."""
    asked.known["smoothgrad"] = maps = noisy("smoothgrad")(asked, **parameters)
    return maps


def smoothgrad_then_square(asked: Asked, **parameters: Any) -> Tensor:
    """SmoothGrad's square, of maps that are there."""
    known = asked.known.get("smoothgrad")
    return (smoothgrad(asked, **parameters) if known is None else known).square()


# --- paths ---


def integrated_gradients(asked: Asked, steps: int = 50) -> Tensor:
    """Gauss–Legendre, captum's default."""
    method = attr.IntegratedGradients(asked.model)
    return fastest("integrated_gradients", STEPS_AT_ONCE, lambda at_once: method.attribute(
        asked.inputs, target=asked.targets, n_steps=steps, internal_batch_size=at_once))  # fmt: skip


def gradient_shap(asked: Asked, samples: int = 50, noise: float = 0.15) -> Tensor:
    """Baselines from all training images."""
    spread = sigma(asked, noise)
    return attr.GradientShap(asked.model).attribute(
        asked.inputs, asked.train, n_samples=samples, stdevs=spread, target=asked.targets
    )


def expected_gradients(asked: Asked, samples: int = 50) -> Tensor:
    """The same without noise."""
    return gradient_shap(asked, samples, 0.0)


def deep_lift(asked: Asked) -> Tensor:
    """Rescale rule, baseline 0."""
    return attr.DeepLift(asked.model).attribute(asked.inputs, target=asked.targets)


# --- perturbations ---


def coalitions(name: str) -> Maps:
    """LIME or KernelSHAP; segments share a value here, which we spread evenly over their pixels."""

    def maps(asked: Asked, samples: int = 200, segments: int = 8) -> Tensor:
        method = captums_lime(asked.model) if name == "lime" else attr.KernelShap(asked.model)
        height, width = asked.inputs.shape[2:]
        rows, columns = (torch.arange(side) * segments // side for side in (height, width))
        labels = rows[:, None] * segments + columns
        values = fastest(name, AT_ONCE, lambda at_once: method.attribute(
            asked.inputs, target=asked.targets, feature_mask=labels[None, None], n_samples=samples,
            perturbations_per_eval=at_once))  # fmt: skip
        return values / (torch.bincount(labels.flatten())[labels] * asked.inputs.shape[1])

    return maps


def rise(asked: Asked, samples: int = 500, cells: int = 7, keep: float = 0.5) -> Tensor:
    """A loop over images, all masks of one in a pass; our own masks."""
    height, width = asked.inputs.shape[2:]
    masks = soft_masks(height, width, samples, cells, keep, generator("rise", asked.seed, samples, cells, keep))
    maps = []
    with torch.no_grad():
        for image, target in zip(asked.inputs, asked.targets, strict=True):
            outputs = asked.model(image * masks[:, None])[:, target]
            maps.append((outputs[:, None, None] * masks).sum(0) / (samples * keep))
    return (torch.stack(maps)[:, None] / asked.inputs.shape[1]).expand_as(asked.inputs)


def occlusion(asked: Asked) -> Tensor:
    """Windows of a quarter of the image, half a window apart."""
    channels, side = asked.inputs.shape[1], min(asked.inputs.shape[2:]) // 4
    window, stride = (channels, side, side), (channels, side // 2, side // 2)
    return fastest("occlusion", AT_ONCE, lambda at_once: attr.Occlusion(asked.model).attribute(
        asked.inputs, window, stride, target=asked.targets, perturbations_per_eval=at_once)) / channels  # fmt: skip


# --- other rules at ReLUs, class activation ---


def guided_backprop(asked: Asked) -> Tensor:
    """Positive signals only, forward and backward."""
    return attr.GuidedBackprop(asked.model).attribute(asked.inputs, target=asked.targets)


def deconvnet(asked: Asked) -> Tensor:
    """Positive signals only, backward."""
    return attr.Deconvolution(asked.model).attribute(asked.inputs, target=asked.targets)


def last_convolution(model: nn.Module) -> nn.Module:
    """The layer that a user would name."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d)][-1]


def rectifier(model: nn.Module) -> nn.Module:
    """The ReLU behind the last convolution of a chain."""
    chain = list(model.modules())
    return chain[chain.index(last_convolution(model)) + 1]


def enlarged(asked: Asked, small: Tensor) -> Tensor:
    """Maps (N, 1, h, w) at the size of the inputs, spread over their channels."""
    large = attr.LayerAttribution.interpolate(small, asked.inputs.shape[2:], "bilinear")
    return (large / asked.inputs.shape[1]).expand_as(asked.inputs)


def class_activation(asked: Asked, *, relu: bool, after_relu: bool) -> Tensor:
    """captum's Grad-CAM."""
    layer = (rectifier if after_relu else last_convolution)(asked.model)
    method = attr.LayerGradCam(asked.model, layer)
    return enlarged(asked, method.attribute(asked.inputs, target=asked.targets, relu_attributions=relu))


def grad_cam(asked: Asked, after_relu: bool = False) -> Tensor:
    """At the last convolution, enlarged."""
    return class_activation(asked, relu=True, after_relu=after_relu)


def grad_cam_signed(asked: Asked, after_relu: bool = False) -> Tensor:
    """The same without its ReLU."""
    return class_activation(asked, relu=False, after_relu=after_relu)


def maps_and_gradients(asked: Asked, layer: nn.Module) -> tuple[Tensor, Tensor]:
    """A layer's maps and the logit's gradient there, (N, k, h, w), by a hook."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda *called: kept.append(called[-1]))
    logits = asked.model(asked.inputs)
    handle.remove()
    (gradient,) = torch.autograd.grad(logits.gather(1, asked.targets[:, None]).sum(), kept[0])
    return kept[0].detach(), gradient


def layer_cam(asked: Asked) -> Tensor:
    """Maps times their positive gradients."""
    maps, gradient = maps_and_gradients(asked, last_convolution(asked.model))
    return enlarged(asked, (gradient.relu() * maps).sum(1, keepdim=True).relu())


def hires_cam(asked: Asked) -> Tensor:
    """Maps times gradients."""
    maps, gradient = maps_and_gradients(asked, last_convolution(asked.model))
    return enlarged(asked, (gradient * maps).sum(1, keepdim=True))


def grad_cam_plus_plus(asked: Asked) -> Tensor:
    """The published weights, of the maps behind the ReLU."""
    maps, gradient = maps_and_gradients(asked, rectifier(asked.model))
    share = gradient**2 / (2 * gradient**2 + gradient**3 * maps.sum((2, 3), keepdim=True))
    weights = (share.nan_to_num() * gradient.relu()).sum((2, 3), keepdim=True)
    return enlarged(asked, (weights * maps).sum(1, keepdim=True).relu())


def guided_grad_cam(asked: Asked, after_relu: bool = False) -> Tensor:
    """captum's product of both."""
    method = attr.GuidedGradCam(asked.model, (rectifier if after_relu else last_convolution)(asked.model))
    return method.attribute(asked.inputs, target=asked.targets, interpolate_mode="bilinear")


def relevance(name: str) -> Maps:
    """A composite of zennit."""
    return lambda asked: zennits(name, asked.model, asked.inputs, asked.targets)


# --- patterns ---


def layers(model: nn.Module) -> list[nn.Module]:
    """Convolutions and dense layers of a chain; all but the last are followed by a ReLU."""
    return [module for module in model.modules() if isinstance(module, nn.Conv2d | nn.Linear)]


def fitted(asked: Asked) -> dict[nn.Module, Tensor]:
    """a = cov / wᵀcov, cov = E₊[x y] − E₊[x] E[y]: a loop over the training images, once a model."""
    if "patterns" in asked.known:
        patterns: dict[nn.Module, Tensor] = asked.known["patterns"]
        return patterns
    linear, sums = layers(asked.model), dict[nn.Module, list[Any]]()

    def collect(layer: Any, args: tuple[Tensor], output: Tensor) -> None:
        if isinstance(layer, nn.Conv2d):
            x = functional.unfold(args[0], layer.kernel_size, layer.dilation, layer.padding, layer.stride)  # (B, d, L)
            y = (output - layer.bias[:, None, None]).flatten(2)  # (B, k, L)
        else:
            x, y = args[0][:, :, None], (output - layer.bias)[:, :, None]
        active = torch.ones_like(y) if layer is linear[-1] else (output.reshape(y.shape) > 0).to(y)
        new = [active.sum((0, 2)), torch.einsum("bkl,bdl->kd", active, x), torch.einsum("bkl,bdl->kd", active * y, x),
               y.sum((0, 2)), y.shape[0] * y.shape[2]]  # fmt: skip
        new = [part.double() if isinstance(part, Tensor) else part for part in new]
        sums[layer] = [a + b for a, b in zip(sums[layer], new, strict=True)] if layer in sums else new

    handles = [layer.register_forward_hook(collect) for layer in linear]
    with torch.no_grad():
        for batch in asked.train.split(FITTED_AT_ONCE):
            asked.model(batch)
    for handle in handles:
        handle.remove()
    asked.known["patterns"] = patterns = {}
    for layer, (active, active_x, active_xy, y, count) in sums.items():
        often = active.clamp(min=1)[:, None]
        covariance = active_xy / often - active_x / often * (y / count)[:, None]
        variance = (layer.weight.detach().double().flatten(1) * covariance).sum(1, keepdim=True)
        pattern = torch.where(variance.abs() > 1e-12, covariance / variance, 0)
        patterns[layer] = pattern.reshape(layer.weight.shape).float()
    return patterns


def back_projected(asked: Asked, weights: dict[nn.Module, Tensor]) -> Tensor:
    """The gradient that flows back through other weights."""

    def through(layer: Any, args: tuple[Tensor], output: Tensor) -> Tensor:
        if isinstance(layer, nn.Conv2d):
            other = functional.conv2d(args[0], weights[layer], None, layer.stride, layer.padding, layer.dilation)
        else:
            other = functional.linear(args[0], weights[layer])
        return other + (output - other).detach()

    handles = [layer.register_forward_hook(through) for layer in weights]
    leaf = asked.inputs.clone().requires_grad_(True)
    logits = asked.model(leaf).gather(1, asked.targets[:, None])
    maps = torch.autograd.grad(logits.sum(), leaf)[0]
    for handle in handles:
        handle.remove()
    return maps


def pattern_net(asked: Asked) -> Tensor:
    """Patterns in place of weights."""
    return back_projected(asked, fitted(asked))


def pattern_attribution(asked: Asked) -> Tensor:
    """Patterns times weights."""
    return back_projected(asked, {layer: a * layer.weight.detach() for layer, a in fitted(asked).items()})


# --- honest rows ---


def random(asked: Asked) -> Tensor:
    """Noise."""
    return torch.randn(asked.inputs.shape)


def edges(asked: Asked) -> Tensor:
    """scikit-image's Sobel filter, channel by channel."""
    images = [np.stack([sobel(plane) for plane in image]) for image in asked.inputs.numpy()]
    return torch.from_numpy(np.stack(images))


def predictions(asked: Asked) -> Tensor:
    """Softmax of the logits, (N, K)."""
    with torch.no_grad():
        return asked.model(asked.inputs).softmax(1)


METHODS: dict[str, Maps] = {
    **{function.__name__: function for function in (
        gradient, input_x_gradient, smoothgrad, smoothgrad_then_square, integrated_gradients, gradient_shap,
        expected_gradients, deep_lift, rise, occlusion, guided_backprop, deconvnet, grad_cam, grad_cam_signed,
        layer_cam, hires_cam, grad_cam_plus_plus, guided_grad_cam, pattern_net, pattern_attribution, random, edges,
        predictions,
    )},
    **{name: coalitions(name) for name in ("lime", "kernel_shap")},
    **{name: relevance(name) for name in composites()},
    "smoothgrad_squared": noisy("smoothgrad_sq"),
    "vargrad": noisy("vargrad"),
}  # fmt: skip
"""By the name of ours."""
