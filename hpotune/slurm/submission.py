"""One call of sbatch, made so that its job is found where the answer is lost, and is never submitted twice.

The name of the script holds a token, which squeue, scontrol and sacct show. Script and record lie in jobs/ until the
job is known: what a crash or a lost answer leaves there, the next submission looks up. A job that nobody has recorded
records itself when it starts, or ends if its array was submitted again meanwhile.
"""

from __future__ import annotations

import getpass
import json
import re
import time
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from hpotune.config.json_file import optional_object
from hpotune.errors import ClusterError
from hpotune.slurm.cluster_limits import refusal_error
from hpotune.slurm.commands import (
    CommandMissing,
    ControllerUnreachable,
    NoAnswer,
    UnreadableAnswer,
    command_answer,
    run_command,
    submitted_id,
)
from hpotune.workspace.atomic_files import write_atomic

VARIABLE = "HPOTUNE_SUBMISSION"
"""In a job: the token of its submission."""
SBATCH_S = 300
"""Seconds that sbatch may take; it gives up by itself after the cluster's MessageTimeout."""
PAUSES_S = (2.0, 5.0, 10.0)
"""Between the attempts where the controller cannot be reached, or did not get the job."""
LOOKS_S = (0.0, 5.0, 10.0, 20.0)
"""Pauses before the questions whether a job is in the queue: a controller that is busy may record it late."""
_PREFIX = ".submission_file_"


def submit_script(jobs: Path, text: Callable[[str], str], record: Mapping[str, object]) -> str:
    """Submit a job and record it; returns its id. Its script is kept as jobs/ID/ID_submission.sh.

    `text`: the script with this token. `record`: what job.json says of the job, without its id.

    Raises: ClusterError with Slurm's message where it refuses, ControllerUnreachable; NoAnswer where it is not known
        whether Slurm has the job: then the next submission of the study finds out.
    """
    jobs.mkdir(parents=True, exist_ok=True)
    token = uuid.uuid4().hex
    script = _script(jobs, token)
    script.write_text(text(token), encoding="utf-8")
    write_atomic(script.with_suffix(".json"), json.dumps(record) + "\n")
    for pause_s in (*PAUSES_S, None):
        try:
            job_id = _call_sbatch(script, token)
        except (_NotSubmitted, ControllerUnreachable) as error:
            if pause_s is not None:
                time.sleep(pause_s)
                continue
            if isinstance(error, ControllerUnreachable):
                _forget(script)
            raise
        except (NoAnswer, UnreadableAnswer):
            raise
        except ClusterError:
            _forget(script)
            raise
        break
    _record(jobs, job_id, token)
    return job_id


class _NotSubmitted(NoAnswer):
    """sbatch gave no answer, and Slurm does not have the job."""


def _call_sbatch(script: Path, token: str) -> str:
    """The id of the job; the same one where an earlier call was accepted after all."""
    try:
        answer = command_answer(["sbatch", str(script)], answer_s=SBATCH_S)
        if answer.code:
            raise refusal_error(answer.err or answer.out)
        return submitted_id(answer.out)
    except (NoAnswer, UnreadableAnswer) as error:
        for pause_s in LOOKS_S:
            time.sleep(pause_s)
            try:
                found = _find(token)
            except ClusterError as silent:
                raise NoAnswer(
                    f"{error}; and whether Slurm has the job cannot be asked ({silent}): the next `hpotune submit` or "
                    "`resume` finds out"
                ) from None
            if found:
                return found[0]
        raise _NotSubmitted(f"{error}; Slurm does not have the job") from None


def _find(token: str) -> list[str]:
    """The ids of jobs with this token, oldest first.

    Raises: ClusterError where no command can tell.
    """
    user, found = getpass.getuser(), list[str]()
    asked = False
    for command, form in (
        (["squeue", "-u", user, "-t", "all", "-o", "%F|%o"], rf"^\s*(\d+)\|.*{token}"),
        (["scontrol", "show", "job", "-o"], rf"^JobId=(?=\d+ ArrayJobId=(\d+)|(\d+)).*{token}"),
        (["sacct", "-X", "-P", "-S", "now-7days", "-u", user, "-o", "JobID,SubmitLine"], rf"^(\d+).*{token}"),
    ):
        if asked and command[0] == "scontrol":
            continue
        try:
            text = run_command(command)
        except CommandMissing:
            continue
        except ClusterError:
            if command[0] == "sacct" and asked:  # no accounting
                continue
            raise
        if command[0] == "squeue" and "COMMAND" not in text:
            raise UnreadableAnswer("squeue printed no table of jobs; is it Slurm's own?")
        asked = asked or command[0] != "sacct"
        found += [next(filter(None, match.groups())) for match in re.finditer(form, text, re.MULTILINE)]
        if found:
            break
    if not asked and not found:
        raise CommandMissing("neither squeue nor scontrol is installed here")
    return sorted(set(found), key=int)


def _script(jobs: Path, token: str) -> Path:
    return jobs / f"{_PREFIX}{token}.sh"


def _forget(script: Path) -> None:
    for path in (script, script.with_suffix(".json")):
        path.unlink(missing_ok=True)


def _record(jobs: Path, job_id: str, token: str) -> None:
    """Write job.json and move the script beside it. Two processes may do so at once."""
    script = _script(jobs, token)
    record = optional_object(script.with_suffix(".json"))
    if record is None:
        return
    write_atomic(jobs / job_id / "job.json", json.dumps({"id": job_id, **record, "token": token}) + "\n")
    with suppress(FileNotFoundError):
        script.rename(jobs / job_id / f"{job_id}_submission.sh")
    _forget(script)


def open_submissions(jobs: Path) -> list[Path]:
    """The scripts of submissions whose job is not known yet."""
    return [note.with_suffix(".sh") for note in sorted(jobs.glob(f"{_PREFIX}*.json"))]


def adopt_lost(jobs: Path) -> list[str]:
    """Record the jobs of submissions that a crash or a lost answer left open; returns their ids.

    One that Slurm does not have is forgotten. Only while no other process submits.

    Raises: ClusterError where Slurm cannot be asked.
    """
    adopted = []
    for note in sorted(jobs.glob(f"{_PREFIX}*.json")):
        token = note.stem.removeprefix(_PREFIX)
        if found := _find(token):
            _record(jobs, found[0], token)
            adopted.append(found[0])
        _forget(note.with_suffix(".sh"))
    return adopted


def belongs_to_study(jobs: Path, env: Mapping[str, str]) -> bool:
    """Whether this job is one that the study knows, or is recorded now; False for an array that was submitted again.

    True for jobs that hpotune did not submit.
    """
    token, job = env.get(VARIABLE), env.get("SLURM_ARRAY_JOB_ID")
    if not token or job is None or (jobs / job / "job.json").exists():
        return True
    if _script(jobs, token).with_suffix(".json").exists():
        _record(jobs, job, token)
        return True
    records = (optional_object(path) for path in jobs.glob("*/job.json"))
    return not any(record is not None and record.get("token") == token for record in records)
