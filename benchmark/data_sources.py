"""Sources of data and weights: what each is, its licence, where it lies, and the one line that gets it."""

from __future__ import annotations
