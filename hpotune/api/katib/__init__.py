"""Katib's tune() and the fine-tune API's train(): each becomes a study file, which is written and submitted."""
