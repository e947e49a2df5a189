"""The cause of a failed trial, and its message: who must act, decided by where the error was raised, not by its class.

an error of hpotune (TrialError)          its own cause; disk, memory or node where that is behind it
code of the model's repository or a task  user
rows, while they are prepared             data
an installed library                      library
hpotune itself                            unknown
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from hpotune.finetune.trial_errors import TrialError
from hpotune.records.error_origin import CodeLine, after_own_code, code_lines, error_chain, reason
from hpotune.records.failure_causes import cause_of_error
from hpotune.records.trial import Cause, Failure

_PHASES = {
    "load": "while loading the base model",
    "data": "while preparing the rows",
    "check": "while attaching or checking the adapter",
    "train": "while training",
    "checkpoint": "while writing a checkpoint",
    "save": "while saving the weights",
    "score": "while scoring",
}
"""Phase of TrialOutput -> when the error happened."""
_LOST_RANK = re.compile(
    r"gloo.*(connection (reset|closed) by peer|broken pipe)|ncclRemoteError|remote process exited",
    re.I | re.S,
)
"""What gloo and NCCL say in a rank when the connection to another one breaks."""
_OF_ROWS = "hpotune/finetune/data/"


def failure_of(error: BaseException, *, phase: str | None) -> Failure:
    """The failure of an exception that ended a phase of the trial (None: outside of all phases)."""
    named = [cause_of_error(one) for one in error_chain(error)]
    of_machine = next((cause for cause in named if cause is not None), None)
    if isinstance(error, TrialError):
        text = str(error).strip().replace("\n", "; ")
        return Failure(cause=of_machine or error.cause, message=text)
    lines = code_lines(error)
    cause = of_machine or _cause_of_code(error, lines, phase)
    details = "; ".join(filter(None, [_PHASES.get(phase or ""), _where(lines)]))
    return Failure(cause=cause, message=f"{reason(error)} ({details})" if details else reason(error))


def is_lost_rank(error: BaseException) -> bool:
    """Whether the error only says that another rank has gone: what ended that one is the cause of the failure."""
    return any(_LOST_RANK.search(str(one)) for one in error_chain(error))


def _cause_of_code(error: BaseException, lines: Sequence[CodeLine], phase: str | None) -> Cause:
    own, called = after_own_code(lines)
    if any(line.owner == "user" for line in called):
        return "user"
    if any(isinstance(one, ImportError) for one in error_chain(error)):
        return "library"
    if phase == "data" and own is not None and own.text.startswith(_OF_ROWS):
        return "data"
    return "library" if called else "unknown"


def _where(lines: Sequence[CodeLine]) -> str:
    """The last line of the user's code, else the last of hpotune's with the library that raised the error."""
    own, called = after_own_code(lines)
    of_user = [line for line in called if line.owner == "user"]
    if of_user:
        return f"at {of_user[-1].text}"
    raised = f"in {called[-1].library}, called " if called else ""
    return "" if own is None else f"{raised}at {own.text}"
