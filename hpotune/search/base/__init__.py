"""What samplers share: their base classes, the unit cube, the history of trials, options."""
