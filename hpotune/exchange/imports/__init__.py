"""Studies of other programs, read without running anything of theirs: one file each."""
