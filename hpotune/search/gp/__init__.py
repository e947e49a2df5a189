"""The Gaussian process behind `gp`, `auto` and `bamsoo`, and what is maximised over it."""
