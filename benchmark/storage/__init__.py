"""Storage: content-addressed, written atomically, verified when read."""
