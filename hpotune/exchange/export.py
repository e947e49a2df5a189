"""Exports a trial: its adapter or merged weights with a model card, and its values as a study file without ranges."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from hpotune.config.load import Study
from hpotune.config.space.ranges import put_point, without
from hpotune.config.yaml_source import KeyPath, Value, write_yaml
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.records.trial import TrialRow
from hpotune.report.json_output import as_json
from hpotune.report.views.best import best_result
from hpotune.report.views.trial_view import trial_view
from hpotune.schedule.best_trials import best_trials
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.folder import StudyFolder

_ONLY_WITH_RANGES: tuple[KeyPath, ...] = (("constraints",), ("search", "start_from"))
"""Keys that are errors in a study file without ranges."""


def export_trial(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], *, out: Path, number: int | None, merge: bool
) -> Path:
    """Writes the folder `out` and returns its path: setting.yaml; of a fine-tuning study also weights and README.md.

    Raises: HpotuneError where the trial has not finished or its adapter was not kept, StudyFileError where `out`
    exists, or weights are to be merged and the objective is the user's own code.
    """
    if merge and study.config.model is None:
        own = "python" if study.config.python else "command"
        raise StudyFileError(
            f"--merge: {study.config.name} has no model to merge, since it has {own}:; leave it out"
        )
    row = _selected_row(study, rows, number)
    if out.exists():
        raise StudyFileError(f"{out}: exists already; give a folder that does not exist")
    if study.config.model is None:
        out.mkdir(parents=True)
    else:
        _write_weights(folder, study, rows, row, out=out, merge=merge)
    setting = without(put_point(study.template, study.space, row.params), _ONLY_WITH_RANGES)
    write_atomic(out / "setting.yaml", write_yaml(setting))
    return out


def _selected_row(study: Study, rows: Sequence[TrialRow], number: int | None) -> TrialRow:
    if number is None:
        front = best_trials(study.config.score.objective, rows)
        if not front:
            raise HpotuneError(
                f"{study.config.name}: no finished trial satisfies score.constraints; see `hpotune status`"
            )
        return front[0]
    for row in rows:
        if row.number == number and row.state == "finished" and row.kind == "trial":
            return row
    raise StudyFileError(f"--trial {number} has not finished or is the baseline; `hpotune trials` lists them")


def _write_weights(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], row: TrialRow, *, out: Path, merge: bool
) -> None:
    adapter = folder.trusted_trial(row.number) / "adapter"
    if not adapter.is_dir():
        raise HpotuneError(
            f"trial {row.number}: its adapter was not kept ({adapter}); raise keep.best in a new study"
        )
    command = [
        sys.executable,
        "-m",
        "hpotune.finetune.model.adapter_export",
        str(adapter),
        str(out),
        *(["--merge"] if merge else []),
    ]
    card = json.dumps(_model_card(folder, study, rows, row))
    answer = subprocess.run(command, input=card, capture_output=True, text=True, check=False)
    if answer.returncode:
        lines = [line for line in answer.stderr.splitlines() if line.strip()] or ["no reason given"]
        raise HpotuneError(f"trial {row.number} could not be exported: {lines[-1]}")


def _model_card(folder: StudyFolder, study: Study, rows: Sequence[TrialRow], row: TrialRow) -> Value:
    """What the model card says, as `hpotune.finetune.model.adapter_export` reads it."""
    model = study.point(row.params).model
    assert model is not None, "asked for fine-tuning studies only"
    baseline = best_result(folder, study.config, rows).baseline
    return as_json(
        {
            "base": model.path,
            "revision": model.revision,
            "tokenizer": model.tokenizer,
            "trust_remote_code": model.trust_remote_code,
            "offline": study.config.env.offline,
            "params": row.params,
            "score": trial_view(study.config.score.objective, row).values,
            "baseline": baseline.values if baseline else None,
            "date": date.today().isoformat(),
        }
    )
