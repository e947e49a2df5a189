"""HOW a trial gets its value: three objectives behind one call, `evaluate(pack) -> results`, each in processes of its own.

finetune starts the ranks of `python -m hpotune.trial`, function and command run what the user wrote. None is imported here.
"""
