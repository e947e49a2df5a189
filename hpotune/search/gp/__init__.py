"""The Gaussian process of `gp`, `auto` and `bamsoo`, its acquisition function, and a model of failures."""
