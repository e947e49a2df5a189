"""A cluster in a heap of events: the study's own planner on a fake clock."""
