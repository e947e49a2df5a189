"""The setting of a trial in the words of other programs: one file each."""
