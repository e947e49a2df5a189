"""Runs Slurm's commands, each once, and finds in what they say the sentence that matters. No loop."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from hpotune.errors import ClusterError

TIMEOUT_S = 60
"""How long Slurm's commands may take to answer."""
_NOT_RUN = (126, 127)
"""A shell's exit codes for a command that it may not run, or does not find: what a site's wrapper gives."""


class CommandMissing(ClusterError):
    """A command is not there: another may do instead."""


def require_slurm() -> None:
    """Raises: ClusterError where Slurm's commands are not installed."""
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        raise ClusterError(
            f"{' and '.join(missing)} not found: no Slurm here; submit from a login node, or use `hpotune run`"
        )


def run_command(command: Sequence[str], *, answer_s: float = TIMEOUT_S) -> str:
    """What a command of Slurm prints.

    Raises: Absent when it is missing, ClusterError when it fails or gives no answer.
    """
    absent = f"{command[0]} not found; run this where Slurm's commands are"
    env = {**os.environ, "SLURM_BITSTR_LEN": "0"}  # else long lists of array elements end in "..."
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=answer_s, check=True, env=env
        )
    except (FileNotFoundError, PermissionError):
        raise CommandMissing(absent) from None
    except subprocess.TimeoutExpired:
        raise ClusterError(f"{command[0]} gave no answer in {answer_s:g} s; try again later") from None
    except subprocess.CalledProcessError as error:
        if error.returncode in _NOT_RUN:
            raise CommandMissing(absent) from None
        raise ClusterError(
            f"{command[0]} failed: {error_line(error.stderr)}; is the controller up? `hpotune doctor` looks"
        ) from None
    return answer.stdout


def error_line(text: str) -> str:
    """Slurm's own complaint out of a longer text: its last line that says error."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    line = (errors or lines or ["no reason given"])[-1]
    return line.removeprefix("sbatch: error: ").removeprefix("subprocess.CalledProcessError: ")
