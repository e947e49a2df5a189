"""One trial, trained and scored: the only room that imports torch and its family; reached by `python -m`."""
