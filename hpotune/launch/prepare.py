"""From a study file to a study that can run: every check first, then the folder and the store, or nothing at all."""

from __future__ import annotations

import difflib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from hpotune import storage
from hpotune.errors import StoreError, StudyFileError, nearest
from hpotune.search.registry import check_algorithm
from hpotune.store import Store
from hpotune.study import tasks
from hpotune.study.folder import StudyFolder, check_same, check_writable, folder_of, home_of, make_folder
from hpotune.study.load import Mistakes, Study, build_study, lines, load_study
from hpotune.study.metrics import task_metrics
from hpotune.study.places import Mistake, absolute, data_mistakes, template_names
from hpotune.study.source import Value, Where, read_source

_MEASURED = (
    "train_loss final_train_loss eval_loss eval_accuracy samples_per_second tokens_per_second peak_memory_gb "
    "gpu_hours process_hours trainable_parameters train_seconds steps"
)
TRAINING_METRICS = tuple(_MEASURED.split())
"""What a trial measures without an lm-eval task."""

DEAD_BELOW, BROKEN_ABOVE = 1e-7, 3e-2
"""Learning rates of LoRA with AdamW. In 353 published trials on Llama-3.2 (github Kiwy3/BO_PBO_HPO_LLM) none below 1e-7
moved the score, and every one above 1e-2 (15 of 15) fell to chance; small models bear a little more."""


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
    if target.name == "resolved.yaml" and target.parent.is_dir() and not target.exists():
        StudyFolder(path=target.parent).load()  # says that the folder holds no study
    study, home = load_study(target), home_of(target)
    if data_root is not None and study.config.model is not None:  # $HPOTUNE_DATA_ROOT stands for every study
        study = _with_data_root(study, data_root)
    found: Mistakes = {}
    values = absolute(study.template, home=home, found=found)
    if not found:  # what lies at those places may be looked at
        study = build_study(replace(study.source, values=values))
        _keep(found, data_mistakes(study.config, data_root=study.config.data_root))
    _keep(found, _command_mistakes(study))
    _keep(found, _metric_mistakes(study))
    tasks_found, warnings = _task_mistakes(study) if ("score", "include_path") not in found else ([], [])
    _keep(found, iter(tasks_found))
    told = [*_algorithm_mistakes(study), *lines(study.source, found)]
    if told:
        raise StudyFileError(*told)
    return Checked(study=study, values=values, home=home, warnings=[*warnings, *_warnings(study)])


def _keep(found: Mistakes, more: Iterator[Mistake]) -> None:
    for where, text in more:
        found.setdefault(where, text)


def _algorithm_mistakes(study: Study) -> list[str]:
    try:
        check_algorithm(study)
    except StudyFileError as error:
        return list(error.mistakes)
    return []


def prepare(
    target: Path,
    *,
    chosen: Path | None,
    data_root: str | None,
    accept: Callable[[StudyFolder, Study], None] | None = None,
) -> Ready:
    """Checks the study, then makes or reopens its folder and store.

    `accept` may still refuse before anything is written.
    Raises: HpotuneError of any kind; a folder that was not there before is not there after either.
    """
    folder = folder_of(target, chosen=chosen)
    if target.is_dir():
        data_root = data_root or _data_root_before(folder)
        if not _edited(folder, data_root):
            return _reopened(folder, accept)
        target = folder.study_file
    checked = check(target, data_root=data_root)
    check_same(folder, checked.values)
    if accept:
        accept(folder, checked.study)
    check_writable(folder)
    if folder.resolved_file.is_file():
        return _made(folder, checked, str(folder.provenance()["store"]), "as before")
    url, why = storage.choose(checked.study.config.store, folder.path)
    if url.startswith("postgresql"):
        storage.connect(url)  # before a folder is made for a study that has no store
    with _all_or_nothing(folder):
        return _made(folder, checked, url, why)


def _made(folder: StudyFolder, checked: Checked, url: str, why: str) -> Ready:
    make_folder(folder, checked.study, checked.values, home=checked.home, store_url=url)
    store = _store(folder, checked.study, url)
    return Ready(folder=folder, study=checked.study, store=store, store_url=url, why=why)


def _store(folder: StudyFolder, study: Study, url: str) -> Store:
    """The study's store, made where it is missing; one inside the folder is its own, wherever the folder was before.

    Raises: StoreError where trials lie in the folder and their store is gone: a new one would do them all again.
    """
    file = Path(url.partition(":///")[2])
    if file.is_relative_to(folder.path):
        if not file.exists() and any((folder.path / "trials").glob("*")):
            raise StoreError(
                f"{file}: the store is gone, and trials lie in {folder.path / 'trials'}; put it back, or remove "
                "the study's folder to start over"
            )
        with suppress(StoreError):  # it is not there yet
            store = Store.open(url, study)
            store.fill()
            return store
    return Store.create(url, study, folder=str(folder.path))


@contextmanager
def _all_or_nothing(folder: StudyFolder) -> Iterator[None]:
    """Takes away what was made inside it when that fails, and nothing that stood there before."""
    try:
        folder.path.mkdir(parents=True)  # of two processes one makes it, and the other must not take it away
        mine, empty = True, True
    except FileExistsError:
        mine, empty = False, folder.path.is_dir() and not any(folder.path.iterdir())
    try:
        yield
    except BaseException:
        if mine:
            shutil.rmtree(folder.path, ignore_errors=True)
        elif empty:
            for path in folder.path.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        raise


def _data_root_before(folder: StudyFolder) -> str | None:
    """The --data-root that the study was made with, where its file names none itself."""
    if not (folder.resolved_file.is_file() and folder.study_file.is_file()):
        return None
    root = read_source(folder.resolved_file).values.get("data_root")
    own = read_source(folder.study_file).values.get("data_root")
    return root if own is None and isinstance(root, str) else None


