"""Text of users: what shows it, what quotes it, what must not stand in it."""
