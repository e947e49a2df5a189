"""Where the study file of a name is, and how a drafted one is written: one that is there is never overwritten."""

from __future__ import annotations

from pathlib import Path

from hpotune.api.call_messages import python_messages
from hpotune.api.katib.study_draft import StudyDraft
from hpotune.api.study import Study
from hpotune.config.load import load_study
from hpotune.config.yaml_source import parse_source, read_source
from hpotune.errors import StudyFileError, of_disk
from hpotune.launch.build_environment import create_environment
from hpotune.workspace.atomic_files import write_atomic


def study_file(name: str, *, namespace: str | None, folder: str | Path | None) -> Path:
    """The study file of a name: NAME.yaml in the folder of the namespace, in `folder` or the current one.

    Raises: StudyFileError for a name or namespace that is no name of a file.
    """
    for argument, text in (("name", name), ("namespace", namespace)):
        if text is not None and (
            not isinstance(text, str) or not text or "/" in text or text.startswith(".")
        ):
            raise StudyFileError(
                f"{argument}: {text!r} needs letters, digits, . _ -: it names a file or folder"
            )
    return Path(folder or ".").absolute() / (namespace or "") / f"{name}.yaml"


def write_study(file: Path, draft: StudyDraft, *, program: str | None, title: str) -> bool:
    """Write the study file, and beside it the objective's program; returns whether anything was new.

    The same call again writes nothing. Raises: StudyFileError where a file of another study is there.
    """
    text = draft.text(title=title)
    own = file.with_suffix("").with_name(program_name(file))
    parts = {file: text} | ({own: program} if program is not None else {})
    before = {path: path.read_text(encoding="utf-8") for path in parts if path.is_file()}
    if before == parts:
        return False
    if file in before and not _is_same(file, text):
        raise StudyFileError(
            f"{file}: is there already, of another study or an edited one; choose another name, or remove it and its "
            f"folder {file.with_suffix('')}, or go on with `hpotune submit {file}`"
        )
    if own in before and program is not None and before[own] != program:
        raise StudyFileError(
            f"{own}: is there already, with another objective; choose another name, or remove it and {file.name}"
        )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        for path, content in parts.items():
            write_atomic(path, content)
    except OSError as error:
        raise of_disk(error) from error
    return True


def program_name(file: Path) -> str:
    """The file of the objective, beside the study file."""
    return f"{file.stem}_objective.py"


def _is_same(file: Path, text: str) -> bool:
    """Whether a study file has the values of a text, whatever its remarks."""
    return read_source(file).values == parse_source(text, path=file).values


def start(file: Path, *, where: str | None) -> Study:
    """The study of a file: submitted to Slurm, run here to its end, or not started.

    Packages that it needs beside those of this environment are installed first, on this machine.
    """
    if where is not None and (read := load_study(file)).config.env.packages_to_install:
        create_environment(read, home=file.parent, show=lambda _: None)
    study = Study.load(file)
    if where == "slurm":
        study.submit()
    elif where == "local":
        study.run(show=False)
    return study


def warn_of_remarks(draft: StudyDraft) -> None:
    """What has no effect is a warning of Python, too: the file may never be looked at."""
    messages = python_messages(show=False)
    for remark in draft.remarks:
        messages.note(remark)
