"""Every mistake of a study file that can be found without running it. Reads, never writes."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from hpotune.checks.feasibility import kept, narrow, unheard, unkeepable, unmeasured_limits
from hpotune.checks.user_code import command_mistakes, function_mistakes, rung_mistakes, rung_warning
from hpotune.config import budget_extension, lm_eval_tasks
from hpotune.config.load import Study, build_study, load_study
from hpotune.config.paths import absolute, data_mistakes
from hpotune.config.task_metrics import task_metrics
from hpotune.config.yaml_source import KeyPath, Mistake, Mistakes, Value
from hpotune.errors import StudyFileError, nearest
from hpotune.search.algorithms.registry import check_algorithm
from hpotune.search.base.study_setup import sampler_setup
from hpotune.search.start_points import StartPoint, distinct_start_points, recommended_start_points
from hpotune.warm_start.start_point_sources import crowded, start_points
from hpotune.workspace.folder import StudyFolder, difference_message, folder_of, home_of

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
    starts: list[StartPoint]
    """Points that the first trials will take, but for those of the portfolio; none where the study stands."""
    notes: list[str]
    """What had to be changed in the points of earlier studies."""


def check(target: Path, *, data_root: str | None = None, made: bool = False) -> Checked:
    """Finds every mistake of a study file that can be found without running it. Writes nothing.

    `made`: whether the study stands and its starting points are settled: their sources may be gone since.
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
        _keep(found, function_mistakes(study))
    _keep(found, command_mistakes(study))
    _keep(found, rung_mistakes(study))
    _keep(found, _metric_mistakes(study))
    _keep(found, unmeasured_limits(study, training=TRAINING_METRICS))
    share, never = kept(study)
    _keep(found, unkeepable(study, share=share, never=never))
    made = made or folder_of(target).resolved_file.is_file()
    starts, notes = ([], []) if made or found else start_points(study, home=home, found=found)
    tasks_found, warnings = _task_mistakes(study) if ("score", "include_path") not in found else ([], [])
    _keep(found, iter(tasks_found))
    told = [*_algorithm_mistakes(study), *study.source.messages(found)]
    if told:
        raise StudyFileError(*told)
    warnings += filter(None, [rung_warning(study)])
    warnings += [*_warnings(study), *_folder_warnings(target, study, values)]
    warnings += [*narrow(study, share=share), *unheard(study), *crowded(study, starts)]
    starts = [] if made else distinct_start_points([*starts, *recommended_start_points(study, study.config)])
    return Checked(study=study, values=values, home=home, warnings=warnings, starts=starts, notes=notes)


def _keep(found: Mistakes, more: Iterator[Mistake]) -> None:
    for where, text in more:
        found.setdefault(where, text)


def _algorithm_mistakes(study: Study) -> list[str]:
    try:
        check_algorithm(study, sampler_setup(study, study.config))
    except StudyFileError as error:
        return list(error.mistakes)
    return []


def _with_data_root(study: Study, data_root: str) -> Study:
    values = {**study.source.values, "data_root": str(Path(data_root).absolute())}
    return build_study(replace(study.source, values=values))


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


def _objective(study: Study, index: int) -> KeyPath:
    """The place of one objective; a single one stands without a list."""
    score = study.template.get("score")
    several = isinstance(score, dict) and isinstance(score.get("objective"), list)
    return ("score", "objective", index) if several else ("score", "objective")


def _task_mistakes(study: Study) -> tuple[list[Mistake], list[str]]:
    """Mistakes and warnings about lm-eval tasks: unknown names, a task on both sides of the seal."""
    score = study.config.score
    named: dict[KeyPath, str] = {
        (*_objective(study, index), "task"): objective.task
        for index, objective in enumerate(score.objective)
        if objective.task
    }
    recorded: dict[KeyPath, str] = {
        ("score", "record", i): name for i, name in enumerate(score.record) if name not in TRAINING_METRICS
    }
    sealed: dict[KeyPath, str] = {("score", "test", i): name for i, name in enumerate(score.test)}
    every: dict[KeyPath, str] = named | recorded | sealed
    if study.config.model is None or not every:
        return [], []
    index = lm_eval_tasks.task_index(score.include_path)
    found: list[Mistake] = []
    for side, names in (("score.objective", named), ("score.record", recorded)):
        for where, test in sealed.items():
            told = lm_eval_tasks.overlap([test], names.values(), index=index)
            found += [(where, line.replace("score.objective", side)) for line in told]
    if index is None:
        return found, ["lm-eval is not installed here: the names of tasks were not checked"]
    for where, name in every.items():
        if not index.exists(name):
            found.append((where, _unknown_task(name, index, measured=where in recorded)))
    return [*found, *_task_metric_mistakes(study, index)], []


def _task_metric_mistakes(study: Study, index: lm_eval_tasks.TaskIndex) -> Iterator[Mistake]:
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


def _unknown_task(name: str, index: lm_eval_tasks.TaskIndex, *, measured: bool) -> str:
    numbers = difflib.get_close_matches(name, TRAINING_METRICS, n=1, cutoff=0.6) if measured else []
    near = [*numbers, *index.nearest(name)]
    hint = f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
    return f"{name!r} is no lm-eval task{' and no number of the training' if measured else ''}; {hint}"


def _folder_warnings(target: Path, study: Study, values: dict[str, Value]) -> Iterator[str]:
    """What the study's folder, where there is one already, holds otherwise than the file."""
    folder = folder_of(target)
    if not folder.resolved_file.is_file():
        return
    if told := difference_message(folder, values):
        yield told
    yield from budget_extension.overruled(
        study.config.budget, budget_extension.read_extension(folder.extension_file)
    )


def _warnings(study: Study) -> Iterator[str]:
    """What is allowed and hardly meant."""
    resources, trials = study.config.resources, study.config.budget.trials
    if not study.space.searched and trials > 2:
        yield (
            f"{study.source.location(('budget', 'trials'))}: nothing is searched (the file holds no range), so {trials} "
            "trials do the same; write a range, or trials: 1"
        )
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
                f"{study.source.location(r.where)}: {r.name}: [{r.low:g}, {r.high:g}] holds rates that teach an adapter "
                f"nothing (below {DEAD_BELOW:g}) or break the model (above {BROKEN_ABOVE:g}); narrow it"
            )
