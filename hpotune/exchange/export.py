"""Exports a trial: what it trained with a model card, and its values as a study file without ranges."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hpotune.config.load import Study
from hpotune.config.space.ranges import put_point, without
from hpotune.config.training_method import ADAPTER_FOLDER, MODEL_FOLDER, trains_whole
from hpotune.config.yaml_source import KeyPath, write_yaml
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.exchange.generation_export import settings_page, write_generation_config
from hpotune.exchange.model_card import model_card
from hpotune.records.trial import TrialRow
from hpotune.schedule.best_trials import best_trials
from hpotune.workspace.atomic_files import set_usual_mode, write_atomic
from hpotune.workspace.fetched_lock import located, lock_file, read_lock
from hpotune.workspace.folder import StudyFolder

_ONLY_WITH_RANGES: tuple[KeyPath, ...] = (
    ("constraints",),
    ("search", "start_from"),
)
"""Keys that are errors in a study file without ranges."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WrittenWeights:
    """What `hpotune.finetune.model.adapter_export` reports."""

    labels: tuple[str, ...] = ()
    """The names of the classes; empty for a language model."""
    losses: tuple[float, float] | None = None
    """Of a fixed batch: base model with adapter, merged weights; None: not merged."""
    whole: bool = False
    """Whether it is a whole model, of which all weights were trained."""


def export_trial(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], *, out: Path, number: int | None, merge: bool
) -> Path:
    """Writes the folder `out` and returns its path: setting.yaml; of a fine-tuning study also weights and README.md.

    Also generation_config.json where the trial has settings of `score.generation`.
    Raises: HpotuneError where the trial has not finished or its adapter was not kept, StudyFileError where `out`
    exists, or weights are to be merged and nothing was trained, or the objective is the user's own code.
    """
    if merge and study.config.model is not None and not study.config.trains:
        raise StudyFileError(
            f"--merge: {study.config.name} trained no weights (it has no data:); leave it out"
        )
    if merge and study.config.model is None:
        own = "python" if study.config.python else "command"
        raise StudyFileError(
            f"--merge: {study.config.name} has no model to merge, since it has {own}:; leave it out"
        )
    row = selected_trial(study, rows, number)
    with staged_folder(out) as staged:
        if study.config.model is not None and not study.config.trains:
            write_atomic(staged / "README.md", settings_page(study, row))
        elif study.config.model is not None:
            written = _write_weights(folder, study, row, out=staged / "weights", merge=merge)
            for path in (staged / "weights").iterdir():
                path.rename(staged / path.name)
            (staged / "weights").rmdir()
            card = model_card(
                folder, study, rows, row, labels=written.labels, losses=written.losses, whole=written.whole
            )
            write_atomic(staged / "README.md", card)
        write_generation_config(staged, study, row)
        write_atomic(staged / "setting.yaml", setting_text(study, row))
    return out


def setting_text(study: Study, row: TrialRow) -> str:
    """The trial's values as a study file without ranges, for one trial, and the baseline where the study has one."""
    values = without(put_point(study.template, study.space, row.params), _ONLY_WITH_RANGES)
    trials = 2 if study.config.has_baseline else 1
    given = values.get("budget")
    budget = {**(given if isinstance(given, dict) else {}), "trials": trials}
    if "parallel" in budget:
        budget["parallel"] = min(study.config.budget.parallel, trials)
    return write_yaml({**values, "budget": budget})


@contextmanager
def staged_folder(out: Path) -> Iterator[Path]:
    """A context with a new folder beside `out` that becomes `out` at its end, and is removed after an error.

    Raises: StudyFileError where `out` exists.
    """
    if os.path.lexists(out):
        raise StudyFileError(f"{out}: exists already; give a folder that does not exist")
    staged = out.with_name(f"{out.name}.{secrets.token_hex(8)}")
    staged.mkdir(parents=True)
    try:
        yield staged
        set_usual_mode(staged)
        staged.rename(out)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def selected_trial(study: Study, rows: Sequence[TrialRow], number: int | None) -> TrialRow:
    """The trial of a number, or the best one.

    Raises: HpotuneError where none has finished, StudyFileError for a number that names no finished trial.
    """
    if number is None:
        front = best_trials(study.config.score.objective, rows, study.config.best)
        if not front:
            limits = "score.constraints" if study.config.best is None else "score.constraints and best"
            raise HpotuneError(
                f"{study.config.name}: no finished trial satisfies {limits}; see `hpotune best`"
            )
        return front[0]
    for row in rows:
        if row.number == number and row.state == "finished" and row.kind == "trial":
            return row
    raise StudyFileError(f"--trial {number} has not finished or is the baseline; `hpotune trials` lists them")


def run_finetune_module(module: str, arguments: Sequence[str], request: str) -> dict[str, Any]:
    """What `python -m hpotune.finetune.MODULE` prints as JSON; `request` is its input.

    Raises: HpotuneError with the last line of its errors.
    """
    command = [sys.executable, "-m", f"hpotune.finetune.{module}", *arguments]
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, input=request, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        lines = [line for line in done.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise HpotuneError(lines[-1])
    answer: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return answer


def _write_weights(
    folder: StudyFolder, study: Study, row: TrialRow, *, out: Path, merge: bool
) -> WrittenWeights:
    trial = folder.trusted_trial(row.number)
    whole = trains_whole(study.point(row.params).train)
    trained = trial / (MODEL_FOLDER if whole else ADAPTER_FOLDER)
    if not trained.is_dir():
        raise HpotuneError(
            f"trial {row.number}: its {trained.name} was not kept ({trained}); raise keep.best in a new study"
        )
    lock = read_lock(lock_file(folder.path))
    model = located(study.point(row.params), lock).model
    assert model is not None, "asked for fine-tuning studies only"
    request = {
        "base": model.path,
        "revision": model.revision,
        "tokenizer": model.tokenizer,
        "problem_type": model.problem_type,
        "quantization": model.quantization,
        "trust_remote_code": model.trust_remote_code,
        "offline": study.config.env.offline,
    }
    arguments = [str(trained), str(out), *(["--merge"] if merge else [])]
    try:
        answer = run_finetune_module("model.adapter_export", arguments, json.dumps(request))
    except HpotuneError as error:
        raise HpotuneError(f"trial {row.number} could not be exported: {error}") from error
    losses = answer.get("losses")
    return WrittenWeights(
        labels=tuple(answer["labels"]),
        losses=tuple(losses) if losses else None,
        whole=bool(answer["whole"]),
    )
