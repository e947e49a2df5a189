"""Propose the next point with Optuna samplers. Never imports torch.

`double`, `int` and `categorical` are ranges as values of a Python program; they load nothing.
"""

from __future__ import annotations

from hpotune.search.parameter_ranges import categorical as categorical
from hpotune.search.parameter_ranges import double as double
from hpotune.search.parameter_ranges import int as int
