"""The display of `hpotune run`: what runs and how far it is, on a terminal; elsewhere one line for each change."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from types import TracebackType

from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from hpotune.config.schema.study_config import StudyConfig
from hpotune.config.text.outside_text import console_text
from hpotune.records.derived_points import read_points
from hpotune.records.trial import TrialRow
from hpotune.reporting.console import on_terminal, plain_console
from hpotune.reporting.format import length, point, score, state_text
from hpotune.reporting.progress.trial_progress import MOST_READ, trial_progress
from hpotune.reporting.status_table import progress_cells
from hpotune.reporting.views.forecast import forecast
from hpotune.schedule.best_trials import best_trials
from hpotune.schedule.stopping_criterion import stop_reason
from hpotune.storage import TrialQueue
from hpotune.workspace.folder import StudyFolder

READ_EVERY_S = 1.0
BAR_WIDTH = 20


class Progress:
    """Shows on stderr the running trials with their phases, and the best one so far; a context manager.

    A display that is redrawn needs a terminal on stdout and stderr; elsewhere a trial's start and end are a line each.
    """

    def __init__(
        self,
        folder: StudyFolder,
        config: StudyConfig,
        store: TrialQueue,
        *,
        silent: bool,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._folder, self._store, self._now = folder, store, now
        self._listed = read_points(folder.path) if config.search.is_derived else None
        self._printed: set[tuple[int, str]] = set()
        self._next_read = 0.0
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("trials", markup=False),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}", markup=False),
        )
        self._task = self._bar.add_task(config.name, total=config.budget.trials, left="")
        drawn = on_terminal(sys.stdout, sys.stderr) and not silent
        self._live = Live(console=plain_console(stderr=True), refresh_per_second=1) if drawn else None
        self._silent = silent

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._next_read = 0.0
        self.show()
        if self._live:
            self._live.stop()

    def show(self) -> None:
        """Reads the store, at most once a second, and shows what has changed."""
        if self._silent or time.monotonic() < self._next_read:
            return
        self._next_read = time.monotonic() + READ_EVERY_S
        rows = self._store.rows()
        if self._live:
            self._live.update(self._display(rows))
            return
        for row in rows:
            has_no_point = row.state == "running" and not row.params and row.kind != "baseline"
            if row.state != "waiting" and not has_no_point and (row.number, row.state) not in self._printed:
                self._printed.add((row.number, row.state))
                print(self._line(row), file=sys.stderr, flush=True)  # noqa: T201 - not a terminal: a line a change

    def _display(self, rows: list[TrialRow]) -> Group:
        config = self._store.config  # its budget may have been extended
        decided, total = sum(row.decided for row in rows), config.budget.trials
        self._bar.update(self._task, completed=decided, total=total, left=self._left(rows))
        running = sorted((row for row in rows if row.state == "running"), key=lambda row: row.start or 0.0)
        parts: list[RenderableType] = [self._bar]
        if running:
            parts.append(self._running(running))
        derived = config.search.is_derived  # a sealed test chooses nothing
        best = [] if derived else best_trials(config.score.objective, rows, config.best)
        if best:
            parts.append(Text(f"best so far: {self._line(best[0])}", style="bold"))
        failed = sum(row.state == "failed" for row in rows)
        if failed:
            parts.append(Text(f"{failed} failed; `hpotune trials {self._folder.path}` lists the causes"))
        return Group(*parts)

    def _left(self, rows: Sequence[TrialRow]) -> str:
        """How long the study still takes; empty where no trial has shown how long one takes."""
        config, now = self._store.config, self._now()
        over = stop_reason(config, rows, now=now) is not None
        ahead = forecast(config, rows, [], [], over=over, now=now)
        return f"about {length(ahead.seconds)} left" if ahead.trials_left and ahead.seconds else ""

    def _running(self, rows: Sequence[TrialRow]) -> Table:
        """A line for each running trial: its phase, the share that is done, the time left, its point."""
        table = Table.grid(padding=(0, 2, 0, 0))
        for ratio in (None, 2, None, None, None, 3):
            table.add_column(no_wrap=True, overflow="ellipsis", ratio=ratio)
        for row in rows[:MOST_READ]:
            found = trial_progress(self._folder, self._store.config, row, now=self._now())
            phase, left = progress_cells(found)
            share: RenderableType = ""
            if found is not None and found.steps is not None:
                share = ProgressBar(total=found.steps, completed=found.step or 0, width=BAR_WIDTH)
            since = max(0.0, self._now().timestamp() - row.start) if row.start is not None else 0.0
            table.add_row(
                f"trial {row.number}", Text(phase), share, f"{left} left" if left else "", length(since),
                Text(console_text(self._point(row), one_line=True)),
            )  # fmt: skip
        if len(rows) > MOST_READ:
            table.add_row("…", f"and {len(rows) - MOST_READ} more trials")
        return table

    def _line(self, row: TrialRow) -> str:
        labels = [objective.label for objective in self._store.config.score.objective]
        stderrs = row.stderrs or (None,) * len(labels)
        values = ", ".join(
            f"{label} {score(value, stderr)}"
            for label, value, stderr in zip(labels, row.values, stderrs, strict=False)
        )
        why = f"{row.failure.cause}: {row.failure.message}" if row.state == "failed" and row.failure else ""
        start = f"trial {row.number} {state_text(row.state)}:"
        text = " ".join(filter(None, [start, values, why, f"[{self._point(row)}]"]))
        return console_text(text, one_line=True)

    def _point(self, row: TrialRow) -> str:
        """The trial's setting; in a study derived from another one, whose setting it is."""
        one = self._listed.of(row) if self._listed else None
        if self._listed is None or one is None:
            return point(row.params) or row.kind
        again = f" again, seed {one.seed}" if self._listed.kind == "repeats" else ""
        return f"trial {one.trial}{again}"
