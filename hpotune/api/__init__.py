"""The Python interface: studies, Katib's calls, and what a user's own trainer calls inside a trial."""
