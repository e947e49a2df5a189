"""What a user's own trainer calls inside a trial: parameters, reports, checkpoints, and whether to stop.

Outside hpotune these functions do nothing, so that a program runs as it did. Nothing but the standard library is
imported; transformers by `trainer_callback` alone, when `hpotune.TrainerCallback` is used.
"""
