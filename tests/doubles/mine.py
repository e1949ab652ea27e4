"""A small model and data as somebody brings them, known under the default options of the task `own`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from attribug.contracts.data import Data
from attribug.contracts.tasks import GivenModel
from attribug.models import brought
from attribug.models.brought import Brought
from attribug.models.order import running_order
from attribug.running.bringing import asked_for

PIXELS = 12  # more than SSIM's window
CLASSES = ("upper", "middle", "lower")


def network(channels: int = 1) -> nn.Sequential:
    """Untrained, always the same."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(channels, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(),
            nn.Linear(4 * (PIXELS // 2) ** 2, len(CLASSES)),
        ).eval()  # fmt: skip


def bars(seed: int = 0, size: int = 60, channels: int = 1) -> Data:
    """A bright bar in one of three places on noise; the bar is the mask."""
    stream = torch.Generator().manual_seed(seed)
    inputs = torch.rand((size, channels, PIXELS, PIXELS), generator=stream) / 2
    labels = torch.arange(size) % len(CLASSES)
    masks = torch.zeros((size, PIXELS, PIXELS), dtype=torch.bool)
    for row, label in enumerate(labels.tolist()):
        masks[row, 4 * label : 4 * label + 2] = True
    inputs += masks[:, None] * 0.5
    return Data(inputs, labels, torch.arange(size), masks)


def trained(channels: int = 1, steps: int = 60) -> nn.Sequential:
    """One that knows its bars."""
    model, data = network(channels).train(), bars(1, 90, channels)
    optimiser = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(steps):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.inputs), data.labels).backward()
        optimiser.step()
    return model.eval()


def register(seed: int) -> Brought:
    """Makes it what the task `own` finds under this seed."""
    whole, spec = brought.examples(bars(seed)), brought.describe(network())
    layers = running_order(network(), bars(size=2).inputs)
    given = GivenModel(spec, 0.05, whole, brought.some(whole, 30), (0.0,), (1.0,), len(CLASSES), layers)
    found = Brought(given, whole, CLASSES, start=spec, taught=whole, shape=(1, PIXELS, PIXELS))
    brought.register(brought.key(asked_for({}), seed), found)
    return found


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten()
        )
        self.head = nn.Linear(4 * 36, 3)

    def forward(self, x):
        return self.head(self.features(x))

def load():
    return Net()
"""
FIT = """
import torch
from torch import nn

RATE = 1e-2

def loss(model, inputs, labels):
    return nn.functional.cross_entropy(model(inputs), labels)

def train(model, inputs, labels, seed):
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    optimiser = torch.optim.Adam(model.parameters(), RATE)
    for _ in range(120):
        optimiser.zero_grad()
        loss(model, inputs, labels).backward()
        optimiser.step()

def raises(model, inputs, labels, seed): raise ArithmeticError("no luck")
def two(model, loader): return model
"""
TYPED = ("--model", "net.py:load", "--weights", "net.pt", "--data", "photos", "--pixels", "12")


def written(folder: Path) -> Path:
    """The folder, with what `TYPED` names in it: a network in a file, trained weights, pictures by class; and `FIT` in
    fit.py."""
    names: dict[str, Any] = {}
    exec(compile(NET, "net.py", "exec"), names)
    data = bars(size=36, channels=3)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = names["load"]()
    kinds = sorted(CLASSES)
    labels = torch.tensor([kinds.index(CLASSES[label]) for label in data.labels.tolist()])
    optimiser = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(data.inputs), labels).backward()
        optimiser.step()
    (folder / "net.py").write_text(NET)
    (folder / "fit.py").write_text(FIT)
    torch.save(model.state_dict(), folder / "net.pt")
    for number, (inputs, label) in enumerate(zip(data.inputs, labels.tolist(), strict=True)):
        place = folder / "photos" / kinds[label]
        place.mkdir(parents=True, exist_ok=True)
        pixels = (inputs.permute(1, 2, 0).numpy().clip(0, 1) * 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.png")
    return folder
