"""The sections of a study file: every key, its unit, its default."""
