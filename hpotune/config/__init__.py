"""The study file: YAML with lines, ranges and sections, checked and typed. No numpy, no network."""
