"""What a study will take and cost: estimates, probes, and a simulator that runs the scheduler on a clock of its own."""
