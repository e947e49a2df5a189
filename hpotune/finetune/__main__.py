"""`python -m hpotune.finetune SPEC.json`: one rank of one trial. It writes result.json and exits with 0 or 1.

With `--serve FOLDER` it is a rank that runs one trial after another (warm/server.py).
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from hpotune.finetune.model import hub
from hpotune.finetune.trial_imports import import_training
from hpotune.finetune.warm.orders import log_to
from hpotune.records.failure_causes import FULL_DISK_EXIT, cause_of_error
from hpotune.records.trial import Failure, TrialSpec

if TYPE_CHECKING:
    import torch

    from hpotune.finetune.output import TrialOutput
    from hpotune.finetune.warm.kept import Kept


def main(file: Path, *, kept: Kept | None = None, started: float | None = None) -> int:
    """Train and score the trial of the spec; every failure is caught here and written to result.json with its cause.

    `kept`: what this process has from earlier trials; None: it runs this one alone. `started`: in Unix seconds.
    """
    started = time.time() if started is None else started
    signals: list[int] = []

    def record_signal(number: int, _: FrameType | None) -> None:
        signals.append(number)
        if kept is not None and kept.ranks is not None:  # the worker, which copies their output, may be gone
            log_to(file.parent)

    for number in (signal.SIGUSR2, signal.SIGTERM):
        signal.signal(number, record_signal)
    spec = TrialSpec.model_validate_json(file.read_text())
    Path(spec.folder).mkdir(parents=True, exist_ok=True)
    hub.prepare_environment(offline=spec.offline, fetched=spec.fetched)
    if kept is None:
        import_training()

    # Not earlier: transformers and datasets read their environment at import.
    from hpotune.finetune.distributed.ranks import RankInfo, destroy_ranks, init_ranks, read_rank_info
    from hpotune.finetune.energy import energy_meter
    from hpotune.finetune.output import RESULT, TrialOutput, measured_cost
    from hpotune.finetune.pipeline import run_trial
    from hpotune.finetune.provenance_record import ProvenanceRecord
    from hpotune.finetune.trial_errors import Paused

    met = None if kept is None else kept.ranks
    info = read_rank_info(os.environ) if met is None else RankInfo(rank=met.rank, world_size=met.world_size)
    folder = Path(spec.folder)
    output = TrialOutput(folder=folder, number=spec.number, is_main=info.rank == 0, started=started)
    record = None
    if info.rank == 0:
        if met is None:  # ranks that have met: another one may have written it just now
            (folder / RESULT).unlink(missing_ok=True)
        record = ProvenanceRecord(
            spec, ranks=info.world_size, earlier_trials=0 if kept is None else kept.trials
        )
    try:
        if record is not None:
            record.start()
        with output.phase("load", since=started, shown="start"):  # the imports above take most of it
            ranks = met or init_ranks(info, os.environ, folder=folder)
            output.energy = energy_meter(ranks.device)
        try:
            result = run_trial(
                spec, ranks=ranks, output=output, stop_requested=lambda: bool(signals), kept=kept
            )
            if record is not None:
                record.finish(output.inputs, energy_wh=output.energy_wh)
            output.write_result(result)
        except Paused:
            output.metrics.update(measured_cost(output, ranks))
            output.write_result(output.result("paused"))
        if met is None:
            destroy_ranks(ranks)
    except Exception as error:
        _write_failure(error, output, world_size=info.world_size)
        return 1
    return 0


def _write_failure(error: Exception, output: TrialOutput, *, world_size: int) -> None:
    """Write the failure. One of several ranks exits at once, because the others wait for it in a collective.

    A rank that only lost another one writes none: that one has, or was killed, which its launcher knows.
    """
    from hpotune.finetune.output import own_cost
    from hpotune.finetune.trial_failure import is_lost_rank

    with suppress(OSError):
        traceback.print_exc(file=sys.stderr)
    if world_size == 1 or not is_lost_rank(error):
        output.metrics.update(own_cost(output, _device(), world_size=world_size))
        output.write_result(output.result("failed", failure=_failure(error, phase=output.failed_phase)))
    if world_size > 1:
        sys.stderr.flush()
        hub.delete_private_cache()
        os._exit(1)


def _failure(error: Exception, *, phase: str | None = None) -> Failure:
    """The cause of a failure, and one line for the table."""
    from hpotune.finetune.trial_failure import failure_of

    failure = failure_of(error, phase=phase)
    if failure.cause != "oom":
        return failure
    return Failure(cause="oom", message=f"out of memory at a peak of {_peak_gb():.1f} GB; {failure.message}")


def _peak_gb() -> float:
    from hpotune.finetune.output import peak_memory_gb

    return peak_memory_gb(_device())


def _device() -> torch.device:
    import torch

    cuda = torch.cuda.is_available()
    return torch.device("cuda", torch.cuda.current_device()) if cuda else torch.device("cpu")


def ended(run: Callable[[], int]) -> int:
    """The exit code of a run; a full disk on which not even its failure could be written ends this process.

    The worker has nothing else to know it by: the log may be on the same disk, which may have room again by then.
    """
    try:
        return run()
    except OSError as error:
        if cause_of_error(error) != "store":
            raise
        with suppress(OSError):
            traceback.print_exc(file=sys.stderr)
        hub.delete_private_cache()
        os._exit(FULL_DISK_EXIT)  # at an ordinary exit, what cannot be printed changes the exit code


if __name__ == "__main__":
    if sys.argv[1] == "--serve":
        from hpotune.finetune.warm.server import serve

        sys.exit(ended(lambda: serve(main, Path(sys.argv[2]))))
    sys.exit(ended(lambda: main(Path(sys.argv[1]))))
