"""`hpotune.Study`: a study from Python. Each method stands for the verb of its name, and calls the same code.

Nothing is loaded before it is needed: importing this costs a few milliseconds.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from hpotune.api.call_messages import Messages, python_messages
from hpotune.api.library_call import library_call
from hpotune.errors import HpotuneError, StudyFileError
from hpotune.records.program_import import imports_program

if TYPE_CHECKING:
    from datetime import date, timedelta

    import pandas

    from hpotune.api.check_study import CheckResult
    from hpotune.api.continue_study import ExtendResult, RetryResult, Where
    from hpotune.api.export_study import ExportResult
    from hpotune.api.start_study import StartOptions, SubmitResult
    from hpotune.exchange.setting_export import SettingFormat
    from hpotune.reporting.page.report_files import Format
    from hpotune.reporting.views.best import BestResult
    from hpotune.reporting.views.plan_view import PlanView
    from hpotune.reporting.views.sealed_test import SealedTestResult
    from hpotune.reporting.views.status import StudyStatus
    from hpotune.reporting.views.trial_view import TrialView

MEMORY_GB, TIME_S = 2.0, 600.0
"""What a rehearsal may use."""


class Study:
    """A study: its file, and its folder once it has started. Made by `load` or `from_dict`.

    Methods raise HpotuneError (hpotune/errors.py) with the text that the verb prints; what the verb prints as a note
    or a warning is a Python warning, HpotuneWarning.
    """

    def __init__(self, path: Path, *, folder: Path | None = None, data_root: str | None = None) -> None:
        self.path = path
        """The study file, or the study's folder."""
        self._chosen, self._data_root = folder, data_root

    def __repr__(self) -> str:
        return f"<hpotune.Study {str(self.path)!r}>"

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        folder: str | Path | None = None,
        data_root: str | Path | None = None,
    ) -> Study:
        """The study of a study file, or of a study's folder. What is wrong in the file, `check` says.

        `folder`: the study's folder [default: NAME, beside the file]. `data_root`: a folder of datasets [default:
        $HPOTUNE_DATA_ROOT].
        Raises: StudyFileError where nothing is there.
        """
        found = Path(path)
        if not found.exists() and not imports_program():
            raise StudyFileError(f"{found}: does not exist; needs a study file or a study's folder")
        root = data_root if data_root is not None else os.environ.get("HPOTUNE_DATA_ROOT")
        return cls(
            found.absolute(),
            folder=Path(folder).absolute() if folder is not None else None,
            data_root=str(root) if root is not None else None,
        )

    @classmethod
    def from_dict(
        cls,
        values: Mapping[str, object],
        *,
        folder: str | Path | None = None,
        data_root: str | Path | None = None,
    ) -> Study:
        """The study of a mapping with the keys of a study file; the file is written as NAME.yaml.

        `folder`: where it is written, and where its relative paths start [default: the current one]. A value may be a
        path, a number of numpy, and of `python` a function that is defined in a file.
        Raises: StudyFileError where another study file of this name is there.
        """
        home = Path(folder) if folder is not None else Path()
        if imports_program():  # by a trial, which has started already; its next call ends the import
            return cls(home / f"{values.get('name')}.yaml")
        from hpotune.api.study_dict import write_study_file

        return cls.load(library_call(write_study_file)(values, home.absolute()), data_root=data_root)

    @property
    @library_call
    def folder(self) -> Path:
        """The study's folder, which is made when it starts."""
        from hpotune.workspace.folder import folder_of

        return folder_of(self.path, chosen=self._chosen).path

    @library_call
    def check(
        self,
        *,
        rehearse: bool = True,
        memory_gb: float = MEMORY_GB,
        time_s: float = TIME_S,
        show: bool = False,
    ) -> CheckResult:
        """As `hpotune check`: mistakes are returned. `rehearse` False: the file only.

        `memory_gb`, `time_s`: what the rehearsal may use. `show`: its progress, on stderr.
        """
        from hpotune.api.check_study import check_study
        from hpotune.checks.rehearsal import Limits

        limits = Limits(memory_gb=memory_gb, seconds=time_s)
        return check_study(
            self.path, data_root=self._data_root, rehearse=rehearse, limits=limits, silent=not show
        )

    @library_call
    def plan(self, *, probe: bool = False, show: bool = False) -> PlanView:
        """As `hpotune plan`: jobs, time and cost in each mode. `probe`: measured by a few short trials first."""
        from hpotune.api.plan_study import plan_study

        messages = python_messages(show=show)
        planned = plan_study(
            self.path, self._chosen, data_root=self._data_root, probe=probe, say=messages.info
        )
        messages.notes(planned.notes)
        return planned.view

    @library_call
    def submit(self, *, rehearse: bool = True, adopt: bool = False, show: bool = False) -> SubmitResult:
        """As `hpotune submit`: submit the jobs that are missing, and return at once."""
        from hpotune.api.start_study import submit_study

        options = self._start_options(rehearse=rehearse, adopt=adopt)
        return submit_study(self.path, options, messages=python_messages(show=show))

    @library_call
    def run(self, *, show: bool = True, rehearse: bool = True, adopt: bool = False) -> BestResult:
        """As `hpotune run`: run the study on this machine, or continue it; the best trial at its end.

        Trials run in processes of their own, so it can be called from a script, a notebook or a thread. `show`: the
        progress, on stderr.
        Raises: HpotuneError where the study fails or is cancelled, KeyboardInterrupt after Ctrl-C, once the running
            trials have written their checkpoints.
        """
        from hpotune.api.start_study import run_here

        options = self._start_options(rehearse=rehearse, adopt=adopt)
        messages = python_messages(show=show)
        end = run_here(self.path, options, messages=messages)
        if not end.finished:
            self._raise_interrupted()
        if end.failure:
            raise HpotuneError(end.failure)
        if end.early_stop:
            messages.info(end.early_stop)
        return self._best(None, messages)

    def wait(self, timeout: float | None = None, *, every: float = 10) -> StudyStatus:
        """As `hpotune wait`: return once the study has ended, or nothing runs that could end it; its status then.

        `timeout`, `every`: seconds; None: without limit.
        Raises: WaitTimeout, which is a TimeoutError too.
        """
        from hpotune.api.stop_study import wait_for_end

        return wait_for_end(
            lambda: self.status, timeout=timeout, every_s=every, note=python_messages(show=False).note
        )

    @property
    @library_call
    def status(self) -> StudyStatus:
        """As `hpotune status`: trials, jobs, failures, cost, and the best trial so far."""
        from hpotune.api.study_views import read_status

        return read_status(self.path, self._chosen, note=python_messages(show=False).note)

    @property
    @library_call
    def trials(self) -> tuple[TrialView, ...]:
        """As `hpotune trials`: the trials that have started, by number; the base model's is the `baseline`."""
        from hpotune.api.opened_study import read_trials
        from hpotune.api.study_views import trial_views

        _, config, rows = read_trials(self.path, self._chosen, note=python_messages(show=False).note)
        return tuple(trial_views(config, rows))

    def trials_frame(self) -> pandas.DataFrame:
        """The trials as a table of pandas, one row each.

        Raises: HpotuneError where pandas is not installed.
        """
        from hpotune.api.trial_frame import trial_frame

        return trial_frame(self.trials)

    @property
    def best(self) -> BestResult:
        """As `hpotune best`: the best trial or the Pareto front, compared with the base model and other trials."""
        return self.best_by(None)

    @library_call
    def best_by(self, rule: str | None) -> BestResult:
        """As `hpotune best --rule`: the best trial by another rule than that of the study file."""
        return self._best(rule, python_messages(show=False))

    @library_call
    def test(
        self,
        *,
        trials: Sequence[int] = (),
        again: bool = False,
        where: Where | None = None,
        show: bool = True,
    ) -> SealedTestResult:
        """As `hpotune test`: open the sealed test once, on the finalists or these trials; its result.

        `where`: here or slurm [default: where the study ran]. On Slurm it returns at once; called again it returns
        the result.
        """
        from hpotune.api.sealed_test_opening import SealedTestOptions, open_sealed_test

        options = SealedTestOptions(trials=tuple(trials), again=again, where=where)
        opened = open_sealed_test(self.path, self._chosen, options, messages=python_messages(show=show))
        if not opened.finished:
            raise KeyboardInterrupt("interrupted; Study.test continues it")
        if opened.failure:
            raise HpotuneError(opened.failure)
        return opened.result

    @library_call
    def report(self, path: str | Path | None = None, *, format: Format | None = None) -> Path:
        """As `hpotune report`: write the report; returns its file.

        `path` [default: report.html in the study's folder]; `format` [default: by the path's end, else html].
        """
        from hpotune.api.study_views import read_report
        from hpotune.reporting.page.report_files import format_of, write_report

        out = Path(path) if path is not None else None
        kind = format_of(format, out)
        found = read_report(self.path, self._chosen, note=python_messages(show=False).note)
        file = out if out is not None else found.status.folder / f"report.{kind}"
        write_report(found, kind, file)
        return file

    @library_call
    def export(
        self,
        out: str | Path | None = None,
        *,
        trial: int | None = None,
        merge: bool = False,
        form: SettingFormat | None = None,
        push: str | None = None,
        private: bool = False,
    ) -> ExportResult:
        """As `hpotune export`: write the best adapter, merged weights, or the setting for another tool (`form`).

        `out`: a new folder. `push`: NAMESPACE/NAME on the Hugging Face hub.
        """
        from hpotune.api.export_study import ExportOptions, export_study

        messages = python_messages(show=False)
        return export_study(
            self.path,
            self._chosen,
            out=Path(out) if out is not None else None,
            options=ExportOptions(trial=trial, merge=merge, form=form, push=push, private=private),
            note=messages.note,
            wrote=messages.info,
        )

    @library_call
    def cancel(self) -> tuple[str, ...]:
        """As `hpotune cancel`: stop the study's jobs and workers; what was stopped. `resume` continues it."""
        from hpotune.api.stop_study import stop_study

        return tuple(stop_study(self.path, self._chosen, note=python_messages(show=False).note))

    @library_call
    def resume(self, *, where: Where | None = None, show: bool = True) -> BestResult | SubmitResult:
        """As `hpotune resume`: continue the study where it ran, on this machine (as `run`) or on Slurm (as `submit`).

        Of a study that is over it returns the best trial.
        Raises: HpotuneError where failures ended the study.
        """
        from hpotune.api.continue_study import next_start

        messages = python_messages(show=show)
        start = next_start(
            self.path, self._chosen, data_root=self._data_root, where=where, note=messages.note
        )
        if start.where == "slurm":
            return self.submit(show=show)
        if start.where == "here":
            return self.run(show=show)
        assert start.reason is not None, "it is over for a reason"
        if start.reason.is_failure:
            raise HpotuneError(f"the study is over: {start.reason.text}; next: {start.advice}")
        messages.info(f"the study is over: {start.reason.text}\nnext: {start.advice}")
        return self._best(None, messages)

    @library_call
    def extend(
        self,
        *,
        trials: int | str | None = None,
        gpu_hours: float | str | None = None,
        wall_time: timedelta | str | None = None,
        until: date | str | None = None,
        max_failed: int | str | None = None,
        parallel: int | str | None = None,
    ) -> ExtendResult:
        """As `hpotune extend`: raise the budget. Numbers and times are added; texts are as of the verb.

        `trials=20` and `"+20"` add 20 trials, `"70"` makes them 70 in total; `gpu_hours="none"` removes that limit.
        """
        from hpotune.api.continue_study import raise_budget
        from hpotune.api.study_dict import budget_words

        limits = budget_words(
            trials=trials,
            gpu_hours=gpu_hours,
            wall_time=wall_time,
            until=until,
            max_failed=max_failed,
            parallel=parallel,
        )
        return raise_budget(self.path, self._chosen, limits=limits, note=python_messages(show=False).note)

    @library_call
    def retry(self, numbers: Sequence[int] = (), *, cause: str | None = None) -> RetryResult:
        """As `hpotune retry`: let failed trials be tried again: these, else all; of one cause, or of any."""
        from hpotune.api.continue_study import retry_trials

        return retry_trials(
            self.path,
            self._chosen,
            numbers=tuple(numbers),
            cause=cause,
            note=python_messages(show=False).note,
        )

    def _start_options(self, *, rehearse: bool, adopt: bool) -> StartOptions:
        from hpotune.api.start_study import StartOptions
        from hpotune.checks.rehearsal import Limits

        return StartOptions(
            folder=self._chosen,
            adopt=adopt,
            rehearse=rehearse,
            limits=Limits(memory_gb=MEMORY_GB, seconds=TIME_S),
            data_root=self._data_root,
        )

    def _best(self, rule: str | None, messages: Messages) -> BestResult:
        from hpotune.api.study_views import read_best

        return read_best(self.path, self._chosen, rule=rule, note=messages.note)

    def _raise_interrupted(self) -> NoReturn:
        """Raises: HpotuneError after `cancel`, KeyboardInterrupt after a signal; the study can be continued."""
        from hpotune.launch.cancellation import cancellation
        from hpotune.workspace.folder import StudyFolder

        how = cancellation(StudyFolder(path=self.folder))
        if how is not None:
            raise HpotuneError(f"{self.folder}: the study was cancelled ({how}); Study.resume continues it")
        raise KeyboardInterrupt("interrupted; Study.run continues the study")
