"""`python -m hpotune.finetune SPEC.json`: one rank of one trial. The result is a file, the exit code 0 or 1."""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hpotune.finetune.model import hub
from hpotune.records.failure_causes import cause_of
from hpotune.records.trial import Failure, TrialSpec

if TYPE_CHECKING:
    import torch

    from hpotune.finetune.output import Report


def main(file: Path) -> int:
    """Trains and scores the trial of the spec; every failure ends here, as result.json with its cause."""
    started = time.time()
    told: list[int] = []

    def tell(number: int, _: FrameType | None) -> None:
        told.append(number)

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, tell)
    spec = TrialSpec.model_validate_json(file.read_text())
    Path(spec.folder).mkdir(parents=True, exist_ok=True)
    hub.prepare(offline=spec.offline)

    # Only now: transformers and datasets read their environment at import.
    from hpotune.finetune.distributed import ranks as meeting
    from hpotune.finetune.output import RESULT, Report, cost
    from hpotune.finetune.pipeline import run
    from hpotune.finetune.trial_errors import Paused

    where = meeting.place(os.environ, number=spec.number)
    folder = Path(spec.folder)
    report = Report(folder=folder, number=spec.number, first_one=where.rank == 0, started=started)
    if where.rank == 0:
        (folder / RESULT).unlink(missing_ok=True)  # of an earlier attempt
    try:
        with report.phase("load", since=started):  # the imports above are most of it
            ranks = meeting.start(where, os.environ)
        try:
            report.hand_in(run(spec, ranks=ranks, report=report, stop=lambda: bool(told)))
        except Paused:
            report.metrics.update(cost(report, ranks))
            report.hand_in(report.result("paused"))
        meeting.stop(ranks)
    except Exception as error:
        _fail(error, report, world_size=where.world_size)
        return 1
    return 0


def _fail(error: Exception, report: Report, *, world_size: int) -> None:
    """Hands in the failure; a rank among others ends at once, for the rest wait for it in a collective."""
    from hpotune.finetune.output import cost_seen

    traceback.print_exc(file=sys.stderr)
    report.metrics.update(cost_seen(report, _device(), world_size=world_size))
    report.hand_in(report.result("failed", failure=_failure(error)))
    if world_size > 1:
        sys.stderr.flush()
        hub.remove_private()
        os._exit(1)


def _failure(error: Exception) -> Failure:
    """The cause of a failure, and one line for the table."""
    import torch

    from hpotune.finetune.trial_errors import TrialError

    message = str(error).strip().splitlines() or [""]
    line = f"{type(error).__name__}: {message[0]}"
    if isinstance(error, TrialError):
        return Failure(cause=error.cause, message=str(error).strip().replace("\n", "; "))
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return Failure(cause="oom", message=f"out of memory at a peak of {_peak_gb():.1f} GB; {message[0]}")
    if named := cause_of([line]):
        return Failure(cause=named[0], message=line)
    known = isinstance(error, (ValueError, TypeError, OSError, ImportError, KeyError))
    return Failure(cause="user" if known else "unknown", message=line)


def _peak_gb() -> float:
    from hpotune.finetune.output import peak_memory_gb

    return peak_memory_gb(_device())


def _device() -> torch.device:
    import torch

    cuda = torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
