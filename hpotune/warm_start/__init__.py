"""Where the first points of a search come from: the study file, earlier studies, CSV files."""
