"""Scores: maps become rows, metric by metric."""
