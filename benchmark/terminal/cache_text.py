"""The cache in words, and ages and sizes as people write them."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pydantic

from attribug.errors import InputError
from attribug.storage.inventory import KINDS, SECONDS, is_unsent

if TYPE_CHECKING:
    from attribug.storage.inventory import Inventory, Item


UNKNOWN = "runs that did not note whose they are"


def seconds(text: str) -> float:
    """An age such as 90min, 12h, 30d or 4w. Raises `InputError` for anything else."""
    match = re.fullmatch(rf"(\d+(?:\.\d+)?)({'|'.join(SECONDS)})", text.strip(), re.ASCII)
    if match is None:
        raise InputError(f"--older-than: expected an age such as 90min, 12h, 30d or 4w, found {text!r}")
    return float(match[1]) * SECONDS[match[2]]


def size(text: str) -> int:
    """Bytes of a size such as 500MB or 2GB. Raises `InputError` for anything else."""
    try:
        return int(pydantic.TypeAdapter(pydantic.ByteSize).validate_python(text))
    except (pydantic.ValidationError, OverflowError):
        raise InputError(f"--max-size: expected a size such as 500MB or 2GB, found {text!r}") from None


def as_json(places: Iterable[Inventory]) -> list[dict[str, Any]]:
    """Inventories in plain values."""
    return [
        {
            "place": place.place,
            "bytes": place.bytes,
            "models": {
                device: _sum(item for item in place.of("model") if item.device == device)
                for device in sorted({item.device for item in place.of("model")})
            },
            "trained_for": {
                told: _sum(item for item in place.of("model") if item.trained_for == told)
                for told in sorted({item.trained_for for item in place.of("model")})
            },
            "damaged": _sum(place.of("damaged")),
            "left": _sum(place.of("left")),
            "copies": [{"url": c.name, "bytes": c.bytes, "used": _date(c.used)} for c in place.of("copy")],
            "foreign": list(place.foreign),
        }
        for place in places
    ]


def _sum(items: Iterable[Item]) -> dict[str, int]:
    summed = list(items)
    return {"count": len(summed), "bytes": sum(item.bytes for item in summed)}


def lines(place: Inventory) -> Iterator[str]:
    """An inventory in words."""
    yield place.place
    (counts,) = as_json([place])
    for kind, names in KINDS.items():
        items = place.of(kind)
        name = names[len(items) != 1]
        if items or kind == "model":
            devices = ", ".join(f"{d} {n['count']}" for d, n in counts["models"].items())
            note = f" ({devices})" if kind == "model" and items else ""
            yield f"  {len(items)} {name}{note}: {shown(sum(item.bytes for item in items))}"
        if kind == "model" and any(counts["trained_for"]):  # nobody reads that at a URL
            whose = counts["trained_for"].items()
            yield from (f"    {n['count']} of {told or UNKNOWN}: {shown(n['bytes'])}" for told, n in whose)
        if kind == "copy":
            yield from (f"    {item.name}: {shown(item.bytes)}, used {_date(item.used)}" for item in items)
    yield f"  total: {shown(place.bytes)}"
    yield from _foreign(place)


def pruned(place: Inventory, gone: Sequence[Item], kept: Sequence[Item], *, dry: bool = False) -> Iterator[str]:
    """What pruning a place did, in words."""
    yield place.place
    for item in gone:
        yield f"  {'would go' if dry else 'gone'}: {item.name}: {shown(item.bytes)}, used {_date(item.used)}"
    for item in kept:
        why = "not sent yet" if is_unsent(item) else "in use"
        yield f"  {why}, kept: {item.name}: {shown(item.bytes)}"
    freed = sum(item.bytes for item in gone)
    yield f"  {'would free' if dry else 'freed'} {shown(freed)} of {shown(place.bytes)}"
    yield from _foreign(place)


def _foreign(place: Inventory) -> Iterator[str]:
    if place.foreign:
        first, more = ", ".join(place.foreign[:3]), len(place.foreign) - 3
        yield f"  not attribug's, never removed: {first}{f' and {more} more' if more > 0 else ''}"


def shown(count: int) -> str:
    """Bytes for people: 333.3KB."""
    return pydantic.ByteSize(count).human_readable(decimal=True)


def _date(seconds: float) -> str:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC).isoformat(" ", "minutes").removesuffix("+00:00")
