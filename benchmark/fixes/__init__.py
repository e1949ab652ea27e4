"""Fixes: what mends a model that has a bug; one fix a file."""
