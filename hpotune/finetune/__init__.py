"""Train and score one trial; the only room that imports torch and its family. Run with `python -m hpotune.finetune`."""
