"""Runs Slurm's commands, each once, and converts their error messages into errors with a kind. Never asks in a loop."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence

from hpotune.errors import ClusterError

TIMEOUT_S = 60
"""Seconds that a Slurm command may take to answer."""
_NOT_RUN = (126, 127)
"""A shell's exit codes for a command that it may not run, or does not find: what a site's wrapper gives."""


_UNREACHABLE = ("contact", "connect", "fetch config")
"""Words in the errors of Slurm's commands when the controller cannot be reached."""


class CommandMissing(ClusterError):
    """The command is not installed here; another one may give the same answer."""


class ControllerUnreachable(ClusterError):
    """The controller cannot be reached: nothing has happened, and the same call may succeed later."""


class NoAnswer(ClusterError):
    """The command gave no answer in time. A question may be repeated; a submission may have been accepted."""


def require_slurm() -> None:
    """Raises: ClusterError where Slurm's commands are not installed."""
    missing = [name for name in ("sbatch", "srun") if shutil.which(name) is None]
    if missing:
        raise ClusterError(
            f"{' and '.join(missing)} not found: Slurm is not installed here; use a login node, or `hpotune run`"
        )


def run_command(command: Sequence[str], *, answer_s: float = TIMEOUT_S) -> str:
    """The standard output of a Slurm command.

    Raises: CommandMissing where it is not installed, NoAnswer after `answer_s` seconds, ControllerUnreachable, and
        ClusterError for any other failure.
    """
    missing = f"{command[0]} not found; run this on a machine with Slurm's commands"
    env = {**os.environ, "SLURM_BITSTR_LEN": "0"}  # else long lists of array elements end in "..."
    try:
        answer = subprocess.run(
            command, capture_output=True, text=True, timeout=answer_s, check=True, env=env
        )
    except (FileNotFoundError, PermissionError):
        raise CommandMissing(missing) from None
    except subprocess.TimeoutExpired:
        raise NoAnswer(f"{command[0]} did not answer within {answer_s:g} s; try again later") from None
    except subprocess.CalledProcessError as error:
        if error.returncode in _NOT_RUN:
            raise CommandMissing(missing) from None
        message = f"{command[0]} failed: {error_line(error.stderr)}; is the controller running? `hpotune doctor` checks"
        raise error_kind(error.stderr)(message) from None
    return answer.stdout


def error_kind(text: str) -> type[ClusterError]:
    """The error class for a message of Slurm's commands, whose exit codes do not distinguish them."""
    lower = text.lower()
    if any(word in lower for word in _UNREACHABLE):
        return ControllerUnreachable
    return NoAnswer if "timed out" in lower else ClusterError


def error_line(text: str) -> str:
    """Slurm's own message in a longer text: the last line that holds `error`, else the last line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    line = (errors or lines or ["no reason given"])[-1]
    return line.removeprefix("sbatch: error: ").removeprefix("subprocess.CalledProcessError: ")
