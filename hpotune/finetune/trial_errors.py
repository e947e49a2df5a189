"""Why a trial ends without a value: each error knows the cause that stands in result.json.

HpotuneError
└── TrialError          unknown
    ├── UserError       user    the point of the study cannot be trained as written
    ├── DataError       data    the training data is not what the study file says
    ├── NotFinite       nan     the loss or the adapter diverged
    └── TruthFailure    truth   a truth check failed: the number would have been a lie
Paused                  not a failure: a signal asked for a checkpoint, and it is written
"""

from __future__ import annotations

from hpotune.errors import HpotuneError
from hpotune.records.trial import Cause


class TrialError(HpotuneError):
    """A trial that cannot give a value."""

    cause: Cause = "unknown"


class UserError(TrialError, ValueError):
    """The point cannot be trained as written."""

    cause = "user"


class DataError(TrialError, ValueError):
    """The training data does not hold what the study file says."""

    cause = "data"


class NotFinite(TrialError, ValueError):
    """The loss, a gradient or the adapter is infinite or NaN."""

    cause = "nan"


class TruthFailure(TrialError):
    """A truth check failed."""

    cause = "truth"


class Paused(Exception):
    """The trial stopped where it was told to, with a checkpoint."""
