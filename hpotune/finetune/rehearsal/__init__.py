"""A trial up to its first step, without weights and without a GPU: `hpotune check` runs it on the login node."""
