"""Studies derived from a study (repeats, sealed test), as they are read and drawn; the views are in report/views/."""
