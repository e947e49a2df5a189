"""The ranges of a study file: their kinds, expressions, constraints and starting points."""
