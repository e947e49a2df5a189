"""The base model and its adapter: hub access, loading, conversion from GGUF, export."""
