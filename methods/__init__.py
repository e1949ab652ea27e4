"""Attribution methods; one family a file."""

from __future__ import annotations

from attribug.contracts.pieces import Method
from attribug.methods import adapters
from attribug.registry import Registry

_registry: Registry[Method] = Registry("method", "attribug.methods", Method)
register = _registry.register
names = _registry.names
get = _registry.get
described = _registry.described
from_captum = adapters.from_captum
from_function = adapters.from_function
from_zennit = adapters.from_zennit

__all__ = ["described", "from_captum", "from_function", "from_zennit", "get", "names", "register", "register_functions"]


def register_functions(pickled: bytes) -> None:
    """Registers functions that a Python session handed over, as `from_function` would: {name: (function, content key)}.

    A function takes the place of one handed over earlier. The key travels along, because a worker may see another order
    of sets in what a function encloses.
    """
    import cloudpickle

    for name, (function, key) in (cloudpickle.loads(pickled) if pickled else {}).items():
        method = adapters.as_method(function)
        method.__content_key__ = lambda key=key: key  # type: ignore[attr-defined]
        _registry.forget(name)
        register(name)(method)
