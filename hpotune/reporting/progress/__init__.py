"""How far running trials are: the display of `run`, and what it reads of each trial."""
