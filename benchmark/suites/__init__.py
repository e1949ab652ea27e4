"""Suites: which tasks, bugs, levels, methods, metrics, seeds and sizes make a run."""
