"""All figures by name: those of the page, and those that `hpotune plot` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from hpotune.errors import StudyFileError, nearest
from hpotune.reporting.page.charts import (
    agreement_figure,
    front_figures,
    parallel_figure,
    parameter_figures,
    repeats_figure,
    score_figures,
    sealed_figure,
    time_figures,
)
from hpotune.reporting.page.charts.figure import Figure
from hpotune.reporting.page.charts.look import Look
from hpotune.reporting.views.study_report import StudyReport

Draw = Callable[[StudyReport, Look], Figure]

FIGURES: Mapping[str, Draw] = {
    "sealed-test": sealed_figure.sealed_test,
    "repeats": repeats_figure.repeats,
    "score-over-trials": score_figures.score_over_trials,
    "pareto-front": front_figures.pareto_front,
    "hypervolume": front_figures.hypervolume,
    "score-by-parameter": parameter_figures.score_by_parameter,
    "parameters-over-trials": parameter_figures.parameters_over_trials,
    "parallel-coordinates": parallel_figure.parallel_coordinates,
    "importance": parameter_figures.importance,
    "validation-against-test": agreement_figure.validation_against_test,
    "learning-curves": score_figures.learning_curves,
    "rungs": score_figures.rungs,
    "gantt": time_figures.gantt,
    "hours": time_figures.hours_by_use,
}
"""In the order of the page."""
SHOWS: Mapping[str, str] = {
    "sealed-test": "difference of each finalist to the base model on the sealed test",
    "repeats": "scores of the finalists with new seeds, and their means",
    "score-over-trials": "score of each trial, best so far, base model",
    "pareto-front": "pairs of objectives and the Pareto front, uncertain trials marked",
    "hypervolume": "hypervolume of the Pareto front over trials and time",
    "score-by-parameter": "score by the value of each hyperparameter",
    "parameters-over-trials": "values of each hyperparameter in the order of trials",
    "parallel-coordinates": "a line for each trial through its values to its score",
    "importance": "importance of each hyperparameter, with intervals",
    "validation-against-test": "the objective against other scores of the same trials",
    "learning-curves": "training loss by step",
    "rungs": "scores at the budgets of the rungs",
    "gantt": "what each job did, and when",
    "hours": "GPU-hours by use, and what was lost",
}
"""What each figure shows, for `hpotune plot` without a name."""


def draw_of(name: str) -> Draw:
    """The function that draws a figure.

    Raises: StudyFileError for an unknown name.
    """
    if name not in FIGURES:
        raise StudyFileError(f"{name!r}: no such figure; {nearest(name, FIGURES)}")
    return FIGURES[name]
