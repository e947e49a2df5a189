"""What stands in a trial's log.txt beside the output of its processes."""

from __future__ import annotations

AGAIN = "--- hpotune: another attempt at this trial ---"
"""A line between the output of one attempt and the next, so that each can be read alone."""
