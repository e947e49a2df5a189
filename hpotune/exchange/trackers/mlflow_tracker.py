"""MLflow: an experiment, in it a run for the study and nested in that a run for each trial.

Runs are found again by their tags, so nothing is made twice, even where sent.json was lost. Metrics are added where the
run has no such value at that step; parameters never change.
"""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from hpotune.config.text.secret_text import masked
from hpotune.errors import StudyFileError
from hpotune.exchange.trackers.tracked_study import TrackedRun, TrackedStudy

if TYPE_CHECKING:
    from mlflow import MlflowClient

STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}
_NO_NAME = re.compile(r"[^\w\-. :/]")
"""What a metric's or parameter's name may not hold."""
_METRICS, _PARAMS, _TAGS = 1000, 100, 100
"""How many of each one call may send."""
_LONGEST_PARAM, _LONGEST_TAG = 6000, 5000
_SETTINGS = {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}
"""Of the library, where the user has set none: no reports to its makers; an end, if the server does not answer."""
_QUIET = {"MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true"}
"""The client prints two addresses a run on stdout, where `--json` prints its document."""


class MlflowTracker:
    """An experiment of a tracking server, or of a database file."""

    def __init__(self, uri: str, *, experiment: str | None) -> None:
        for name, value in _SETTINGS.items():
            os.environ.setdefault(name, value)
        os.environ.update(_QUIET)
        try:
            from mlflow import MlflowClient
        except ImportError:
            raise StudyFileError(
                "--to mlflow: mlflow is not installed; pip install 'hpotune[mlflow]'"
            ) from None
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._uri, self._name = uri, experiment
        self._open: Callable[..., MlflowClient] = MlflowClient
        self._client: MlflowClient
        self._experiment = self._parent = self._study = ""
        self._active = 0

    @property
    def destination(self) -> str:
        """As Tracker."""
        return f"mlflow {masked(self._uri)}" + (f" {self._name}" if self._name else "")

    def begin(self, study: TrackedStudy) -> None:
        """Make the experiment and the run of the study, unless they are there."""
        self._client = self._open(tracking_uri=self._uri)
        name = self._name or study.name
        found = self._client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage != "active":
            raise StudyFileError(
                f"--to mlflow: the experiment {name!r} is deleted; restore it, or give another --project"
            )
        self._experiment = found.experiment_id if found is not None else self._client.create_experiment(name)
        self._study, self._active = study.identity, study.active
        tags = {**study.tags, "mlflow.note.content": f"```yaml\n{study.text}\n```"}
        starts = [run.start for run in study.runs if run.start is not None]
        self._parent = self._run_id("study", name=study.name, tags=tags, start=min(starts, default=None))

    def send(self, run: TrackedRun) -> None:
        """As Tracker."""
        tags = {**run.tags, "mlflow.parentRunId": self._parent}
        id_ = self._run_id(run.key, name=run.name, tags=tags, start=run.start)
        there = self._client.get_run(id_).data
        params = {_name(name): str(value)[:_LONGEST_PARAM] for name, value in run.params.items()}
        self._log_params(id_, {name: value for name, value in params.items() if name not in there.params})
        end_ms = _ms(run.end)
        last = max([point.step for point in run.points], default=0)
        wanted = [
            (_name(name), value, _ms(point.time) if point.time is not None else end_ms, point.step)
            for point in run.points
            for name, value in point.values.items()
        ]
        wanted += [(_name(name), value, end_ms, last) for name, value in run.scores.items()]
        self._log_metrics(id_, wanted, known=there.metrics)
        for name, text in tags.items():
            if there.tags.get(name) != text[:_LONGEST_TAG]:
                self._client.set_tag(id_, name, text[:_LONGEST_TAG])
        self._client.set_terminated(id_, STATUS[run.state], end_time=end_ms)

    def end(self) -> str:
        """As Tracker."""
        if self._parent and not self._active:
            self._client.set_terminated(self._parent, "FINISHED")
        if self._uri.startswith(("http:", "https:")):
            return f"{masked(self._uri)}" + (f"/#/experiments/{self._experiment}" if self._experiment else "")
        return f"mlflow ui --backend-store-uri {masked(self._uri)}"

    def _run_id(self, key: str, *, name: str, tags: Mapping[str, str], start: float | None) -> str:
        """The run of the study or of a trial, by its tags; a new one where there is none."""
        wanted = f"tags.`hpotune.study` = '{self._study}' and tags.`hpotune.run` = '{key}'"
        found = self._client.search_runs([self._experiment], filter_string=wanted, max_results=1)
        if found:
            return str(found[0].info.run_id)
        own = {"hpotune.study": self._study, "hpotune.run": key}
        first = dict(islice(((name, text[:_LONGEST_TAG]) for name, text in {**own, **tags}.items()), _TAGS))
        made = self._client.create_run(self._experiment, start_time=_ms(start), tags=first, run_name=name)
        return str(made.info.run_id)

    def _log_params(self, id_: str, params: Mapping[str, str]) -> None:
        from mlflow.entities import Param

        for part in _parts([Param(name, value) for name, value in params.items()], _PARAMS):
            self._client.log_batch(id_, params=part)

    def _log_metrics(
        self, id_: str, wanted: Sequence[tuple[str, float, int, int]], *, known: Mapping[str, float]
    ) -> None:
        """Add the values that the run does not have. `known`: the latest value of each metric that it has."""
        from mlflow.entities import Metric

        there = {
            (name, one.step, one.value)
            for name in {name for name, *_ in wanted} & known.keys()
            for one in self._client.get_metric_history(id_, name)
        }
        new = [
            Metric(name, value, at, step)
            for name, value, at, step in wanted
            if (name, step, value) not in there
        ]
        for part in _parts(new, _METRICS):
            self._client.log_batch(id_, metrics=part)


def _name(name: str) -> str:
    return _NO_NAME.sub("_", name) or "_"


def _ms(seconds: float | None) -> int:
    """Milliseconds since 1970; now where it is not known."""
    return round(1000 * (time.time() if seconds is None else seconds))


def _parts(whole: Iterable[Any], size: int) -> Iterator[list[Any]]:
    rest = iter(whole)
    while part := list(islice(rest, size)):
        yield part
