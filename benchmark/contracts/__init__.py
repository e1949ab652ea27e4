"""The values that tasks, bugs, methods and metrics exchange: frozen, described by content, lazy where they are large.

Shapes used throughout: `N` examples, `C` channels, `H × W` pixels, `L` places, `D` features, `K` classes; inputs are
`(N, *shape)`: images `(N, C, H, W)`, sequences `(N, C, L)` or vectors `(N, D)`. Attributions have the shape of the
inputs they explain; masks are `(N, *spatial)`, that shape without channels. See `attribug.contracts.shapes`.
"""

from attribug.contracts.contrasts import Check, Contrast, Side, Target
from attribug.contracts.data import Data, Examples
from attribug.contracts.models import Derived, Given, ModelSpec, Recipe, Trained, trainings
from attribug.contracts.objectives import Objective, cross_entropy, squared_norm, summed_cross_entropy
from attribug.contracts.outputs import Output
from attribug.contracts.pieces import Bug, Fix, Method, Metric, Panel, TaskSource
from attribug.contracts.subjects import Ask, Lacking, Regions, Subject
from attribug.contracts.tasks import Level, Task
from attribug.errors import Unsupported
from attribug.registry import Entry

__all__ = [
    "Ask", "Bug", "Check", "Contrast", "Data", "Derived", "Entry", "Examples", "Fix", "Given", "Lacking", "Level",
    "Method", "Metric", "ModelSpec", "Objective", "Output", "Panel", "Recipe", "Regions", "Side", "Subject",
    "Target", "Task", "TaskSource", "Trained", "Unsupported", "cross_entropy", "squared_norm",
    "summed_cross_entropy", "trainings",
]  # fmt: skip
