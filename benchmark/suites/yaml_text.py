"""YAML as users write it, read so that nothing they wrote is lost: a key that stands twice is an error."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from attribug.errors import InputError


def parsed(text: str) -> Any:
    """The value of a YAML text.

    Raises:
        InputError: no YAML, or a key twice in one mapping (YAML itself keeps the last); one line with the number of the
            text's line where it is known.
    """
    try:
        loader = yaml.SafeLoader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        for mapping in _mappings(root, set()):
            _refuse_twice(mapping, loader)
        return loader.construct_document(root)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark is not None else "the file"
        raise InputError(f"expected YAML, {where}: {getattr(error, 'problem', None) or 'cannot be read'}") from error
    except RecursionError as error:
        raise InputError("expected YAML, found values nested too deeply") from error
    except (ValueError, LookupError, AttributeError) as error:  # a date of month 13, `!!int x`: PyYAML converts blindly
        if isinstance(error, InputError):
            raise
        raise InputError(f"expected YAML, found a value that is not of its type: {error}") from error


def _mappings(node: yaml.Node, seen: set[int]) -> Iterator[yaml.MappingNode]:
    """All mappings in a node, each once: aliases may lead back."""
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    if isinstance(node, yaml.MappingNode):
        yield node
    for item in node.value:
        for below in item if isinstance(item, tuple) else (item,):
            yield from _mappings(below, seen)


def _refuse_twice(mapping: yaml.MappingNode, loader: yaml.SafeLoader) -> None:
    """Raises `InputError` for keys that Python holds equal; what `<<` takes from elsewhere may be overridden."""
    lines: dict[Any, int] = {}
    for node, _ in mapping.value:
        if isinstance(node, yaml.ScalarNode):
            key, line = (node.tag if node.value == "<<" else loader.construct_object(node)), node.start_mark.line + 1
            if key in lines:
                where = f"line {line}" if line == lines[key] else f"lines {lines[key]} and {line}"
                raise InputError(f"key {node.value!r} stands twice, in {where}; leave one of them")
            lines[key] = line
