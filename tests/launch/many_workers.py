"""Many workers on one study file: `python -m tests.launch.many_workers COUNT SPREAD_S` in the folder of study.yaml.

Each is `hpotune worker study.yaml --trials 1`, in a process of its own that need not import what takes seconds: all
are forked from this one, and begin within SPREAD_S. Prints their exit codes as JSON; worker-N.log has what each said.
"""

from __future__ import annotations

import json
import os
import sys
import time

# What workers import in their functions: for all of them once.
import numpy.random  # noqa: F401
import psycopg  # noqa: F401
import sqlalchemy.dialects.postgresql.psycopg  # noqa: F401
from alembic import command  # noqa: F401

import hpotune.launch.prepare
import hpotune.search.algorithms.random
import hpotune.slurm.job_time
import hpotune.worker  # noqa: F401
from hpotune.cli import main


def worker(number: int, *, wait_s: float) -> None:
    """As if it were a job of its own; never returns."""
    log = os.open(f"worker-{number}.log", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ["SLURM_JOB_ID"] = str(1000 + number)
    sys.argv = ["hpotune", "worker", "study.yaml", "--trials", "1"]
    time.sleep(wait_s)
    try:
        main()
    except SystemExit as end:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(end.code)
    finally:
        os._exit(99)


def many(count: int, *, spread_s: float) -> list[int]:
    """Their exit codes."""
    gate, open_gate = os.pipe()
    pids = []
    for number in range(count):
        pid = os.fork()
        if not pid:
            os.close(open_gate)
            os.read(gate, 1)  # until all are there
            worker(number, wait_s=spread_s * number / count)
        pids.append(pid)
    os.close(open_gate)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


if __name__ == "__main__":
    print(json.dumps(many(int(sys.argv[1]), spread_s=float(sys.argv[2]))))
