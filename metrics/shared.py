"""Maps in the forms that metrics receive, each made once and shared, as far as a metric can be trusted with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attribug import metrics
from attribug.metrics.postprocessing import postprocess
from attribug.plugin_files import written_beside

if TYPE_CHECKING:
    from torch import Tensor

    from attribug.contracts.data import Data
    from attribug.contracts.pieces import Metric


class Shared:
    """Maps (N, *shape) of one version of the examples, `data`, under one model; planes by post and what metrics'
    `prepare` makes of them are made when they are first asked for.

    attribug's own metrics, which their tests hold to leave operands alone, share them; any other gets its own, so that
    whatever it does to them reaches no other.
    """

    def __init__(self, maps: Tensor, data: Data) -> None:
        self.maps = maps
        self.data = data
        self.planes: dict[str, Tensor] = {}
        self.forms: dict[tuple[str, Callable[[Tensor], Any] | None], Any] = {}

    def __len__(self) -> int:
        return len(self.maps)

    def form(self, metric: Metric, post: str) -> Any:
        """What the metric receives of these maps; raises as `metrics.prepared`."""
        metrics.expect_kind(metric, self.maps)
        if post not in self.planes:
            self.planes[post] = postprocess(self.maps, post)
        plane = self.planes[post]
        if not is_ours(metric.function) or not is_ours(metric.prepare):
            return metrics.formed(metric, plane.clone())
        key = post, metric.prepare
        if key not in self.forms:
            self.forms[key] = metrics.formed(metric, plane)
        return self.forms[key]

    def truth(self, metric: Metric, kind: str) -> Tensor | None:
        """The truth mask as the metric receives it, (N, *spatial) bool; None where there is none. `kind`: see
        `Data.truth`."""
        truth = self.data.truth(kind)
        return truth if truth is None or is_ours(metric.function) else truth.clone()


def is_ours(function: Callable[..., Any] | None) -> bool:
    """Whether a function or class is written in attribug's own metrics; None, no function, harms nothing."""
    if function is None:
        return True
    return written_beside(vars(function).get("__init__") if isinstance(function, type) else function, __file__)
