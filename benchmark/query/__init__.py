"""Queries: what an attribution method gets."""

from attribug.query.passes import Cost, primitive
from attribug.query.query import Query

__all__ = ["Cost", "Query", "primitive"]
