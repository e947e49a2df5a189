"""The search algorithms by name, one file each."""
