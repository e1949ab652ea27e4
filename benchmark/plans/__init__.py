"""Plans: a suite becomes trainings, checks and blocks."""
