"""Runs Slurm's commands, each once, and converts their error messages into errors with a kind. Never asks in a loop.

All of hpotune's calls go through `run_command` or `command_answer`: any bytes are read, every call has a time limit,
and `limited_time` bounds what several of them take together.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field

from hpotune.errors import ClusterError
from hpotune.slurm.command_process import MAX_BYTES, Answer, TooMuchOutput, communicate

TIMEOUT_S = 60
"""Seconds that a Slurm command may take to answer."""
STATUS_S = 40.0
"""Seconds that all commands of a verb that only looks may take together."""
SUBMIT_S = 180.0
"""Seconds that all questions of a verb that submits or cancels may take together; sbatch and scancel always run."""
_NOT_RUN = (126, 127)
"""A shell's exit codes for a command that it may not run, or does not find: what a site's wrapper gives."""
_UNREACHABLE = re.compile(
    r"unable to (contact|connect|establish)|connect failure|connection (refused|reset|failure|timed out)"
    r"|communication (connection|message|shutdown)|fetch (remote )?config|configuration source|zero bytes were"
    r"|transport endpoint|no route to host|host is unreachable"
)
"""In the errors of Slurm's commands when a daemon cannot be reached; a site's own text may say "contact support"."""
_OF_ACCOUNTING = ("sacct", "sacctmgr", "sreport")
"""Commands that ask slurmdbd; the others ask slurmctld."""
_ACTIONS = ("sbatch", "scancel")
_DEFAULTS = ("SQUEUE_", "SACCT_", "SINFO_", "SCONTROL_")
"""Variables of a user's own defaults for these commands: they hide jobs and change columns."""
_WIDTH = 300
"""Characters of a command's message that are shown."""


class CommandMissing(ClusterError):
    """The command is not installed here; another one may give the same answer."""


class ControllerUnreachable(ClusterError):
    """The controller cannot be reached: nothing has happened, and the same call may succeed later."""


class NoAnswer(ClusterError):
    """The command gave no answer in time. A question may be repeated; a submission may have been accepted."""


class UnreadableAnswer(NoAnswer):
    """The command printed something else than Slurm does; what it was asked stays unknown."""


@dataclass(kw_only=True, slots=True)
class Allowance:
    """What the commands of one verb may still take, and what it has learned from them."""

    left_s: float
    facts: dict[str, Mapping[str, str]] = field(default_factory=dict)
    """Answers that do not change while the verb runs."""
    silent: dict[bool, str] = field(default_factory=dict)
    """By whether it asks accounting: the command that did not answer."""


_allowance: ContextVar[Allowance | None] = ContextVar("slurm_allowance", default=None)


@contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Within it questions to Slurm take at most `seconds` together.

    After one command got no answer in time, no other one asks the same daemon. Unless it is nested, time outside the
    commands does not count.
    """
    if _allowance.get() is not None:
        yield
        return
    token = _allowance.set(Allowance(left_s=seconds))
    try:
        yield
    finally:
        _allowance.reset(token)


def run_allowance() -> Allowance | None:
    """That of the verb that runs; None outside `limited_time`, in jobs."""
    return _allowance.get()


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
    answer = command_answer(command, answer_s=answer_s)
    if answer.code:
        message = f"{command[0]} failed: {error_line(answer.err)}; is the controller running? `hpotune doctor` checks"
        raise error_kind(answer.err)(message)
    return answer.out


def command_answer(command: Sequence[str], *, answer_s: float = TIMEOUT_S) -> Answer:
    """What a Slurm command printed, and its exit code.

    Raises: CommandMissing where it is not installed, NoAnswer after `answer_s` seconds or beyond `limited_time`.
    """
    name, allowance = command[0], _allowance.get()
    if name not in _ACTIONS and "--version" not in command and allowance is not None:
        answer_s = min(answer_s, _time_left(allowance, name))
    started = time.monotonic()
    try:
        answer = communicate(command, env=_environment(name), answer_s=answer_s)
    except subprocess.TimeoutExpired:
        if allowance is not None:
            allowance.silent[name in _OF_ACCOUNTING] = name
        raise NoAnswer(f"{name} did not answer within {answer_s:.0f} s; try again later") from None
    except TooMuchOutput:
        raise UnreadableAnswer(
            f"{name} printed more than {MAX_BYTES >> 20} MiB; is it Slurm's own?"
        ) from None
    except OSError as error:
        if not isinstance(error, (FileNotFoundError, PermissionError)):
            raise ClusterError(f"{name} cannot be started: {error.strerror or error}") from None
        answer = None
    finally:
        if allowance is not None:
            allowance.left_s -= time.monotonic() - started
    if answer is None or answer.code in _NOT_RUN:
        raise CommandMissing(f"{name} not found; run this on a machine with Slurm's commands")
    return answer


def _time_left(allowance: Allowance, name: str) -> float:
    """Raises: NoAnswer where the daemon is silent or the time is used up."""
    if silent := allowance.silent.get(name in _OF_ACCOUNTING):
        raise NoAnswer(f"{name} was not asked, since {silent} did not answer; try again later")
    if allowance.left_s < 1:
        raise NoAnswer(f"{name} was not asked, since Slurm's other commands took too long; try again later")
    return allowance.left_s


def _environment(name: str) -> dict[str, str]:
    """This process's environment, for answers of a known form; for sbatch unchanged, since its job inherits it.

    SLURM_CONF is passed on as it is: where it is not set, Slurm finds its configuration itself.
    """
    if name in _ACTIONS:
        env = dict(os.environ)
    else:
        env = {key: value for key, value in os.environ.items() if not key.startswith(_DEFAULTS)}
        env |= {"LC_ALL": "C", "SLURM_TIME_FORMAT": "standard"}
        env["SLURM_BITSTR_LEN"] = "0"  # else long lists of array elements end in "..."
    if not env.get("SLURM_CONF"):  # an empty one is taken as a file's name
        env.pop("SLURM_CONF", None)
    return env


def submitted_id(text: str) -> str:
    """The job id in sbatch's answer, which a site's plugins may surround with their own lines.

    Raises: UnreadableAnswer where there is none: the job may have been accepted.
    """
    found = re.findall(r"Submitted batch job ([0-9]+)", text) or re.findall(
        r"^([0-9]+)(?:;\S+)?$", text, re.MULTILINE
    )
    if not found:
        raise UnreadableAnswer(f"sbatch gave no job id but {one_line(text) or 'nothing'!r}")
    return str(found[-1])


def error_kind(text: str) -> type[ClusterError]:
    """The error class for a message of Slurm's commands, whose exit codes do not distinguish them."""
    lower = text.lower()
    if _UNREACHABLE.search(lower):
        return ControllerUnreachable
    return NoAnswer if "timed out" in lower else ClusterError


def error_line(text: str) -> str:
    """Slurm's own message in a longer text: the last line that holds `error`, else the last line; one short line."""
    lines = [line for line in map(one_line, text[-100_000:].splitlines()) if line]
    errors = [line for line in lines if "error" in line.lower()]
    line = (errors or lines or ["no reason given"])[-1]
    return line.removeprefix("sbatch: error: ").removeprefix("subprocess.CalledProcessError: ")


def one_line(text: str) -> str:
    """Text of another program for a message: printable, in one line, cut where it is long."""
    plain = " ".join("".join(char if char.isprintable() else " " for char in text[:10_000]).split())
    return plain if len(plain) <= _WIDTH else f"{plain[:_WIDTH]} …"
