"""How much memory a trial needs, without torch: the model's shape, the estimate, and what is chosen by it."""
