"""Exports the setting of a trial: as a study file without ranges, a program, or the config of another tool."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from hpotune.config.load import Study
from hpotune.errors import StudyFileError, nearest
from hpotune.exchange.export import run_finetune_module, selected_trial, setting_text, staged_folder
from hpotune.exchange.formats.axolotl_config import axolotl_config
from hpotune.exchange.formats.litgpt_config import litgpt_config
from hpotune.exchange.formats.llama_factory_config import llama_factory_config
from hpotune.exchange.formats.portable_script import portable_script
from hpotune.exchange.formats.tool_file import ToolFile
from hpotune.exchange.formats.trl_config import trl_config
from hpotune.exchange.trial_setting import TrialSetting, trial_setting
from hpotune.records.trial import TrialRow
from hpotune.workspace.atomic_files import write_atomic
from hpotune.workspace.fetched_lock import located, lock_file, read_lock
from hpotune.workspace.folder import StudyFolder

SettingFormat = Literal["study", "script", "axolotl", "trl", "llama-factory", "litgpt"]
FORMATS: tuple[str, ...] = get_args(SettingFormat)
_FILES: dict[str, Callable[[TrialSetting], ToolFile]] = {
    "script": portable_script,
    "axolotl": axolotl_config,
    "trl": trl_config,
    "llama-factory": llama_factory_config,
    "litgpt": litgpt_config,
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExportedSetting:
    """What was written."""

    file: Path
    notes: tuple[str, ...]
    """What the file cannot say; one line each."""


def export_setting(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], *, out: Path, number: int | None, form: str
) -> ExportedSetting:
    """Write the folder `out`: the trial's setting, and for programs and tools the rows that it trained (`rows/`).

    Raises: StudyFileError for an unknown format, an `out` that exists, or a setting that the tool cannot express;
    HpotuneError where the rows cannot be read.
    """
    if form not in FORMATS:
        raise StudyFileError(f"--as {form!r}: is no format; {nearest(form, FORMATS)}")
    row = selected_trial(study, rows, number)
    with staged_folder(out) as staged:
        if form == "study":
            file = ToolFile(name="study.yaml", text=setting_text(study, row), rows="tokens", notes=())
        else:
            file = _tool_file(folder, study, row, staged=staged, form=form)
        write_atomic(staged / file.name, file.text)
    return ExportedSetting(file=out / file.name, notes=file.notes)


def _tool_file(folder: StudyFolder, study: Study, row: TrialRow, *, staged: Path, form: str) -> ToolFile:
    """The file of a tool, whose rows are written to `staged`."""
    setting = trial_setting(study, row, prepared=str(folder.prepared))
    first = _FILES[form](
        trial_setting(study, row, prepared=str(folder.prepared))
    )  # refuses before rows are read
    request = {
        "form": first.rows,
        "point": located(setting.point, read_lock(lock_file(folder.path))).model_dump(mode="json"),
        "data_root": setting.data_root,
        "offline": setting.offline,
        "prepared": setting.prepared,
    }
    answer = run_finetune_module("data.row_export", [str(staged)], json.dumps(request))
    model = str(answer["model"])
    if model == setting.model.path:
        return first
    # a file of a package, or a GGUF file: the tools load the folder that it was converted to
    point = setting.point.model_copy(update={"model": setting.model.model_copy(update={"path": model})})
    return _FILES[form](replace(setting, point=point))