def _edited(folder: StudyFolder, data_root: str | None) -> bool:
    """Whether the folder's study.yaml says something else than what was resolved from it."""
    if not (folder.resolved_file.is_file() and folder.study_file.is_file()):
        return False
    values = absolute(read_source(folder.study_file).values, home=home_of(folder.study_file), found={})
    if data_root is not None:
        values["data_root"] = str(Path(data_root).absolute())
    return values != read_source(folder.resolved_file).values


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


def _command_mistakes(study: Study) -> Iterator[Mistake]:
    command = study.config.command
    if command is None:
        return
    params = study.template.get("params")
    given = set(params) if isinstance(params, dict) else set()
    sometimes = {str(r.where[1]) for r in study.space.ranges if r.where[0] == "params" and r.when}
    try:
        read = template_names(command)
    except ValueError as error:
        yield ("command",), f"command={command!r} {error}; write {{{{ and }}}} for braces of the shell"
        return
    for name in sorted(read - given):
        valid = nearest(name, given) if given else "params is empty"
        yield ("command", name), f"command reads {{{name}}}, which is not under params; {valid}"
    for name in sorted(read & sometimes):
        rule = f"only some trials have it (when); let the program read $HPOTUNE_PARAM_{name.upper()} instead"
        yield ("command", name), f"command reads {{{name}}}, but {rule}"


def _metric_mistakes(study: Study) -> Iterator[Mistake]:
    """Metrics that no part of a fine-tuning measures, and a number that two objectives share."""
    objectives = study.config.score.objective
    for index, objective in enumerate(objectives):
        where = (*_objective(study, index), "metric")
        if objective.label in [other.label for other in objectives[:index]]:
            yield where, f"{objective.label} is an objective twice; needs different ones"
        if study.config.model is None:
            continue
        if objective.task is None and objective.metric not in TRAINING_METRICS:
            valid = nearest(objective.metric, TRAINING_METRICS)
            yield (
                where,
                f"metric={objective.metric!r} needs a task beside it, or to be a number of training; {valid}",
            )
        held_out = objective.metric in ("eval_loss", "eval_accuracy") and objective.task is None
        if held_out and study.config.data and not study.config.data.validation:
            yield where, f"metric={objective.metric!r} needs data.validation above 0, e.g. 0.05"


def _objective(study: Study, index: int) -> Where:
    """The place of one objective; a single one stands without a list."""
    score = study.template.get("score")
    several = isinstance(score, dict) and isinstance(score.get("objective"), list)
    return ("score", "objective", index) if several else ("score", "objective")


def _task_mistakes(study: Study) -> tuple[list[Mistake], list[str]]:
    """Mistakes and warnings about lm-eval tasks: unknown names, a task on both sides of the seal."""
    score = study.config.score
    named: dict[Where, str] = {
        (*_objective(study, index), "task"): objective.task
        for index, objective in enumerate(score.objective)
        if objective.task
    }
    recorded: dict[Where, str] = {
        ("score", "record", i): name for i, name in enumerate(score.record) if name not in TRAINING_METRICS
    }
    sealed: dict[Where, str] = {("score", "test", i): name for i, name in enumerate(score.test)}
    every: dict[Where, str] = named | recorded | sealed
    if study.config.model is None or not every:
        return [], []
    index = tasks.task_index(score.include_path)
    found: list[Mistake] = []
    for side, names in (("score.objective", named), ("score.record", recorded)):
        for where, test in sealed.items():
            told = tasks.overlap([test], names.values(), index=index)
            found += [(where, line.replace("score.objective", side)) for line in told]
    if index is None:
        return found, ["lm-eval is not installed here: the names of tasks were not checked"]
    for where, name in every.items():
        if not index.exists(name):
            found.append((where, _unknown_task(name, index, measured=where in recorded)))
    return [*found, *_task_metric_mistakes(study, index)], []


def _task_metric_mistakes(study: Study, index: tasks.TaskIndex) -> Iterator[Mistake]:
    """Metrics that their task does not give: the trial would find out after training."""
    for number, objective in enumerate(study.config.score.objective):
        given = task_metrics(index, objective.task) if objective.task else None
        metric = objective.metric.partition(",")[0]
        if given is not None and metric not in given:
            where = (*_objective(study, number), "metric")
            yield (
                where,
                f"metric={objective.metric!r} is not given by {objective.task}; {nearest(metric, given)}",
            )


def _unknown_task(name: str, index: tasks.TaskIndex, *, measured: bool) -> str:
    numbers = difflib.get_close_matches(name, TRAINING_METRICS, n=1, cutoff=0.6) if measured else []
    near = [*numbers, *index.nearest(name)]
    hint = f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
    return f"{name!r} is no lm-eval task{' and no number of the training' if measured else ''}; {hint}"


def _warnings(study: Study) -> Iterator[str]:
    """What is allowed and hardly meant."""
    resources = study.config.resources
    if resources.signal_delay_s >= resources.walltime_min * 60:
        yield (
            f"resources.signal_delay_s={resources.signal_delay_s} is not shorter than time: {resources.time}: "
            "Slurm tells jobs to stop as soon as they start"
        )
    for r in study.space.searched:
        if (
            r.name == "train.learning_rate"
            and r.kind == "float"
            and (r.low < DEAD_BELOW or r.high > BROKEN_ABOVE)
        ):
            yield (
                f"{study.source.place(r.where)}: {r.name}: [{r.low:g}, {r.high:g}] holds rates that teach an adapter "
                f"nothing (below {DEAD_BELOW:g}) or break the model (above {BROKEN_ABOVE:g}); narrow it"
            )
