"""Maps: what methods say of a side, behind a guard around foreign code."""
