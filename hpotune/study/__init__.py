"""WHAT is searched: plain data. No numpy, no network, no library heavier than pydantic and PyYAML."""
