"""Rows of the training data: read, rendered, tokenized, put into batches."""
