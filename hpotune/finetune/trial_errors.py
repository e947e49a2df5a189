"""Why a trial ends without a value: each error carries the cause that is written into result.json.

HpotuneError
└── TrialError               unknown
    ├── UserError            user    the point cannot be trained as the study file says
    │   └── ModelNotCached           the model is not downloaded
    ├── DataError            data    the training data is not what the study file says
    │   └── DatasetNotCached         the dataset is not downloaded
    ├── NotFinite            nan     the loss, a gradient or the adapter diverged
    └── SanityCheckFailure   truth   a sanity check failed, so that the score could not be trusted
RowLeftOut                   not a failure: one row cannot be used; the trial goes on without it
Paused                       not a failure: a signal requested a stop, and the checkpoint is written
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


class ModelNotCached(UserError):
    """The model is neither on this machine nor in the cache, and the trial is offline."""


class DatasetNotCached(DataError):
    """The dataset is neither on this machine nor in the cache, and the trial is offline."""


class NotFinite(TrialError, ValueError):
    """The loss, a gradient or the adapter is infinite or NaN."""

    cause = "nan"


class SanityCheckFailure(TrialError):
    """A sanity check failed."""

    cause = "truth"


class RowLeftOut(Exception):
    """One row cannot be used: it is left out and counted.

    `reason` completes the sentence `row 3 is left out: …`.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Paused(Exception):
    """The trial stopped on request, with a checkpoint."""
