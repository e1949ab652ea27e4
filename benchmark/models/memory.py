"""A store of weights in memory."""

from __future__ import annotations

from torch import Tensor


class Memory(dict[str, dict[str, Tensor]]):
    """A store of weights that is gone at the end."""

    def load_weights(self, key: str) -> dict[str, Tensor] | None:
        """The weights, or None."""
        return self.get(key)

    def save_weights(self, key: str, weights: dict[str, Tensor]) -> None:
        """Keeps a copy."""
        self[key] = {name: value.clone() for name, value in weights.items()}
