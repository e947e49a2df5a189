"""The base model and its adapter: found, loaded, converted, exported."""
