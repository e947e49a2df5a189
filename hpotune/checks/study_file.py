"""Every error of a study that can be found before a trial runs, and warnings. Reads files, writes nothing."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from hpotune.checks.auto_gpus import NoGpuNumber, is_auto, with_gpus, with_stored_number
from hpotune.checks.feasibility import infeasible_constraints, unmeasured_limits, unused_confidence
from hpotune.checks.finding import Finding
from hpotune.checks.secrets_in_file import secret_findings
from hpotune.checks.store_check import content_findings, network_findings
from hpotune.checks.user_code import (
    QUOTED,
    command_mistakes,
    empty_argument_warning,
    function_mistakes,
    quoted_placeholders,
    rung_mistakes,
    rung_warning,
)
from hpotune.config import budget_extension, lm_eval_tasks
from hpotune.config.comparability import OF_VALIDATION, rule_key
from hpotune.config.lm_eval_tasks import TaskIndex
from hpotune.config.load import Study, build_study
from hpotune.config.metrics import TRAINING_METRICS, other_form_warning, task_metrics, unsafe_code_mistake
from hpotune.config.paths import resolve
from hpotune.config.rows.data_check import data_mistakes
from hpotune.config.schema.sites import Fact, site_defaults, site_remarks
from hpotune.config.space.preset_filling import filled_keys, preset_note
from hpotune.config.space.start_from import items
from hpotune.config.training_method import FULL, METHOD
from hpotune.config.yaml_source import KeyPath, Mistake, Mistakes, Source, read_source
from hpotune.errors import StudyFileError, nearest
from hpotune.search.algorithms.registry import check_algorithm
from hpotune.search.sampler_setup import sampler_setup
from hpotune.search.start_points import StartPoint, distinct_start_points, recommended_start_points
from hpotune.workspace.folder import StudyFolder, difference_message, folder_of_source, home_of, open_folder
from hpotune.workspace.stored_preset import with_stored_preset

RATE_TOO_LOW, RATE_TOO_HIGH = 1e-7, 3e-2
"""Learning rates of LoRA with AdamW. In 353 published trials on Llama-3.2 (github Kiwy3/BO_PBO_HPO_LLM) none below 1e-7
moved the score, and every one above 1e-2 (15 of 15) fell to chance; small models tolerate a little more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A valid study, the folder that it has or will have, and what the user should know."""

    study: Study
    """With absolute paths."""
    folder: StudyFolder
    home: Path  # where relative paths of the file start
    start_points: tuple[StartPoint, ...] | None
    """The points of `search.start_from`; None if the folder holds the study: its start points are stored."""
    findings: tuple[Finding, ...]
    notes: tuple[str, ...]
    """How many GPUs `auto` is, what came from the preset, and what was changed in start points of past studies."""
    preset: tuple[str, ...] = ()
    preset_note: str = ""
    """The keys that `space` filled in, dotted, and the line of `notes` about them; empty without a preset."""

    @property
    def warnings(self) -> list[str]:
        """The findings as lines."""
        return [finding.message(self.study.source) for finding in self.findings]

    @property
    def starts(self) -> list[StartPoint]:
        """The start points except those of the portfolio; empty if the study exists already."""
        if self.start_points is None:
            return []
        return distinct_start_points(
            [*self.start_points, *recommended_start_points(self.study, self.study.config)]
        )

    def unused_studies(self) -> Iterator[str]:
        """A note if sibling folders hold studies over the same names; their stores are read."""
        from hpotune.warm_start.start_point_sources import unused_studies_note

        return unused_studies_note(self.study, folder=self.folder.path)


def check(target: Path, *, chosen: Path | None = None, data_root: str | None = None) -> Checked:
    """The study of a file, or of a study's folder, if it has no error. The file is read once.

    Raises: StudyFileError with every error, one line each.
    """
    if target.is_dir():
        folder = open_folder(target)
        return check_source(folder.read_resolved(), folder, data_root=data_root)
    source = read_source(target)
    return check_source(source, folder_of_source(source, chosen=chosen), data_root=data_root)


def check_source(source: Source, folder: StudyFolder, *, data_root: str | None = None) -> Checked:
    """The study of values that have been read, if it has no error.

    Raises: StudyFileError with every error, one line each; StoreError where the store's file is something else.
    """
    home, stored = home_of(source.path), folder.resolved_file.is_file()
    written, filled = source.values, site_defaults(source.values)
    source, mistakes = resolve(source, home=home, data_root=data_root)
    if stored:
        source = with_stored_preset(source, folder, written=written)
        if written.get("space") == folder.read_resolved().values.get("space"):
            mistakes.pop(("space",), None)  # a preset that this version does not know
        source = with_stored_number(source, folder.read_resolved().values)
    study, gpu_notes = build_study(source), list[str]()
    if is_auto(source.values):
        try:
            study, note = with_gpus(study)
            source, gpu_notes = study.source, [note]
        except NoGpuNumber as error:
            mistakes.setdefault(("resources", "gpus"), str(error))
    if folder.path.exists() and not folder.path.is_dir():
        rule = "is a file and not a folder; rename the study, or use --folder"
        mistakes.setdefault(("name",), f"name={study.config.name!r}: {folder.path} {rule}")
    findings = [*_findings(study, unresolved={str(key[0]) for key in mistakes})]
    if stored:  # these were accepted when the study was made
        findings = [replace(one, level="note") if one.kind in ("secret", QUOTED) else one for one in findings]
    findings += network_findings(study, folder)
    findings += _site_findings(study, filled)
    for finding in findings:
        if finding.level == "bad" and finding.key is not None:
            mistakes.setdefault(finding.key, finding.text)
    starts, notes = ([], []) if stored or mistakes else _start_points(study, home=home, mistakes=mistakes)
    without_key = [f.text for f in findings if f.level == "bad" and f.key is None]
    if mistakes or without_key:
        raise StudyFileError(*without_key, *source.messages(mistakes))
    findings += [
        *_folder_findings(study, folder),
        *content_findings(study, folder),
        *_start_point_findings(study, starts),
    ]
    from_preset = preset_note(study.source.values, written)
    return Checked(
        study=study,
        folder=folder,
        home=home,
        start_points=None if stored else tuple(starts),
        findings=tuple(findings),
        notes=tuple(filter(None, (*gpu_notes, from_preset, *notes))),
        preset=(*filled_keys(study.source.values, written),),
        preset_note=from_preset,
    )


def _start_points(study: Study, *, home: Path, mistakes: Mistakes) -> tuple[list[StartPoint], list[str]]:
    """The points of `search.start_from` and what was changed in them; errors are added to `mistakes`."""
    if not items(study.template):
        return [], []
    from hpotune.warm_start.start_point_sources import (
        start_points,
    )  # imports the storage, a third of a second

    return start_points(study, home=home, found=mistakes)


def _findings(study: Study, *, unresolved: set[str]) -> Iterator[Finding]:
    """What the checks find; those that read files of a section are left out if its paths are wrong."""
    for check_study, sections in CHECKS.items():
        if not unresolved & sections:
            yield from check_study(study)


def _errors(check_study: Callable[[Study], Iterable[Mistake]]) -> Callable[[Study], Iterator[Finding]]:
    """A check whose every result is an error."""
    return lambda study: (
        Finding(kind="error", level="bad", key=k, text=text) for k, text in check_study(study)
    )


def _start_point_findings(study: Study, starts: list[StartPoint]) -> Iterator[Finding]:
    """A warning if start points leave the search no trials."""
    if not starts:
        return
    from hpotune.warm_start.start_point_sources import exhausted_budget_warning

    for text in exhausted_budget_warning(study, starts):
        yield Finding(kind="start points", level="note", text=text)


def _algorithm_findings(study: Study) -> Iterator[Finding]:
    try:
        check_algorithm(study, sampler_setup(study, study.config))
    except StudyFileError as error:
        for text in error.mistakes:
            yield Finding(kind="algorithm", level="bad", text=text)


def _data_mistakes(study: Study) -> Iterator[Mistake]:
    return data_mistakes(study.config, data_root=study.config.data_root)


def _limit_mistakes(study: Study) -> Iterator[Mistake]:
    return unmeasured_limits(study, training=TRAINING_METRICS)


def _metric_mistakes(study: Study) -> Iterator[Mistake]:
    """Metrics that fine-tuning does not measure, and objectives that are given twice."""
    objectives = study.config.score.objective
    for index, objective in enumerate(objectives):
        where = (*_objective(study, index), "metric")
        if objective.label in [other.label for other in objectives[:index]]:
            yield where, f"{objective.label} is given twice as an objective; needs different ones"
        if study.config.model is None:
            continue
        if objective.task is None and objective.metric not in TRAINING_METRICS:
            valid = nearest(objective.metric, TRAINING_METRICS)
            yield (
                where,
                f"metric={objective.metric!r} needs a task, or is not a metric of training; {valid}",
            )
        held_out = objective.metric in OF_VALIDATION and objective.task is None
        if held_out and study.config.data and not study.config.data.holds_out:
            yield where, f"metric={objective.metric!r} needs data.validation above 0, e.g. 0.05"


def _objective(study: Study, index: int) -> KeyPath:
    """The key of one objective; a single one is not in a list."""
    score = study.template.get("score")
    several = isinstance(score, dict) and isinstance(score.get("objective"), list)
    return ("score", "objective", index) if several else ("score", "objective")


def _task_findings(study: Study) -> Iterator[Finding]:
    """Unknown lm-eval tasks, metrics that a task does not have, and tasks that are both tuned on and used as a test."""
    score = study.config.score
    tuned: dict[KeyPath, str] = {
        (*_objective(study, index), "task"): objective.task
        for index, objective in enumerate(score.objective)
        if objective.task
    }
    recorded: dict[KeyPath, str] = {
        ("score", "record", i): one.task
        for i, one in enumerate(score.record)
        if one.task not in TRAINING_METRICS
    }
    sealed: dict[KeyPath, str] = {("score", "test", i): one.task for i, one in enumerate(score.test)}
    every: dict[KeyPath, str] = tuned | recorded | sealed
    if study.config.model is None or not (every or score.record):
        return
    index = lm_eval_tasks.task_index(score.include_path)
    mistakes: list[Mistake] = [
        (
            ("score", "record", i),
            f"{one.task} is a number of the training, without settings; write its name alone",
        )
        for i, one in enumerate(score.record)
        if one.settings and one.task in TRAINING_METRICS
    ]
    for side, names in (("score.objective", tuned), ("score.record", recorded)):
        for key, test in sealed.items():
            lines = lm_eval_tasks.overlap([test], names.values(), index=index)
            mistakes += [(key, line.replace("score.objective", side)) for line in lines]
    if index is None:
        yield Finding(
            kind="lm-eval", level="note", text="lm-eval is not installed here, so task names were not checked"
        )
    else:
        unknown = [key for key, name in every.items() if not index.exists(name)]
        broken = lm_eval_tasks.unreadable_files(score.include_path) if unknown else []
        note = f"; a task file cannot be read: {broken[0]}" if broken else ""
        mistakes += [
            (key, _unknown_task(every[key], index, measured=key in recorded) + note) for key in unknown
        ]
        mistakes += _task_metric_mistakes(study, index)
    for key, text in mistakes:
        yield Finding(kind="task", level="bad", key=key, text=text)
    if tuned or recorded:
        yield from _form_findings(study)


def _form_findings(study: Study) -> Iterator[Finding]:
    """A warning where the tasks are asked in another form than the rows are trained in."""
    data, chosen = study.config.data, study.config.score.chat_template
    if data is not None and chosen != "auto" and chosen != (data.prompt == "chat"):
        key: KeyPath = ("score", "chat_template")
        yield Finding(kind="chat template", level="note", key=key, text=other_form_warning(chosen))


def _task_metric_mistakes(study: Study, index: TaskIndex) -> Iterator[Mistake]:
    """Metrics that their task does not have, and code that the study does not allow; the rehearsal looks deeper."""
    score = study.config.score
    named = {objective.task: (*_objective(study, i), "task") for i, objective in enumerate(score.objective)}
    named |= {
        one.task: ("score", side, i)
        for side, tasks in (("record", score.record), ("test", score.test))
        for i, one in enumerate(tasks)
    }
    known = {name: task_metrics(index, name) for name in named if name is not None}
    for name, where in named.items():
        facts = known.get(name or "")
        if facts is not None and facts.runs_code and not score.confirm_unsafe_code:
            yield where, unsafe_code_mistake(f"score.{where[1]}", name or "")
    for number, objective in enumerate(score.objective):
        facts = known.get(objective.task or "")
        text = facts.mistake(objective.task or "", objective.metric) if facts is not None else None
        if text is not None:
            yield (*_objective(study, number), "metric"), text
    rule = study.config.best
    for name in sorted(rule.names) if rule is not None else ():
        task, separator, metric = name.removesuffix("_stderr").rpartition("/")
        facts = known.get(task) if separator else None
        text = facts.mistake(task, metric) if facts is not None else None
        if text is not None and rule is not None:
            yield rule_key(rule, name), f"best: {text.replace('score.objective: ', '')}"


def _unknown_task(name: str, index: TaskIndex, *, measured: bool) -> str:
    numbers = difflib.get_close_matches(name, TRAINING_METRICS, n=1, cutoff=0.6) if measured else []
    near = [*numbers, *index.nearest(name)]
    hint = f"did you mean {', '.join(near)}?" if near else "`lm-eval ls tasks` lists them"
    return f"{name!r} is not an lm-eval task{' or a metric of training' if measured else ''}; {hint}"


def _folder_findings(study: Study, folder: StudyFolder) -> Iterator[Finding]:
    """Differences between the file and the study that its folder holds."""
    if not folder.resolved_file.is_file():
        return
    if text := difference_message(folder, study.source.values):
        yield Finding(kind="other study", level="note", text=text)
    extension = budget_extension.read_extension(folder.extension_file)
    for text in budget_extension.overridden_edits(study.config.budget, extension):
        yield Finding(kind="extended budget", level="note", text=text)


def _resource_findings(study: Study) -> Iterator[Finding]:
    resources, trials = study.config.resources, study.config.budget.trials
    if not study.space.searched and trials > 2:
        text = f"nothing is searched (the file has no range), so {trials} trials do the same"
        advice = "write a range, or trials: 1"
        yield Finding(kind="no range", level="note", key=("budget", "trials"), text=text, advice=advice)
    if resources.signal_delay_s >= resources.walltime_min * 60:
        text = (
            f"resources.signal_delay_s={resources.signal_delay_s} is not shorter than time: {resources.time}: "
            "Slurm signals jobs to stop as soon as they start"
        )
        yield Finding(kind="signal delay", level="note", text=text)


def _site_findings(study: Study, filled: Mapping[str, Fact]) -> Iterator[Finding]:
    """What came from `site`, and what the site would refuse."""
    resources = study.config.resources
    for text in site_remarks(
        study.config.site,
        filled=filled,
        account=resources.account,
        gpus=str(resources.gpus),
        time=str(resources.time),
        partition=resources.partition,
    ):
        yield Finding(kind="site", level="note", text=text)


def _untrained_findings(study: Study) -> Iterator[Finding]:
    """A note that the study trains nothing, which a forgotten section `data` would mean too."""
    if study.config.model is not None and not study.config.trains:
        text = "the study has no data, so nothing is trained: trials ask the base model with other settings"
        yield Finding(kind="inference", level="note", text=text)


def _learning_rate_findings(study: Study) -> Iterator[Finding]:
    """Ranges of learning rates known to be useless for an adapter."""
    if study.base().train.get(METHOD) == FULL:
        return
    for r in study.space.searched:
        if r.name != "train.learning_rate" or r.kind != "float":
            continue
        if r.low < RATE_TOO_LOW or r.high > RATE_TOO_HIGH:
            text = (
                f"{r.name}: [{r.low:g}, {r.high:g}] contains rates at which an adapter does not learn (below "
                f"{RATE_TOO_LOW:g}) or training diverges (above {RATE_TOO_HIGH:g})"
            )
            yield Finding(kind="learning rate", level="note", key=r.where, text=text, advice="narrow it")


CHECKS: dict[Callable[[Study], Iterable[Finding]], frozenset[str]] = {
    _errors(_data_mistakes): frozenset({"data", "data_root"}),
    _errors(function_mistakes): frozenset({"python"}),
    _errors(command_mistakes): frozenset(),
    _errors(rung_mistakes): frozenset(),
    _errors(_metric_mistakes): frozenset(),
    _errors(_limit_mistakes): frozenset(),
    _task_findings: frozenset({"score"}),
    _algorithm_findings: frozenset(),
    rung_warning: frozenset({"python"}),
    empty_argument_warning: frozenset(),
    quoted_placeholders: frozenset(),
    _resource_findings: frozenset(),
    _learning_rate_findings: frozenset(),
    _untrained_findings: frozenset(),
    infeasible_constraints: frozenset(),
    unused_confidence: frozenset(),
    secret_findings: frozenset(),
}
"""Check -> sections whose files it reads."""
