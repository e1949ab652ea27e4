"""Conformance: what a plugin must pass, a file a kind."""
