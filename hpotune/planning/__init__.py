"""Estimate a study's time and cost: estimates, probes, and a simulated cluster."""
