"""From a study file to a study that can run: every check first, then the folder and the store, or nothing at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from hpotune import storage
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.search.registry import check_algorithm
from hpotune.store import Store
from hpotune.study import tasks
from hpotune.study.folder import StudyFolder, check_same, folder_of, make_folder
from hpotune.study.load import Study, build_study, load_study
from hpotune.study.places import absolute, column_mistakes, template_names
from hpotune.study.source import Value

TRAINING_METRICS = (
    "train_loss", "final_train_loss", "eval_loss", "eval_accuracy", "samples_per_second", "tokens_per_second", "peak_memory_gb", "gpu_hours",
    "process_hours", "trainable_parameters", "seconds", "steps",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A study file that was found right, and what it would become."""

    study: Study
    values: dict[str, Value]
    """With absolute paths."""
    home: Path
    warnings: list[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Ready:
    """A study whose folder and store stand."""

    folder: StudyFolder
    study: Study
    store: Store
    store_url: str
    why: str
    """Why this store."""


def check(target: Path, *, data_root: str | None = None) -> Checked:
    """Finds every mistake of a study file that can be found without running it. Writes nothing.

    Raises: StudyFileError with one line a mistake.
    """
    home, study = target.absolute().parent, load_study(target)
    if data_root is not None:
        study = _with_data_root(study, data_root)
    check_algorithm(study)
    values = absolute(study, home=home)
    study = build_study(replace(study.source, values=values))
    mistakes = [*_command_mistakes(study), *_metric_mistakes(study)]
    found, warnings = _task_mistakes(study)
    places = column_mistakes(study.config, data_root=study.config.data_root)
    mistakes += [*found, *(f"{study.source.place(('data',))}: {mistake}" for mistake in places)]
    if mistakes:
        raise StudyFileError(*mistakes)
    return Checked(study=study, values=values, home=home, warnings=warnings)


def prepare(
    target: Path,
    *,
    chosen: Path | None,
    data_root: str | None,
    accept: Callable[[StudyFolder, Study], None] | None = None,
) -> Ready:
    """Checks the study, then makes or reopens its folder and store. `accept` may still refuse before anything is written.

    Raises: HpotuneError of any kind; a folder that was not there before is not there after either.
    """
    folder = folder_of(target, chosen=chosen)
    if target.is_dir():
        return _reopened(folder, accept)
    checked = check(target, data_root=data_root)
    study = checked.study
    check_same(folder, checked.values)
    if accept:
        accept(folder, study)
    known = folder.provenance_file.is_file()
    url, why = (
        (str(folder.provenance()["store"]), "as before")
        if known
        else storage.choose(study.config.store, folder.path)
    )
    if url.startswith("postgresql"):
        storage.connect(url)  # before a folder is made for a study that has no store
    try:
        make_folder(folder, study, checked.values, home=checked.home, store_url=url)
        store = Store.create(url, study, folder=str(folder.path))
    except HpotuneError:
        if not known:
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    return Ready(folder=folder, study=study, store=store, store_url=url, why=why)


def _reopened(folder: StudyFolder, accept: Callable[[StudyFolder, Study], None] | None) -> Ready:
    study = folder.load()
    if accept:
        accept(folder, study)
    url = str(folder.provenance()["store"])
    store = Store.open(url, study)
    store.fill()
    return Ready(folder=folder, study=study, store=store, store_url=url, why="as before")


def _with_data_root(study: Study, data_root: str) -> Study:
    values = {**study.source.values, "data_root": str(Path(data_root).absolute())}
    return build_study(replace(study.source, values=values))


def _command_mistakes(study: Study) -> Iterable[str]:
    command = study.config.command
    if command is None:
        return
    place = study.source.place(("command",))
    try:
        unknown = template_names(command) - study.config.params.keys() - _named(study)
    except ValueError as error:
        yield f"{place}: command={command!r} {error}; write {{{{ and }}}} for braces"
        return
    for name in sorted(unknown):
        yield f"{place}: command reads {{{name}}}, which is not under params; valid: {', '.join(sorted(_named(study)))}"


def _named(study: Study) -> set[str]:
    params = study.template.get("params")
    return set(params) if isinstance(params, dict) else set()


def _metric_mistakes(study: Study) -> Iterable[str]:
    """Metrics that no part of a fine-tuning measures."""
    if study.config.model is None:
        return
    for index, objective in enumerate(study.config.score.objective):
        place = study.source.place(("score", "objective", index, "metric"))
        if objective.task is None and objective.metric not in TRAINING_METRICS:
            yield f"{place}: metric={objective.metric!r} needs a task beside it, or one of {', '.join(TRAINING_METRICS)}"
        if (
            objective.metric in ("eval_loss", "eval_accuracy")
            and study.config.data
            and not study.config.data.validation
        ):
            yield f"{place}: metric={objective.metric!r} needs data.validation above 0, e.g. 0.05"


def _task_mistakes(study: Study) -> tuple[list[str], list[str]]:
    """Mistakes and warnings about lm-eval tasks: unknown names, a task on both sides of the seal."""
    score = study.config.score
    index = tasks.task_index(score.include_path)
    chosen = [objective.task for objective in score.objective if objective.task]
    recorded = [name for name in score.record if name not in TRAINING_METRICS]
    place = study.source.place(("score",))
    mistakes = [f"{place}: {line}" for line in tasks.overlap(score.test, [*chosen, *recorded], index=index)]
    if index is None:
        return mistakes, ["lm-eval is not installed here: the names of tasks were not checked"]
    for name in [*chosen, *score.test, *(recorded if study.config.model else [])]:
        if not index.exists(name):
            near = index.nearest(name)
            hint = f"; did you mean {', '.join(near)}?" if near else "; `lm-eval ls tasks` lists them"
            mistakes.append(f"{place}: {name!r} is no lm-eval task{hint}")
    return mistakes, []
