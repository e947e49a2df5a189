"""HOW a trial gets its value: three objectives behind one call, `evaluate(pack) -> results`, in processes of their own.

finetune starts the ranks of `python -m hpotune.finetune`, function and command run what the user wrote. None of it is
imported here.
"""
