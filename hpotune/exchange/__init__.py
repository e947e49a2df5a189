"""Results taken out of a study: adapters with a model card, settings as study files."""
