"""Reports: a run's folder compared with others, kept as a reference, shown as a page."""
