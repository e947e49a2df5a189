"""Everything that the report of a study shows, as typed data: the only source of its figures, tables and sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from hpotune.config.load import Study
from hpotune.config.schema.warm_trials import process_note
from hpotune.config.yaml_source import Value
from hpotune.errors import StudyFileError
from hpotune.planning.study_plan import measured_progress, read_plan
from hpotune.records.trial import Span, TrialRow
from hpotune.reporting.gantt import read_spans
from hpotune.reporting.views.best import BestResult, ObjectiveView, best_result
from hpotune.reporting.views.cost_view import CostView, cost_view
from hpotune.reporting.views.importance_view import ImportanceView, importance_view
from hpotune.reporting.views.provenance_view import StudyProvenanceView, study_provenance
from hpotune.reporting.views.rerun_view import RerunResult, recorded_reruns
from hpotune.reporting.views.score_agreement import ScoreAgreement, score_agreements
from hpotune.reporting.views.sealed_test import SealedTestResult, sealed_test_result
from hpotune.reporting.views.status import StudyStatus
from hpotune.reporting.views.trial_files import CheckView, LearningCurve, check_views, learning_curves
from hpotune.reporting.views.trial_view import TrialView, trial_view
from hpotune.workspace.folder import StudyFolder


@dataclass(frozen=True, kw_only=True, slots=True)
class ParameterView:
    """A searched hyperparameter."""

    name: str
    kind: Literal["number", "choice"]
    """number: drawn on an axis; choice: drawn by its options, each as text."""
    log: bool
    low: float | None
    """None for choices and values that follow from others."""
    high: float | None
    options: tuple[str, ...]
    """Of a choice, as text."""
    range_text: str
    """The range in words: `1e-06 to 0.01, log`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LadderView:
    """The rungs of a study."""

    pruner: str
    unit: Literal["share", "steps", "rows", "items"]
    budgets: tuple[float, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class SetupView:
    """What was studied, in the words of the study file."""

    kind: Literal["fine-tuning", "inference", "function", "command"]
    subject: str
    """The base model, the function, or the command."""
    data: str
    """The training data; empty where nothing is trained."""
    algorithm: str
    pruner: str
    seed: int
    mode: str
    processes: str
    """Whether a trial's process runs the next trials too, and why not; empty for a function or a command."""
    parallel: int
    sealed_tasks: tuple[str, ...]
    """`score.test`."""
    switched_off: tuple[str, ...]
    """Sanity checks that the study file switches off."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StudyReport:
    """A study and its answer."""

    made: str
    """Local time, ISO 8601."""
    version: str
    """Of hpotune."""
    setup: SetupView
    status: StudyStatus
    best: BestResult
    sealed: SealedTestResult | None
    """The sealed test; None: it was not opened."""
    parameters: tuple[ParameterView, ...]
    trials: tuple[TrialView, ...]
    """Trials that have started, by number, the baseline included."""
    importance: ImportanceView
    agreements: tuple[ScoreAgreement, ...]
    ladder: LadderView | None
    curves: tuple[LearningCurve, ...]
    cost: CostView
    spans: tuple[Span, ...]
    """What jobs did, measured."""
    planned: Mapping[str, Value] | None
    """plan.json; None: no plan was recorded."""
    actual: Mapping[str, Value] | None
    """The same numbers, measured; None before the first attempt."""
    checks: tuple[CheckView, ...]
    provenance: StudyProvenanceView | None
    """None where provenance.json cannot be read."""
    reruns: tuple[RerunResult, ...]
    """What `hpotune rerun` compared, by trial, oldest first."""

    @property
    def scores(self) -> tuple[ObjectiveView, ...]:
        """What trials are ranked by, then the objectives; what figures and tables show of each trial."""
        first = self.best.ranked_by
        return (first, *(one for one in self.best.objectives if one.label != first.label))


def study_report(
    folder: StudyFolder, study: Study, rows: Sequence[TrialRow], status: StudyStatus, *, now: datetime
) -> StudyReport:
    """The report of a study. Reads the study's folder; writes nothing."""
    from hpotune import __version__

    config = study.config
    started = [row for row in rows if row.state != "waiting" or row.attempts]
    best = best_result(folder, config, rows)
    spans = tuple(read_spans(folder))
    planned = read_plan(folder)
    parameters = _parameters(study, started)
    return StudyReport(
        made=now.isoformat(timespec="seconds"),
        version=__version__,
        setup=_setup(study),
        status=status,
        best=best,
        sealed=sealed_test_result(folder, study, rows),
        parameters=parameters,
        trials=tuple(trial_view(config.score.objective, row) for row in started),
        importance=importance_view(study, rows),
        agreements=score_agreements(config, rows),
        ladder=_ladder(study),
        curves=learning_curves(folder, config, rows),
        cost=cost_view(config, rows, spans, now=now),
        spans=spans,
        planned=planned,
        actual=measured_progress(folder, config, rows, planned, now=now) if started else None,
        checks=check_views(folder, config, rows),
        provenance=_provenance(folder, rows),
        reruns=recorded_reruns(folder),
    )


def _setup(study: Study) -> SetupView:
    config, template = study.config, study.template
    own = "function" if config.python else "command" if config.command else None
    kind = own or ("fine-tuning" if config.trains else "inference")
    model, data = template.get("model"), template.get("data")
    checks = config.checks.model_dump()
    return SetupView(
        kind=kind,  # type: ignore[arg-type]
        subject=(config.python or "").rpartition("/")[2] or config.command or _path_of(model),
        data=_path_of(data) if config.trains else "",
        algorithm=config.search.algorithm,
        pruner=config.search.ladder.pruner if config.search.ladder else "none",
        seed=config.search.seed,
        mode=config.execution.mode,
        processes=process_note(config),
        parallel=config.budget.parallel,
        sealed_tasks=tuple(one.task for one in config.score.test),
        switched_off=() if own else tuple(name for name, on in checks.items() if not on),
    )


def _path_of(section: Value) -> str:
    """The `path` of a section as the file says it; of a range its values."""
    mixture = section.get("mixture") if isinstance(section, dict) else None
    if isinstance(mixture, dict) and mixture:
        return " + ".join(_path_of(one) for one in mixture.values())
    path = section.get("path") if isinstance(section, dict) else section
    return path if isinstance(path, str) else str(path)


def _ladder(study: Study) -> LadderView | None:
    ladder = study.config.search.ladder
    return LadderView(pruner=ladder.pruner, unit=ladder.unit, budgets=ladder.budgets) if ladder else None


def _parameters(study: Study, rows: Sequence[TrialRow]) -> tuple[ParameterView, ...]:
    """The searched parameters, then those that only trials name (of an earlier study file)."""
    known = {one.name: one for one in study.space.searched}
    found = []
    for one in known.values():
        choice = one.kind == "choice"
        ends = "" if choice else f"{one.low:g} to {one.high:g}"
        found.append(
            ParameterView(
                name=one.name,
                kind="choice" if choice else "number",
                log=one.log and not choice,
                low=None if choice else one.low,
                high=None if choice else one.high,
                options=tuple(option_text(option) for option in one.options) if choice else (),
                range_text=", ".join(map(option_text, one.options))
                if choice
                else f"{ends}, log"
                if one.log
                else ends,
            )
        )
    return tuple(found)


def option_text(value: Value) -> str:
    """A value as text: numbers with at most six digits, others as in Python."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _provenance(folder: StudyFolder, rows: Sequence[TrialRow]) -> StudyProvenanceView | None:
    try:
        return study_provenance(folder, rows)
    except StudyFileError:
        return None
