"""Engines: where trainings, checks and blocks run."""
