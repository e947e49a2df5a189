"""What reports show, as frozen dataclasses: read by tables, `--json`, and Python programs. Nothing here prints."""
