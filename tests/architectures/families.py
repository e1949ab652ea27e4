"""Architectures from torchvision and timm, with random weights on small images."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torchvision import models

from architectures.comparison import outputs
from architectures.precisions import doubled
from architectures.specimens import Group, Pair, Specimen, images

FEW = {"samples": 3, "steps": 2, "segments": 2, "window": 32, "stride": 32}
WIDTH = 64
SHOWN = 4  # training examples and the one explained
TOLERANCE = (
    5e-2  # in deep networks of random weights the rounding of float32 turns ReLUs and shows in small differences
)


def lit(model: nn.Module) -> nn.Module:
    """A network whose head is not zero at first, as every explanation would be."""
    with torch.no_grad():
        for parameter in model.parameters():
            if not parameter.any() and parameter.ndim > 1:
                nn.init.normal_(parameter, std=0.02)
    return model


def beside(build: Callable[[], nn.Module], pixels: int) -> Pair:
    """A network beside its float64 twin."""
    model = lit(build()).eval()
    brightness = torch.linspace(0.2, 2, SHOWN).reshape(-1, 1, 1, 1)
    inputs = images(torch.float32, pixels)[-SHOWN:] * brightness  # training examples that differ in depth as well
    likeliest = outputs(model, inputs[-1:]).argmax(1)  # another class's map of Grad-CAM may be zero
    return doubled(model, inputs, targets=likeliest, tolerance=TOLERANCE, options=FEW)


def torchvisions(name: str, pixels: int = 40, **options: Any) -> Specimen:
    """One of torchvision's."""
    return Specimen(name, partial(beside, lambda: getattr(models, name)(weights=None, **options), pixels))


def timms(name: str, pixels: int = 40, **options: Any) -> Specimen:
    """One of timm's."""

    def build() -> nn.Module:
        import timm

        return timm.create_model(name, pretrained=False, **options)

    return Specimen(name, partial(beside, build, pixels))


def slim(name: str) -> Specimen:
    """A VGG of torchvision's, whose dense layers are narrow: the original's hold a gigabyte."""

    def build() -> nn.Module:
        model = getattr(models, name)(weights=None, init_weights=False)
        model.classifier[0], model.classifier[3], model.classifier[6] = (
            nn.Linear(512 * 7 * 7, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 1000),
        )  # fmt: skip
        for parameter in model.parameters():
            if parameter.ndim > 1:
                nn.init.kaiming_normal_(parameter)
        return model

    return Specimen(name, partial(beside, build, 32))


def resnext() -> nn.Module:
    """Convolutions in groups."""
    return models.ResNet(models.resnet.Bottleneck, [1, 1, 1, 1], groups=32, width_per_group=4)


def vit() -> nn.Module:
    """A vision transformer of torchvision's, but for ten blocks."""
    return models.VisionTransformer(
        image_size=32, patch_size=16, num_layers=2, num_heads=12, hidden_dim=768, mlp_dim=3072
    )


def resnetv2() -> nn.Module:
    """Convolutions whose weights are standardised."""
    from timm.models.resnetv2 import ResNetV2

    return ResNetV2([1, 1, 1, 1])


INTRODUCTION = (
    "Random weights, one small image. Truth: the float64 copy of the same weights, which tells whether the numbers are "
    "sound, and not more."
)
TORCHVISION = Group(
    "torchvision's networks",
    INTRODUCTION,
    (
        slim("vgg11"),
        slim("vgg11_bn"),
        torchvisions("resnet18"),
        Specimen("ResNeXt, a block a stage", partial(beside, resnext, 40)),
        torchvisions("densenet121", 64),
        torchvisions("googlenet", 64, aux_logits=False, init_weights=False),
        torchvisions("squeezenet1_1"),
        torchvisions("mobilenet_v2"),
        torchvisions("mobilenet_v3_small"),
        torchvisions("efficientnet_b0"),
        torchvisions("convnext_tiny", 64),
        torchvisions("regnet_y_400mf"),
        torchvisions("shufflenet_v2_x0_5"),
        Specimen("vit_b_16, two blocks", partial(beside, vit, 32)),
        torchvisions("swin_t", 64),
    ),
    slow=True,
)
TIMM = Group(
    "timm's networks",
    INTRODUCTION,
    (
        timms("resnet10t"),
        timms("resnet18"),
        timms("tf_efficientnet_lite0"),
        timms("vit_tiny_patch16_224", 32, img_size=32),
        timms("convnext_atto", 64),
        timms("ghostnet_100"),
        Specimen("ResNetV2, weight-standardised", partial(beside, resnetv2, 40)),
        timms("mixer_s32_224", 64, img_size=64),
    ),
    slow=True,
    library="timm",
)
