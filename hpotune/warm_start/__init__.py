"""Start points of a search: from the study file, from past studies, and from CSV files."""
