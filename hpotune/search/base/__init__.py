"""What samplers share: the unit cube, the history of trials, options."""
